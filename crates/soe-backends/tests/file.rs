//! The conformance suite on the file store.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests too")]

use std::path::Path;
use std::sync::Mutex;

use async_trait::async_trait;
use soe_backends::conformance::{self, Factory, Task};
use soe_backends::{Backends, Durability, FileStore};
use tempfile::TempDir;

/// Folders that live as long as the factory; the last one made is the one to be re-opened.
struct Folders(Mutex<Vec<TempDir>>, Durability);

impl Folders {
    fn new(durability: Durability) -> Self {
        Self(Mutex::default(), durability)
    }

    fn open(&self, folder: &Path) -> Backends {
        Backends::single(FileStore::open_with(folder, self.1).unwrap().into())
    }
}

#[async_trait]
impl Factory for Folders {
    async fn fresh(&self) -> Backends {
        let folder = tempfile::tempdir().unwrap();
        let backends = self.open(folder.path());
        self.0.lock().unwrap().push(folder);
        backends
    }

    async fn reopen(&self, backends: Backends) -> Option<Backends> {
        drop(backends);
        let folder = self.0.lock().unwrap().last().unwrap().path().to_owned();
        Some(self.open(&folder))
    }

    async fn concurrently(&self, tasks: Vec<Task>) {
        let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
        for task in tasks {
            task.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_store_conforms() {
    let report = conformance::run_all(&Folders::new(Durability::Relaxed)).await;
    println!("{report}");
    let skipped: Vec<_> = report.skipped.iter().map(|(check, _)| *check).collect();
    let expected = [
        "history::commits",
        "history::states",
        "history::gone",
        "history::survives",
        "forks::turns",
    ];
    assert_eq!(skipped, expected, "old commits aren't kept: {report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_synced_store_survives_reopening_and_races() {
    let factory = Folders::new(Durability::Full);
    for check in conformance::checks() {
        if check.name.starts_with("reopen") || check.name.starts_with("concurrency") {
            check
                .run(&factory)
                .await
                .unwrap_or_else(|finding| panic!("{}: {finding:?}", check.name));
        }
    }
}
