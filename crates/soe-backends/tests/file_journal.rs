//! The journal of a tree in the file store, wherever it ends.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod file_support;

use std::fs;
use std::path::Path;

use file_support::*;
use soe_backends::{Change, Commit, ContextBackend, Durability, FileStore, Post, TelemetryBackend, TreeState};

/// A tree with a message, a second one, and a commit that takes the first; the lengths of its journal in between.
async fn history(folder: &Path) -> (Vec<u64>, Vec<(u64, usize, u64)>) {
    let (store, one) = with_one(folder).await;
    let journal = folder.join("trees/one.journal");
    let mut lengths = vec![fs::metadata(&journal).unwrap().len()];
    let mut found = vec![seen(&store).await];
    for step in 0..7_u64 {
        match step {
            0 | 1 => assert_eq!(
                store.post(&one, &message(&one, &format!("{step}"))).await.unwrap(),
                Post::Stored(step + 1)
            ),
            2 => {
                let mut taking = commit(&one, 2, 0);
                taking.changes.push(Change::Taken(1));
                store.commit(vec![taking], None).await.unwrap();
            }
            3 => store.append_events(&one, &[event(&one, 2)]).await.unwrap(),
            // A batch: all of it or nothing.
            4 => {
                let batch: Vec<Commit> = (3..6).map(|version| commit(&one, version, 50)).collect();
                store.commit(batch, None).await.unwrap();
            }
            step => store.commit(vec![commit(&one, step + 1, 20)], None).await.unwrap(),
        }
        lengths.push(fs::metadata(&journal).unwrap().len());
        found.push(seen(&store).await);
    }
    (lengths, found)
}

/// The version, the number of messages that wait, the number of events.
async fn seen(store: &FileStore) -> (u64, usize, u64) {
    let one = id("one");
    let version = store.load(&one).await.unwrap().unwrap().version;
    let messages = store.inbox(&one, 0, 99).await.unwrap();
    let events = store.events(&one, 0, 99).await.unwrap();
    assert!(events.iter().map(|event| event.seq).eq(0..events.len() as u64));
    (version, messages.len(), events.len() as u64)
}

/// What a process leaves behind that is killed while it writes: any part of the record, the files for people as of before it.
#[tokio::test]
async fn a_journal_that_ends_anywhere_is_as_of_the_last_whole_record() {
    let folder = tempfile::tempdir().unwrap();
    let (lengths, found) = history(folder.path()).await;
    let journal = folder.path().join("trees/one.journal");
    let whole = fs::read(&journal).unwrap();
    for length in lengths[0]..=*lengths.last().unwrap() {
        // Every acknowledged record is whole: those that end up to here.
        let records = lengths.partition_point(|end| *end <= length);
        let mut left = whole[..length as usize].to_vec();
        left.extend(vec![0; length as usize % 3]);
        fs::write(&journal, left).unwrap();
        let store = FileStore::open_with(folder.path(), Durability::Relaxed).unwrap();
        assert_eq!(seen(&store).await, found[records - 1], "{length} bytes");
        if length % 8 != 0 && !lengths.contains(&length) && !lengths.contains(&(length + 1)) {
            continue;
        }
        // It goes on as if the rest had never been.
        let (version, messages, events) = found[records - 1];
        let mut next = commit(&id("one"), version + 1, 0);
        next.events = vec![event(&id("one"), events)];
        store.commit(vec![next], None).await.unwrap();
        assert_eq!(
            seen(&store).await,
            (version + 1, messages, events + 1),
            "{length} bytes"
        );
        let store = FileStore::open_with(folder.path(), Durability::Relaxed).unwrap();
        assert_eq!(
            seen(&store).await,
            (version + 1, messages, events + 1),
            "{length} bytes"
        );
        let shown = fs::read_to_string(folder.path().join("telemetry/one.jsonl")).unwrap();
        assert_eq!(shown.lines().count() as u64, events + 1);
    }
}

/// A journal gets a new base when that is worth it: the bytes written stay in proportion, and all of it is there.
#[tokio::test]
async fn a_journal_is_cut_when_it_outgrows_its_base() {
    let folder = tempfile::tempdir().unwrap();
    let (store, one) = (
        FileStore::open_with(folder.path(), Durability::Relaxed).unwrap(),
        id("one"),
    );
    let journal = folder.path().join("trees/one.journal");
    let first = commit(&one, 1, 0);
    let mut state = TreeState::create(&first).unwrap();
    store.commit(vec![first], Some(state.clone().into())).await.unwrap();
    store.post(&one, &message(&one, "waits")).await.unwrap();
    let (mut bases, mut before) = (0, String::new());
    for version in 2..600 {
        let next = commit(&one, version, 0);
        state.apply(&next).unwrap();
        store.commit(vec![next], Some(state.clone().into())).await.unwrap();
        let content = fs::read_to_string(&journal).unwrap();
        let token = content.lines().next().unwrap().to_owned();
        bases += usize::from(token != before);
        before = token;
        assert!(content.len() < 200_000);
    }
    assert!((2..10).contains(&bases), "{bases}");
    let store = FileStore::open(folder.path()).unwrap();
    assert_eq!(*store.load(&one).await.unwrap().unwrap(), state);
    assert_eq!(consistent(&store, &one).await, 599);
    assert_eq!(
        store.events(&one, 300, 2).await.unwrap(),
        [event(&one, 300), event(&one, 301)]
    );
    assert_eq!(
        store.post(&one, &message(&one, "waits")).await.unwrap(),
        Post::Duplicate(1)
    );
    assert_eq!(store.inbox(&one, 0, 9).await.unwrap().len(), 1);
}
