//! `telemetry/ID.jsonl`: one event a line. A line counts from its line feed on: what a crashed writer left behind the last one
//! is ignored by readers and cut off by the next append.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::Deserialize;

use super::disk::{self, Lock, Staged, damaged, failed};
use super::{Durability, Inner};
use crate::{BackendError, BackendErrorKind, Event, ExecutionId};

/// How much of the end of a file is read to find its last line, at first.
const CHUNK: u64 = 4096;

impl Inner {
    pub(super) fn append_events(&self, id: &ExecutionId, events: &[Event]) -> Result<(), BackendError> {
        if events.is_empty() {
            return Ok(());
        }
        let _lock = Lock::take(&self.layout.lock(id))?;
        if let Some(known) = self.known(id)? {
            self.settle(id, &known)?;
        }
        self.append_new(id, events)
    }

    pub(super) fn events(&self, id: &ExecutionId, from: u64, limit: usize) -> Result<Vec<Event>, BackendError> {
        // The state first: what a later commit pushes out of the outbox is in the file that is read next.
        let known = self.known(id)?;
        let path = self.layout.telemetry(id);
        let (mut events, next) = match disk::open(&path)? {
            Some(file) => read_events(file, &path, from, limit)?,
            None => (Vec::new(), 0),
        };
        if let Some(known) = known.filter(|_| events.len() < limit) {
            let unsettled = known.stored.outbox.iter().filter(|event| event.seq >= next.max(from));
            events.extend(unsettled.take(limit - events.len()).cloned());
        }
        Ok(events)
    }

    pub(super) fn delete_events(&self, id: &ExecutionId) -> Result<(), BackendError> {
        let _lock = Lock::take(&self.layout.lock(id))?;
        self.clear_outbox(id)?;
        Staged::remove(self.layout.telemetry(id)).publish(self.durability)
    }

    /// Appends those of `events` that come after the last stored one. The caller holds the lock.
    pub(super) fn append_new(&self, id: &ExecutionId, events: &[Event]) -> Result<(), BackendError> {
        if events.is_empty() {
            return Ok(());
        }
        let path = self.layout.telemetry(id);
        let mut options = OpenOptions::new();
        let mut file = options
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| failed("open", &path, error))?;
        let end = find_end(&mut file, &path)?;
        let lines = lines(events, end.next_seq)?;
        write_lines(&mut file, &end, &lines, self.durability).map_err(|error| failed("append to", &path, error))?;
        if end.length == 0 && self.durability == Durability::Full {
            disk::sync_folder(&path)?;
        }
        Ok(())
    }
}

