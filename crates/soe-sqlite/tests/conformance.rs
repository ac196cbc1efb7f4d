//! The conformance suite, on files and in memory.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests too")]

use std::sync::Mutex;

use async_trait::async_trait;
use soe_backends::Backends;
use soe_backends::conformance::{self, Factory, Task};
use soe_sqlite::{Durability, SqliteStore};
use tempfile::TempDir;

/// Files in folders that live as long as the factory; the last one made is the one to be re-opened.
struct Files(Mutex<Vec<TempDir>>, Durability);

impl Files {
    fn new(durability: Durability) -> Self {
        Self(Mutex::default(), durability)
    }

    async fn open(&self, path: std::path::PathBuf) -> Backends {
        let builder = SqliteStore::builder(path).durability(self.1);
        builder.open().await.unwrap().backends()
    }

    fn last(&self) -> std::path::PathBuf {
        self.0.lock().unwrap().last().unwrap().path().join("soe.db")
    }
}

#[async_trait]
impl Factory for Files {
    async fn fresh(&self) -> Backends {
        self.0.lock().unwrap().push(tempfile::tempdir().unwrap());
        self.open(self.last()).await
    }

    async fn reopen(&self, backends: Backends) -> Option<Backends> {
        drop(backends);
        Some(self.open(self.last()).await)
    }

    async fn concurrently(&self, tasks: Vec<Task>) {
        let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
        for task in tasks {
            task.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_conforms() {
    let report = conformance::run_all(&Files::new(Durability::Full)).await;
    println!("{report}");
    assert!(report.skipped.is_empty(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_relaxed_store_conforms() {
    let report = conformance::run_all(&Files::new(Durability::Relaxed)).await;
    assert!(report.skipped.is_empty(), "{report}");
}

/// Without Tokio: the store brings its own threads.
#[test]
fn a_store_in_memory_conforms() {
    let report = futures::executor::block_on(conformance::run_all(&|| async {
        SqliteStore::open_in_memory().await.unwrap().backends()
    }));
    assert_eq!(
        report.skipped.len(),
        7,
        "only what needs re-opening is skipped: {report}"
    );
}
