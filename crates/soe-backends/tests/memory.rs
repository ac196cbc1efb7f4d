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
    BackendError, Backends, Change, Commit, ContextBackend, Deletion, ExecutionId, ExecutionState, Guard, ListPage,
    ListQuery, MemoryStore, Message, NumberMap, Post, Posted, Status, TreeState,
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
        11,
        "only what needs re-opening or kept commits is skipped"
    );
}

/// A store of contexts that leaves the other sections to others.
struct ContextOnly(MemoryStore);

#[async_trait]
impl ContextBackend for ContextOnly {
    async fn commit(&self, commits: Vec<Commit>, after: Option<Arc<TreeState>>) -> Result<(), BackendError> {
        self.0.commit(commits, after).await
    }

    async fn load(&self, tree: &ExecutionId) -> Result<Option<Arc<TreeState>>, BackendError> {
        self.0.load(tree).await
    }

    async fn list(&self, query: &ListQuery) -> Result<ListPage, BackendError> {
        self.0.list(query).await
    }

    async fn delete(&self, tree: &ExecutionId, guard: Guard) -> Result<Deletion, BackendError> {
        self.0.delete(tree, guard).await
    }

    async fn post(&self, tree: &ExecutionId, message: &Message) -> Result<Post, BackendError> {
        self.0.post(tree, message).await
    }

    async fn inbox(&self, tree: &ExecutionId, after: u64, limit: usize) -> Result<Vec<Posted>, BackendError> {
        self.0.inbox(tree, after, limit).await
    }

    async fn waiting(&self, limit: usize) -> Result<Vec<ExecutionId>, BackendError> {
        self.0.waiting(limit).await
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
    assert_eq!(report.skipped.len(), 15, "{report}");
}

#[tokio::test]
async fn the_two_required_stores_are_enough() {
    let minimal = || {
        let store = Arc::new(MemoryStore::new());
        Backends::builder(Arc::new(ContextOnly(MemoryStore::new())), store).build()
    };
    let report = conformance::run_all(&Threads(minimal)).await;
    assert_eq!(report.skipped.len(), 25, "{report}");
}

/// What a broken store does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    ForgetsCommits,
    ForgetsSnapshots,
    ForgetsChildren,
    StoresOneByOne,
    IgnoresFences,
    ListsOldestFirst,
    IgnoresStatus,
    KeepsDeleted,
    IgnoresGuards,
    RenamesConflicts,
    LosesMessages,
    TakesNothing,
    ForgetsTaken,
    RaisesVersions,
    DropsMessages,
}

struct Broken(MemoryStore, Fault);

impl Broken {
    /// The stored fence in place of the one that a commit says.
    async fn without_fence(&self, mut commits: Vec<Commit>) -> Result<Vec<Commit>, BackendError> {
        if let Some(first) = commits.first_mut()
            && let Some(state) = self.0.load(&first.tree).await?
        {
            first.fence = state.fence();
        }
        Ok(commits)
    }

    /// A message stored under another id, so that it can come again.
    fn renamed(message: &Message) -> Message {
        static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Message {
            id: format!("{}-{count}", message.id).into(),
            ..message.clone()
        }
    }

    /// The state as another version, or without a part.
    fn changed(&self, state: &mut TreeState) {
        let changed = |state: &Arc<ExecutionState>| {
            Arc::new(ExecutionState {
                snapshots: NumberMap::default(),
                ..(**state).clone()
            })
        };
        match self.1 {
            Fault::ForgetsSnapshots => {
                let all = state.executions.iter().map(|(number, state)| (number, changed(state)));
                state.executions = all.collect();
            }
            Fault::ForgetsChildren => {
                state.executions.remove(1);
            }
            _ => {}
        }
    }
}

/// The commit that makes a state.
fn making(after: &TreeState, changes: Vec<Change>) -> Commit {
    Commit {
        tree: after.root.clone(),
        version: after.version,
        fence: after.fence(),
        at: after.updated_at,
        changes,
        registries: Vec::new(),
        definitions: None,
        turns: Vec::new(),
        events: Vec::new(),
    }
}

