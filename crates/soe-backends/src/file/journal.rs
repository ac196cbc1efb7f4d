//! `trees/ID.journal`: all that counts of a tree, as records, one a line. It begins with what was made of all records before: the
//! base. A file begins to exist, and gets a new base, by being replaced as a whole; all else is appended, synced, and only then
//! acknowledged. So a record that isn't whole can only be the last one, and nobody was told of it: it is as if it were not there,
//! and the next append cuts it off.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::disk::{self, Staged, damaged, failed, newer};
use crate::{BackendError, BackendErrorKind, Durability, FORMAT};

/// A journal that would be longer is not written, and one that is longer is not read.
const MAX_BYTES: u64 = 1 << 32;

/// The length of what stands before the content of a record: its length and checksum.
const PREFIX: usize = 26;

/// At least so much is appended before it is worth a new base.
const MIN_GROWTH: u64 = 64 * 1024;

/// The first line of a journal has no more bytes.
const MAX_FIRST_LINE: u64 = 96;

/// A journal as it is known to be: nobody changes it without the lock of its tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Journal {
    path: PathBuf,
    pub(super) mark: Mark,
    /// Where the base ends.
    base: u64,
    /// A new base is worth it when the journal is so long.
    cut_at: u64,
}

/// Tells one content of a journal from every other: no two bases have the same token, and behind it records are only appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) token: String,
    /// Where the last whole record ends.
    pub(super) length: u64,
}

/// A record, ready to be written.
pub(super) struct Line(Vec<u8>);

impl Line {
    pub(super) fn new(content: &str) -> Result<Self, BackendError> {
        if content.len() as u64 > MAX_BYTES / 2 {
            let message = format!("{} bytes at a time are more than the file store keeps", content.len());
            return Err(BackendError::new(BackendErrorKind::Unsupported, message));
        }
        let mut line = format!("{:08x} {:016x} ", content.len(), checksum(content.as_bytes())).into_bytes();
        line.extend_from_slice(content.as_bytes());
        line.push(b'\n');
        Ok(Self(line))
    }
}

impl Line {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// What stands in a file that should be one line; `None` if it isn't as it was written.
    pub(super) fn content(mut file: &[u8]) -> Option<Vec<u8>> {
        let (left, mut content) = (file.len() as u64, Vec::new());
        record(&mut file, left, &mut content).ok()?.then_some(content)
    }
}