fn lines(events: &[Event], from: u64) -> Result<Vec<u8>, BackendError> {
    let mut lines = Vec::new();
    for event in events.iter().filter(|event| event.seq >= from) {
        serde_json::to_writer(&mut lines, event).map_err(|error| {
            BackendError::new(BackendErrorKind::Other, "an event can't be written as JSON").because(error)
        })?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// Syncs also if there is nothing to write: whoever wrote it may have died before it was durable.
fn write_lines(file: &mut File, end: &End, lines: &[u8], durability: Durability) -> io::Result<()> {
    if file.metadata()?.len() > end.length {
        file.set_len(end.length)?;
    }
    file.seek(SeekFrom::Start(end.length))?;
    if let Err(error) = file.write_all(lines) {
        // Half a line would be cut off by the next append as well.
        let _ = file.set_len(end.length);
        return Err(error);
    }
    match durability {
        Durability::Full => file.sync_data(),
        Durability::Relaxed => Ok(()),
    }
}

/// Where complete lines end.
struct End {
    length: u64,
    next_seq: u64,
}

#[derive(Deserialize)]
struct Numbered {
    seq: u64,
}

/// Reads as much of the end of the file as its last complete line needs.
fn find_end(file: &mut File, path: &Path) -> Result<End, BackendError> {
    let read = |error| failed("read", path, error);
    let length = file.metadata().map_err(read)?.len();
    let mut chunk = CHUNK;
    loop {
        let start = length.saturating_sub(chunk);
        let mut tail = Vec::new();
        file.seek(SeekFrom::Start(start)).map_err(read)?;
        Read::by_ref(file)
            .take(length - start)
            .read_to_end(&mut tail)
            .map_err(read)?;
        let last_feed = tail.iter().rposition(|byte| *byte == b'\n');
        let complete = &tail[..last_feed.unwrap_or(0)];
        let feed_before = complete.iter().rposition(|byte| *byte == b'\n');
        if let (Some(feed), true) = (last_feed, feed_before.is_some() || start == 0) {
            let last: Numbered = disk::parse(&complete[feed_before.map_or(0, |feed| feed + 1)..], path)?;
            let (length, next_seq) = (start + feed as u64 + 1, last.seq.saturating_add(1));
            return Ok(End { length, next_seq });
        }
        if start == 0 {
            return Ok(End { length: 0, next_seq: 0 });
        }
        chunk *= 2;
    }
}

/// The events asked for, and the number after the last one stored (or after the last one returned, if there are more).
fn read_events(mut file: File, path: &Path, from: u64, limit: usize) -> Result<(Vec<Event>, u64), BackendError> {
    let read = |error| failed("read", path, error);
    let start = find_start(&mut file, from).map_err(read)?;
    file.seek(SeekFrom::Start(start)).map_err(read)?;
    let mut reader = BufReader::new(file);
    let (mut events, mut next, mut number) = (Vec::new(), 0, 0_u64);
    let mut line = Vec::new();
    while events.len() < limit {
        line.clear();
        reader
            .read_until(b'\n', &mut line)
            .map_err(|error| failed("read", path, error))?;
        if line.pop() != Some(b'\n') {
            break;
        }
        number += 1;
        let wrong = |error: serde_json::Error| {
            let place = match start {
                0 => format!("line {number}"),
                start => format!("line {number} after byte {start}"),
            };
            damaged(path, &format!("{place}: {error}")).because(error)
        };
        let seq = serde_json::from_slice::<Numbered>(&line).map_err(wrong)?.seq;
        next = seq.saturating_add(1);
        if seq >= from {
            events.push(serde_json::from_slice(&line).map_err(wrong)?);
        }
    }
    Ok((events, next))
}

/// Where a line begins that no event with number `from` or above stands before: reading on from page to page would else
/// read all that comes before each page again. Numbers rise from line to line.
fn find_start(file: &mut File, from: u64) -> io::Result<u64> {
    let (mut start, mut end) = (0, file.metadata()?.len());
    while from > 0 && end - start > CHUNK {
        let middle = start + (end - start) / 2;
        file.seek(SeekFrom::Start(middle))?;
        let mut reader = BufReader::with_capacity(512, &mut *file);
        let mut line = Vec::new();
        let next = middle + reader.read_until(b'\n', &mut line)? as u64;
        line.clear();
        reader.read_until(b'\n', &mut line)?;
        match serde_json::from_slice::<Numbered>(&line) {
            Ok(event) if next < end && event.seq < from => start = next,
            Ok(_) => end = middle,
            Err(_) if next >= end => end = middle,
            // Whoever reads all lines says which one is damaged.
            Err(_) => return Ok(0),
        }
    }
    Ok(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EventKind, Timestamp};

    #[test]
    fn events_are_found_from_any_number_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let event = |seq: u64| Event {
            seq,
            time: Timestamp::from_micros(0),
            kind: EventKind::ContextWarning {
                node_name: "n".into(),
                // One line is longer than what is read at a time.
                message: "x".repeat(if seq == 50 { 20_000 } else { (seq % 90) as usize }).into(),
            },
        };
        // Some are missing, as after a change of stores.
        let all: Vec<Event> = (0..500).filter(|seq| seq % 7 != 3).map(event).collect();
        let mut content = lines(&all, 0).unwrap();
        content.extend(b"{\"seq\": 500, \"ti");
        std::fs::write(&path, content).unwrap();
        for from in 0..510 {
            let (events, _) = read_events(File::open(&path).unwrap(), &path, from, 20).unwrap();
            let expected: Vec<&Event> = all.iter().filter(|event| event.seq >= from).take(20).collect();
            assert_eq!(events.iter().collect::<Vec<_>>(), expected, "from {from}");
        }
    }
}