#[async_trait]
impl ContextBackend for Broken {
    async fn commit(&self, mut commits: Vec<Commit>, after: Option<Arc<TreeState>>) -> Result<(), BackendError> {
        match self.1 {
            Fault::ForgetsCommits if commits.iter().any(|commit| commit.version > 1) => Ok(()),
            Fault::StoresOneByOne => {
                for commit in commits {
                    self.0.commit(vec![commit], None).await?;
                }
                Ok(())
            }
            Fault::IgnoresFences => self.0.commit(self.without_fence(commits).await?, after).await,
            Fault::TakesNothing => {
                let other = |change: &Change| !matches!(change, Change::Taken(_));
                commits.iter_mut().for_each(|commit| commit.changes.retain(other));
                self.0.commit(commits, None).await
            }
            Fault::RenamesConflicts => {
                let result = self.0.commit(commits, after).await;
                result.map_err(|error| BackendError::new(soe_backends::BackendErrorKind::Other, error.to_string()))
            }
            _ => self.0.commit(commits, after).await,
        }
    }

    async fn load(&self, tree: &ExecutionId) -> Result<Option<Arc<TreeState>>, BackendError> {
        let mut state = self.0.load(tree).await?;
        if let Some(state) = &mut state {
            self.changed(Arc::make_mut(state));
        }
        Ok(state)
    }

    async fn list(&self, query: &ListQuery) -> Result<ListPage, BackendError> {
        let mut query = query.clone();
        if self.1 == Fault::IgnoresStatus && query.status == Some(Status::Running) {
            query.status = None;
        }
        let mut page = self.0.list(&query).await?;
        if self.1 == Fault::ListsOldestFirst {
            page.executions.reverse();
        }
        Ok(page)
    }

    async fn delete(&self, tree: &ExecutionId, guard: Guard) -> Result<Deletion, BackendError> {
        match (self.1, self.0.load(tree).await?) {
            (Fault::KeepsDeleted, Some(_)) => Ok(Deletion::Deleted),
            (Fault::IgnoresGuards, Some(state)) => {
                let (version, fence) = (state.version, state.fence());
                self.0.delete(tree, Guard { version, fence }).await
            }
            (Fault::DropsMessages, Some(state)) => {
                let last = self
                    .0
                    .inbox(tree, 0, usize::MAX)
                    .await?
                    .last()
                    .map_or(0, |posted| posted.seq);
                let mut after = (*state).clone();
                (after.version, after.inbox) = (after.version + 1, last);
                let commit = making(&after, vec![Change::Taken(last)]);
                let (version, fence) = (after.version, after.fence());
                self.0.commit(vec![commit], Some(Arc::new(after))).await?;
                self.0.delete(tree, Guard { version, fence }).await
            }
            _ => self.0.delete(tree, guard).await,
        }
    }

    async fn post(&self, tree: &ExecutionId, message: &Message) -> Result<Post, BackendError> {
        match (self.1, self.0.load(tree).await?) {
            (Fault::LosesMessages, Some(_)) if message.id.ends_with('3') => Ok(Post::Stored(3)),
            (Fault::ForgetsTaken, Some(state)) if state.inbox > 0 => self.0.post(tree, &Self::renamed(message)).await,
            (Fault::RaisesVersions, Some(state)) => {
                let mut after = (*state).clone();
                after.version += 1;
                let empty = making(&after, Vec::new());
                self.0.commit(vec![empty], Some(Arc::new(after))).await?;
                self.0.post(tree, message).await
            }
            _ => self.0.post(tree, message).await,
        }
    }

    async fn inbox(&self, tree: &ExecutionId, after: u64, limit: usize) -> Result<Vec<Posted>, BackendError> {
        self.0.inbox(tree, after, limit).await
    }

    async fn waiting(&self, limit: usize) -> Result<Vec<ExecutionId>, BackendError> {
        self.0.waiting(limit).await
    }
}

#[tokio::test]
async fn broken_stores_are_found_out() {
    let faults = [
        (Fault::ForgetsCommits, "context::round_trip"),
        (Fault::ForgetsSnapshots, "runs::snapshots"),
        (Fault::ForgetsChildren, "trees::children"),
        (Fault::StoresOneByOne, "refused::atomicity"),
        (Fault::IgnoresFences, "refused::fences"),
        (Fault::ListsOldestFirst, "list::order"),
        (Fault::IgnoresStatus, "list::filters"),
        (Fault::KeepsDeleted, "delete::everything"),
        (Fault::IgnoresGuards, "delete::guarded"),
        (Fault::RenamesConflicts, "refused::versions"),
        (Fault::LosesMessages, "posters::concurrent"),
        (Fault::TakesNothing, "inbox::taken"),
        (Fault::ForgetsTaken, "inbox::remembered"),
        (Fault::RaisesVersions, "inbox::undisturbed"),
        (Fault::DropsMessages, "inbox::deleted"),
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
