//! The conformance suite on the memory store, whole and split into separate stores; and on stores that are broken.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "helpers of tests are tests too"
)]

use std::sync::Arc;

use async_trait::async_trait;
use soe_backends::conformance::{self, Factory, Finding, Task};
use soe_backends::{
    BackendError, Backends, Commit, ContextBackend, ExecutionId, ExecutionState, ListPage, ListQuery, MemoryStore,
    Status,
};

/// Runs concurrent tasks on several threads.
struct Threads<F>(F);

#[async_trait]
impl<F: Fn() -> Backends + Send + Sync> Factory for Threads<F> {
    async fn fresh(&self) -> Backends {
        (self.0)()
    }

    async fn concurrently(&self, tasks: Vec<Task>) {
        let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
        for task in tasks {
            task.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_memory_store_conforms() {
    let report = conformance::run_all(&Threads(Backends::memory)).await;
    println!("{report}");
    assert_eq!(
        report.skipped.len(),
        9,
        "only what needs re-opening or kept commits is skipped"
    );
}

/// A store of contexts that leaves the other sections to others.
struct ContextOnly(MemoryStore);

#[async_trait]
impl ContextBackend for ContextOnly {
    async fn commit(&self, commits: Vec<Commit>) -> Result<(), BackendError> {
        self.0.commit(commits).await
    }

    async fn load(&self, execution: &ExecutionId) -> Result<Option<ExecutionState>, BackendError> {
        self.0.load(execution).await
    }

    async fn list(&self, query: &ListQuery) -> Result<ListPage, BackendError> {
        self.0.list(query).await
    }

    async fn delete(&self, execution: &ExecutionId) -> Result<bool, BackendError> {
        self.0.delete(execution).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn separate_stores_conform() {
    let split = || {
        let rest = Arc::new(MemoryStore::new());
        Backends::builder(Arc::new(ContextOnly(MemoryStore::new())), rest.clone())
            .schemas(rest.clone())
            .identities(rest.clone())
            .conversations(rest.clone())
            .telemetry(rest)
            .build()
    };
    let report = conformance::run_all(&Threads(split)).await;
    assert_eq!(report.skipped.len(), 11, "{report}");
}

#[tokio::test]
async fn the_two_required_stores_are_enough() {
    let minimal = || {
        let store = Arc::new(MemoryStore::new());
        Backends::builder(Arc::new(ContextOnly(MemoryStore::new())), store).build()
    };
    let report = conformance::run_all(&Threads(minimal)).await;
    assert_eq!(report.skipped.len(), 23, "{report}");
}

/// What a broken store does wrong.
#[derive(Clone, Copy)]
enum Fault {
    ForgetsCommits,
    ForgetsSnapshots,
    StoresOneByOne,
    ListsOldestFirst,
    IgnoresStatus,
    KeepsDeleted,
    RenamesConflicts,
}

struct Broken(MemoryStore, Fault);

#[async_trait]
impl ContextBackend for Broken {
    async fn commit(&self, commits: Vec<Commit>) -> Result<(), BackendError> {
        match self.1 {
            Fault::ForgetsCommits if commits.iter().any(|commit| commit.version > 1) => Ok(()),
            Fault::StoresOneByOne => {
                for commit in commits {
                    self.0.commit(vec![commit]).await?;
                }
                Ok(())
            }
            Fault::RenamesConflicts => {
                let result = self.0.commit(commits).await;
                result.map_err(|error| BackendError::new(soe_backends::BackendErrorKind::Other, error.to_string()))
            }
            _ => self.0.commit(commits).await,
        }
    }

    async fn load(&self, execution: &ExecutionId) -> Result<Option<ExecutionState>, BackendError> {
        let mut state = self.0.load(execution).await?;
        if let (Fault::ForgetsSnapshots, Some(state)) = (self.1, &mut state) {
            state.snapshots.clear();
        }
        Ok(state)
    }

    async fn list(&self, query: &ListQuery) -> Result<ListPage, BackendError> {
        let mut query = query.clone();
        if matches!(self.1, Fault::IgnoresStatus) && query.status == Some(Status::Running) {
            query.status = None;
        }
        let mut page = self.0.list(&query).await?;
        if matches!(self.1, Fault::ListsOldestFirst) {
            page.executions.reverse();
        }
        Ok(page)
    }

    async fn delete(&self, execution: &ExecutionId) -> Result<bool, BackendError> {
        match self.1 {
            Fault::KeepsDeleted => Ok(self.0.load(execution).await?.is_some()),
            _ => self.0.delete(execution).await,
        }
    }
}

#[tokio::test]
async fn broken_stores_are_found_out() {
    let faults = [
        (Fault::ForgetsCommits, "context::round_trip"),
        (Fault::ForgetsSnapshots, "runs::snapshots"),
        (Fault::StoresOneByOne, "context::atomicity"),
        (Fault::ListsOldestFirst, "list::order"),
        (Fault::IgnoresStatus, "list::filters"),
        (Fault::KeepsDeleted, "delete::everything"),
        (Fault::RenamesConflicts, "context::versions"),
    ];
    for (fault, expected) in faults {
        let broken = move || {
            let context = Arc::new(Broken(MemoryStore::new(), fault));
            Backends::builder(context, Arc::new(MemoryStore::new())).build()
        };
        let check = conformance::checks()
            .into_iter()
            .find(|check| check.name == expected)
            .unwrap();
        let outcome = check.run(&Threads(broken)).await;
        assert!(
            matches!(outcome, Err(Finding::Violated(_))),
            "{expected} doesn't find its fault: {outcome:?}"
        );
    }
}

#[tokio::test]
#[should_panic(expected = "runs::snapshots: the state has the contexts")]
async fn a_failed_suite_says_which_requirement_is_violated() {
    let broken = || {
        let context = Arc::new(Broken(MemoryStore::new(), Fault::ForgetsSnapshots));
        Backends::builder(context, Arc::new(MemoryStore::new())).build()
    };
    conformance::run_all(&Threads(broken)).await;
}
