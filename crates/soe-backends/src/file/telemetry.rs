//! `telemetry/ID.jsonl`: one event a line. Up to what the journal's base says it is synced, and the events before that are nowhere
//! else; behind that it follows the journal, for people.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::Deserialize;

use super::disk::{self, damaged, failed};
use super::journal::Journal;
use super::open::{Entry, remove};
use super::people::Changed;
use super::tree::{Events, Record};
use super::{Durability, Inner};
use crate::{BackendError, BackendErrorKind, Event, ExecutionId};

/// How much of the file is read to find a place in it, at least.
const CHUNK: u64 = 4096;

/// A line that is longer is damaged.
const MAX_LINE: u64 = 1 << 28;

impl Inner {
    pub(super) fn append_events(&self, id: &ExecutionId, events: Vec<Event>) -> Result<(), BackendError> {
        self.with(id, |open| {
            let next = open.tree().events.next;
            let new: Vec<Event> = events.into_iter().filter(|event| event.seq >= next).collect();
            match new.is_empty() {
                true => Ok(()),
                false => open.write(Record::Events(new), None, &Changed::NOTHING),
            }
        })
    }

    pub(super) fn events(&self, id: &ExecutionId, from: u64, limit: usize) -> Result<Vec<Event>, BackendError> {
        self.with(id, |open| {
            let Events { kept, pending, .. } = &open.tree().events;
            let path = self.layout.telemetry(id);
            let mut events = match disk::open(&path)? {
                Some(file) if *kept > 0 => read_events(file, *kept, &path, from, limit)?,
                _ => Vec::new(),
            };
            let start = pending.partition_point(|event| event.seq < from);
            events.extend(pending[start..].iter().take(limit - events.len()).cloned());
            Ok(events)
        })
    }

    pub(super) fn delete_events(&self, id: &ExecutionId) -> Result<(), BackendError> {
        self.with(id, |open| {
            if open.tree().events.next > 0 {
                open.write(Record::NoEvents, None, &Changed::NOTHING)?;
            }
            remove(&self.layout.telemetry(id), Durability::Relaxed)?;
            open.sweep()
        })
    }

    /// Makes what the telemetry file has of the events the place where they are.
    pub(super) fn keep_events(&self, id: &ExecutionId, entry: &mut Entry) -> Result<(), BackendError> {
        if entry.tree.events.pending.is_empty() {
            return Ok(());
        }
        let path = self.layout.telemetry(id);
        show(&path, entry)?;
        if self.durability == Durability::Full {
            let file = disk::open_to_change(&path, false)?;
            file.sync_all().map_err(|error| failed("write", &path, error))?;
            disk::sync_folder(&path)?;
        }
        let events = &mut entry.tree.events;
        events.kept = entry.shown.telemetry;
        events.pending.clear();
        entry.shown.lines = 0;
        Ok(())
    }
}

/// Makes the file have all events.
pub(super) fn show(path: &Path, entry: &mut Entry) -> Result<(), BackendError> {
    let (events, shown) = (&mut entry.tree.events, &mut entry.shown);
    if events.pending.len() == shown.lines && shown.all || events.next == 0 {
        return Ok(());
    }
    let mut file = disk::open_to_change(path, true)?;
    let writing = |error| failed("append to", path, error);
    let length = file.metadata().map_err(writing)?.len();
    if length == 0 && events.kept > 0 {
        // Who removes the file wants to be rid of the events in it.
        events.kept = 0;
        entry.journal.iter_mut().for_each(Journal::cut_soon);
    }
    if length != shown.telemetry || !shown.all {
        if length < events.kept {
            return Err(damaged(
                path,
                &format!("it has {length} bytes, and had {}", events.kept),
            ));
        }
        (shown.telemetry, shown.lines) = (events.kept, 0);
    }
    let lines = lines(&events.pending[shown.lines..])?;
    append(&mut file, shown.telemetry, &lines).map_err(writing)?;
    shown.telemetry += lines.len() as u64;
    shown.lines = events.pending.len();
    Ok(())
}

fn lines(events: &[Event]) -> Result<Vec<u8>, BackendError> {
    let mut lines = Vec::new();
    for event in events {
        serde_json::to_writer(&mut lines, event).map_err(|error| {
            BackendError::new(BackendErrorKind::Other, "an event can't be written as JSON").because(error)
        })?;
        lines.push(b'\n');
    }
    Ok(lines)
}

fn append(file: &mut File, start: u64, lines: &[u8]) -> io::Result<()> {
    if file.metadata()?.len() > start {
        file.set_len(start)?;
    }
    file.seek(SeekFrom::Start(start))?;
    file.write_all(lines)
}

#[derive(Deserialize)]
struct Numbered {
    seq: u64,
}

/// The events asked for, out of the first `end` bytes.
fn read_events(mut file: File, end: u64, path: &Path, from: u64, limit: usize) -> Result<Vec<Event>, BackendError> {
    let read = |error| failed("read", path, error);
    let length = file.metadata().map_err(read)?.len();
    if length < end {
        return Err(damaged(path, &format!("it has {length} bytes, and had {end}")));
    }
    let start = find_start(&mut file, end, from).map_err(read)?;
    file.seek(SeekFrom::Start(start)).map_err(read)?;
    let mut reader = BufReader::new(file.take(end - start));
    let (mut events, mut number) = (Vec::new(), 0_u64);
    let mut line = Vec::new();
    while events.len() < limit {
        line.clear();
        (&mut reader)
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)
            .map_err(read)?;
        if line.is_empty() {
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
        if serde_json::from_slice::<Numbered>(&line).map_err(wrong)?.seq >= from {
            events.push(serde_json::from_slice(&line).map_err(wrong)?);
        }
    }
    Ok(events)
}

/// Where a line begins that no event with number `from` or above stands before: reading on from page to page would else
/// read all that comes before each page again. Numbers rise from line to line.
fn find_start(file: &mut File, mut end: u64, from: u64) -> io::Result<u64> {
    let mut start = 0;
    while from > 0 && end - start > CHUNK {
        let middle = start + (end - start) / 2;
        file.seek(SeekFrom::Start(middle))?;
        let mut reader = BufReader::with_capacity(512, (&mut *file).take(MAX_LINE));
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
            execution: ExecutionId::new("a").unwrap(),
            kind: EventKind::ContextWarning {
                node_name: "n".into(),
                // One line is longer than what is read at a time.
                message: "x".repeat(if seq == 50 { 20_000 } else { (seq % 90) as usize }).into(),
            },
        };
        // Some are missing, as after a change of stores.
        let all: Vec<Event> = (0..500).filter(|seq| seq % 7 != 3).map(event).collect();
        let mut content = lines(&all).unwrap();
        let end = content.len() as u64;
        content.extend(b"{\"seq\": 500, \"ti");
        std::fs::write(&path, content).unwrap();
        for from in 0..510 {
            let events = read_events(File::open(&path).unwrap(), end, &path, from, 20).unwrap();
            let expected: Vec<&Event> = all.iter().filter(|event| event.seq >= from).take(20).collect();
            assert_eq!(events.iter().collect::<Vec<_>>(), expected, "from {from}");
        }
    }
}
