//! The conformance suite on the store that the guide on backends shows: all of it on a plain key-value interface.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests too")]
#![allow(unreachable_pub, reason = "the store is shown as that of a library")]

#[path = "minimal/store.rs"]
mod store;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use soe_backends::conformance::{self, Factory, Task};
use soe_backends::{BackendError, Backends};

use store::{Kv, KvStore};

/// Keys and values in memory.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Values>>);

#[derive(Default)]
struct Values {
    last: u64,
    by_key: BTreeMap<String, (u64, Vec<u8>)>,
}

#[async_trait]
impl Kv for Memory {
    async fn get(&self, key: &str) -> Result<(u64, Option<Vec<u8>>), BackendError> {
        tokio::task::yield_now().await;
        let values = self.0.lock().unwrap();
        let found = values.by_key.get(key).cloned();
        Ok(found.map_or((0, None), |(version, value)| (version, Some(value))))
    }

    async fn put_if(&self, key: &str, version: u64, value: Option<Vec<u8>>) -> Result<bool, BackendError> {
        tokio::task::yield_now().await;
        let mut values = self.0.lock().unwrap();
        if values.by_key.get(key).map_or(0, |(version, _)| *version) != version {
            return Ok(false);
        }
        values.last += 1;
        let new = values.last;
        match value {
            Some(value) => values.by_key.insert(key.to_owned(), (new, value)),
            None => values.by_key.remove(key),
        };
        Ok(true)
    }

    async fn range(&self, prefix: &str) -> Result<Vec<Vec<u8>>, BackendError> {
        let values = self.0.lock().unwrap();
        let from = values.by_key.range(prefix.to_owned()..);
        let found = from.take_while(|(key, _)| key.starts_with(prefix));
        Ok(found.map(|(_, (_, value))| value.clone()).collect())
    }
}

/// Stores over values that outlive them; the last ones made are those to be re-opened.
#[derive(Default)]
struct Stores(Mutex<Memory>);

fn open(values: Memory) -> Backends {
    let store = Arc::new(KvStore(values));
    Backends::builder(store.clone(), store).build()
}

#[async_trait]
impl Factory for Stores {
    async fn fresh(&self) -> Backends {
        let values = Memory::default();
        *self.0.lock().unwrap() = values.clone();
        open(values)
    }

    async fn reopen(&self, backends: Backends) -> Option<Backends> {
        drop(backends);
        Some(open(self.0.lock().unwrap().clone()))
    }

    async fn concurrently(&self, tasks: Vec<Task>) {
        let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
        for task in tasks {
            task.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_on_a_key_value_interface_conforms() {
    let report = conformance::run_all(&Stores::default()).await;
    println!("{report}");
    let optional = ["definitions", "conversations", "telemetry", "leases", "forks::turns"];
    let of_these = |check: &&str| optional.iter().any(|part| check.starts_with(part));
    assert!(report.skipped.iter().all(|(check, _)| of_these(check)), "{report}");
}

#[test]
fn the_guide_names_it() {
    let (guide, store) = (
        include_str!("../../../docs/backends.md"),
        include_str!("minimal/store.rs"),
    );
    assert!(guide.contains("crates/soe-backends/tests/minimal/store.rs"));
    let lines = store.lines().count();
    assert!(lines <= 300, "the minimal store has {lines} lines");
}