/// FNV-1a: it tells what was written as a whole from what was not.
fn checksum(content: &[u8]) -> u64 {
    content.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Journal {
    /// Makes the file, or replaces it: `lines` are its base.
    pub(super) fn write(
        path: PathBuf,
        token: String,
        lines: &[Line],
        durability: Durability,
    ) -> Result<Self, BackendError> {
        let first_line = |base: u64| format!("soe-tree {FORMAT} {token} {base:016x}\n");
        let lengths = lines.iter().map(|line| line.0.len() as u64);
        let base = first_line(0).len() as u64 + lengths.sum::<u64>();
        check_length(&path, base)?;
        let first = first_line(base);
        let parts = std::iter::once(first.as_bytes()).chain(lines.iter().map(|line| &line.0[..]));
        let parts: Vec<&[u8]> = parts.collect();
        Staged::replace(path.clone(), &parts, durability)?.publish(durability)?;
        Ok(Self {
            path,
            mark: Mark { token, length: base },
            base,
            cut_at: cut_at(base),
        })
    }

    /// Opens the file; `None` if there is none. Nothing is read yet but its first line.
    pub(super) fn open(path: &Path) -> Result<Option<(Self, File)>, BackendError> {
        let Some(mut file) = disk::open(path)? else {
            return Ok(None);
        };
        let length = disk::length(&file, path, MAX_BYTES)?;
        let (token, base, start) = first_line(&mut file, path)?;
        if start > base || base > length {
            return Err(damaged(path, "its beginning is not whole"));
        }
        let journal = Self {
            path: path.to_owned(),
            mark: Mark { token, length: start },
            base,
            cut_at: cut_at(base),
        };
        Ok(Some((journal, file)))
    }

    /// What tells the content of the file, if it has nothing but whole records.
    pub(super) fn mark_at_end(self, file: &File) -> Result<Mark, BackendError> {
        let length = disk::length(file, &self.path, MAX_BYTES)?;
        let token = self.mark.token;
        Ok(Mark { token, length })
    }

    /// Visits the whole records behind what is known of it, which then are known as well.
    pub(super) fn read(
        &mut self,
        file: File,
        mut visit: impl FnMut(&[u8]) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let reading = |error| failed("read", &self.path, error);
        let end = file.metadata().map_err(reading)?.len();
        let mut file = BufReader::with_capacity(64 * 1024, file);
        file.seek(SeekFrom::Start(self.mark.length)).map_err(reading)?;
        let mut content = Vec::new();
        while self.mark.length < end {
            if !record(&mut file, end - self.mark.length, &mut content).map_err(reading)? {
                return self.check_torn(file, end);
            }
            visit(&content)?;
            self.mark.length += (PREFIX + content.len() + 1) as u64;
        }
        Ok(())
    }

    /// What isn't whole must be at the end: if anything whole comes behind it, it was whole once.
    fn check_torn(&self, mut file: BufReader<File>, end: u64) -> Result<(), BackendError> {
        let at = self.mark.length;
        let reading = |error| failed("read", &self.path, error);
        let whole_behind = at < self.base || any_record(&mut file, at, end).map_err(reading)?;
        match whole_behind {
            true => Err(damaged(
                &self.path,
                &format!("the record at byte {at} is not as it was written"),
            )),
            false => Ok(()),
        }
    }

    /// Appends a record. On an error it is not there, unless the error's kind is [`BackendErrorKind::Other`].
    pub(super) fn append(&mut self, line: &Line, durability: Durability) -> Result<(), BackendError> {
        let start = self.mark.length;
        let length = start + line.0.len() as u64;
        check_length(&self.path, length)?;
        let mut file = disk::open_to_change(&self.path, false)?;
        match append_at(&mut file, start, &line.0, durability) {
            Ok(()) => {
                self.mark.length = length;
                Ok(())
            }
            Err(error) => {
                let undone = file.set_len(start).is_ok();
                let failed = failed("append to", &self.path, error);
                Err(match undone {
                    true => failed,
                    false => {
                        BackendError::new(BackendErrorKind::Other, "what was written may be there").because(failed)
                    }
                })
            }
        }
    }

    /// Whether so much was appended that a new base costs little beside it.
    pub(super) fn is_long(&self) -> bool {
        self.mark.length >= self.cut_at
    }

    /// The base is not as it should be: a new one is worth it.
    pub(super) fn cut_soon(&mut self) {
        self.cut_at = 0;
    }

    /// There was no new base: the next attempt comes when it is worth it again.
    pub(super) fn put_off(&mut self) {
        self.cut_at = cut_at(self.mark.length);
    }
}

fn cut_at(base: u64) -> u64 {
    base + base.max(MIN_GROWTH)
}

fn check_length(path: &Path, length: u64) -> Result<(), BackendError> {
    if length <= MAX_BYTES {
        return Ok(());
    }
    let message = format!(
        "{} would have {length} bytes, more than the file store keeps",
        path.display()
    );
    Err(BackendError::new(BackendErrorKind::Unsupported, message))
}

/// The token, the length of the base, and where the first record begins.
fn first_line(file: &mut File, path: &Path) -> Result<(String, u64, u64), BackendError> {
    let mut line = Vec::new();
    let mut beginning = BufReader::new(file.take(MAX_FIRST_LINE));
    beginning
        .read_until(b'\n', &mut line)
        .map_err(|error| failed("read", path, error))?;
    let text = std::str::from_utf8(&line).unwrap_or_default();
    let mut words = text.strip_suffix('\n').unwrap_or_default().split(' ');
    let format = match (words.next(), words.next().map(str::parse::<u64>)) {
        (Some("soe-tree"), Some(Ok(format))) => format,
        _ => return Err(damaged(path, "it doesn't begin as a journal does")),
    };
    if format > u64::from(FORMAT) {
        return Err(newer(path, format, FORMAT));
    }
    match (words.next(), words.next().map(|base| u64::from_str_radix(base, 16))) {
        (Some(token), Some(Ok(base))) => Ok((token.to_owned(), base, line.len() as u64)),
        _ => Err(damaged(path, "it doesn't begin as a journal does")),
    }
}

/// Reads a record out of the next `left` bytes; false if there is no whole one.
fn record(file: &mut impl Read, left: u64, content: &mut Vec<u8>) -> io::Result<bool> {
    let mut prefix = [0; PREFIX];
    if left <= PREFIX as u64 {
        return Ok(false);
    }
    file.read_exact(&mut prefix)?;
    let number = |digits: &[u8]| {
        let digits = std::str::from_utf8(digits).ok()?;
        u64::from_str_radix(digits, 16).ok()
    };
    let (Some(length), Some(expected)) = (number(&prefix[..8]), number(&prefix[9..25])) else {
        return Ok(false);
    };
    if length > left - PREFIX as u64 - 1 {
        return Ok(false);
    }
    content.clear();
    file.take(length + 1).read_to_end(content)?;
    let ends = content.pop() == Some(b'\n');
    Ok(ends && content.len() as u64 == length && checksum(content) == expected)
}

/// Whether a whole record begins at any line behind the place `after`.
fn any_record(file: &mut BufReader<File>, after: u64, end: u64) -> io::Result<bool> {
    let mut content = Vec::new();
    let mut place = after;
    file.seek(SeekFrom::Start(place))?;
    loop {
        let buffer = file.fill_buf()?;
        if buffer.is_empty() {
            return Ok(false);
        }
        let feed = buffer.iter().position(|byte| *byte == b'\n');
        let used = feed.map_or(buffer.len(), |feed| feed + 1);
        file.consume(used);
        place += used as u64;
        if feed.is_some() && place < end {
            if record(file, end - place, &mut content)? {
                return Ok(true);
            }
            file.seek(SeekFrom::Start(place))?;
        }
    }
}

fn append_at(file: &mut File, start: u64, line: &[u8], durability: Durability) -> io::Result<()> {
    if file.metadata()?.len() > start {
        file.set_len(start)?;
    }
    file.seek(SeekFrom::Start(start))?;
    file.write_all(line)?;
    match durability {
        Durability::Full => file.sync_data(),
        Durability::Relaxed => Ok(()),
    }
}
