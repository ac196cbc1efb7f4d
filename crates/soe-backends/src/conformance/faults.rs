//! Stores that fail or are slow, by a schedule that can be repeated: to see that an engine, or an application, loses nothing
//! then. All calls of all six traits can meet a fault.
//!
//! ```
//! use std::sync::Arc;
//! use soe_backends::{Backends, ListQuery};
//! use soe_backends::conformance::faults::{Faults, faulty};
//!
//! # futures::executor::block_on(async {
//! let faults = Arc::new(Faults::new(7).one_in(2).at_most(10));
//! let backends = faulty(&Backends::memory(), &faults);
//! while faults.happened() < 10 {
//!     let _ = backends.context().list(&ListQuery::default()).await;
//! }
//! assert!(backends.context().list(&ListQuery::default()).await.is_ok());
//! # });
//! ```

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use indexmap::IndexMap;

use crate::{
    BackendError, BackendErrorKind, Backends, Commit, ContextBackend, ContextSchemaBackend, ConversationHistoryBackend,
    Deletion, Event, ExecutionId, Guard, IdentityBackend, ListPage, ListQuery, Message, Post, Posted, RegistryDocument,
    RegistryId, Sections, TelemetryBackend, Timestamp, TreeState, Turn, Value, WorkflowBackend,
};

/// Waits, in the way of the runtime that the test uses.
type Sleep = Box<dyn Fn(Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// What happens to calls, and when: a schedule by a seed. The same seed and the same calls in the same order give the same
/// faults.
pub struct Faults {
    one_in: u64,
    most: usize,
    delays: Option<(Duration, Sleep)>,
    progress: Mutex<Progress>,
}

struct Progress {
    random: u64,
    /// How often each call met a failure.
    failed: BTreeMap<&'static str, usize>,
}

/// What happens to a call.
enum Fault {
    /// It fails, and nothing was done.
    Before,
    /// It fails, although it was done: an answer that got lost.
    After,
    /// It is late.
    Late(Duration),
}

impl Faults {
    /// One call in ten fails, half of them after they were done; without end, and without delays.
    pub fn new(seed: u64) -> Self {
        Self {
            one_in: 10,
            most: usize::MAX,
            delays: None,
            progress: Mutex::new(Progress {
                // From similar seeds, different schedules; never 0, which would stay 0.
                random: seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
                failed: BTreeMap::new(),
            }),
        }
    }

    /// One call in `calls` fails.
    #[must_use]
    pub fn one_in(mut self, calls: u64) -> Self {
        self.one_in = calls.max(1);
        self
    }

    /// After so many failures, no more come: what is tried again and again comes to its end.
    #[must_use]
    pub fn at_most(mut self, failures: usize) -> Self {
        self.most = failures;
        self
    }

    /// Every other call is late, by up to `most`; `sleep` waits for so long.
    #[must_use]
    pub fn delays<F>(mut self, most: Duration, sleep: impl Fn(Duration) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.delays = Some((most, Box::new(move |time| Box::pin(sleep(time)))));
        self
    }

    /// So many calls have failed.
    pub fn happened(&self) -> usize {
        self.progress().failed.values().sum()
    }

    /// Which calls have failed, and how often.
    pub fn failed(&self) -> BTreeMap<&'static str, usize> {
        self.progress().failed.clone()
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, call: &'static str) -> Option<Fault> {
        let mut progress = self.progress();
        let failed: usize = progress.failed.values().sum();
        if progress.below(self.one_in) == 0 && failed < self.most {
            *progress.failed.entry(call).or_default() += 1;
            return Some(match progress.below(2) {
                0 => Fault::Before,
                _ => Fault::After,
            });
        }
        let (most, _) = self.delays.as_ref()?;
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        let late = progress.below(2) == 0;
        late.then(|| Fault::Late(Duration::from_micros(progress.below(micros.saturating_add(1)))))
    }

    async fn meet<T>(
        &self,
        call: &'static str,
        work: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        match self.next(call) {
            None => work.await,
            Some(Fault::Before) => Err(failure(call, "was not done")),
            Some(Fault::After) => {
                work.await?;
                Err(failure(call, "was done, but nobody is told"))
            }
            Some(Fault::Late(by)) => {
                if let Some((_, sleep)) = &self.delays {
                    sleep(by).await;
                }
                work.await
            }
        }
    }
}

impl Progress {
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }
}

fn failure(call: &str, what: &str) -> BackendError {
    BackendError::new(
        BackendErrorKind::Unavailable,
        format!("a fault was injected: {call} {what}"),
    )
}

/// A store as it is, except for its faults.
pub fn faulty(backends: &Backends, faults: &Arc<Faults>) -> Backends {
    wrapped(backends, faults, backends.sections())
}

/// As [`faulty`], but as if each trait were another store: nothing rides in the transaction of a commit, so calls of the
/// other traits come in between and can fail by themselves.
pub fn faulty_separate(backends: &Backends, faults: &Arc<Faults>) -> Backends {
    wrapped(backends, faults, Sections::default())
}

fn wrapped(backends: &Backends, faults: &Arc<Faults>, sections: Sections) -> Backends {
    let store = Arc::new(Faulty {
        inner: backends.clone(),
        faults: faults.clone(),
        sections,
    });
    let mut builder = Backends::builder(store.clone(), store.clone());
    if backends.schemas().is_some() {
        builder = builder.schemas(store.clone());
    }
    if backends.identities().is_some() {
        builder = builder.identities(store.clone());
    }
    if backends.conversations().is_some() {
        builder = builder.conversations(store.clone());
    }
    if backends.telemetry().is_some() {
        builder = builder.telemetry(store.clone());
    }
    builder.build()
}

struct Faulty {
    inner: Backends,
    faults: Arc<Faults>,
    sections: Sections,
}

#[async_trait]
impl ContextBackend for Faulty {
    async fn commit(&self, commits: Vec<Commit>, after: Option<Arc<TreeState>>) -> Result<(), BackendError> {
        let commit = self.inner.context().commit(commits, after);
        self.faults.meet("commit", commit).await
    }

    async fn load(&self, tree: &ExecutionId) -> Result<Option<Arc<TreeState>>, BackendError> {
        self.faults.meet("load", self.inner.context().load(tree)).await
    }

    async fn list(&self, query: &ListQuery) -> Result<ListPage, BackendError> {
        self.faults.meet("list", self.inner.context().list(query)).await
    }

    async fn delete(&self, tree: &ExecutionId, guard: Guard) -> Result<Deletion, BackendError> {
        let delete = self.inner.context().delete(tree, guard);
        self.faults.meet("delete", delete).await
    }

    async fn post(&self, tree: &ExecutionId, message: &Message) -> Result<Post, BackendError> {
        self.faults.meet("post", self.inner.context().post(tree, message)).await
    }

    async fn inbox(&self, tree: &ExecutionId, after: u64, limit: usize) -> Result<Vec<Posted>, BackendError> {
        let inbox = self.inner.context().inbox(tree, after, limit);
        self.faults.meet("inbox", inbox).await
    }

    async fn waiting(&self, limit: usize) -> Result<Vec<ExecutionId>, BackendError> {
        self.faults.meet("waiting", self.inner.context().waiting(limit)).await
    }

    fn sections(&self) -> Sections {
        self.sections
    }

    fn keeps_commits(&self) -> bool {
        self.inner.context().keeps_commits()
    }

    async fn commits(&self, tree: &ExecutionId, from: u64, limit: usize) -> Result<Vec<Commit>, BackendError> {
        let commits = self.inner.context().commits(tree, from, limit);
        self.faults.meet("commits", commits).await
    }

    async fn load_at(&self, tree: &ExecutionId, version: u64) -> Result<Option<Arc<TreeState>>, BackendError> {
        let load = self.inner.context().load_at(tree, version);
        self.faults.meet("load_at", load).await
    }

    async fn turns_at(&self, tree: &ExecutionId, version: u64) -> Result<Option<Vec<Turn>>, BackendError> {
        let turns = self.inner.context().turns_at(tree, version);
        self.faults.meet("turns_at", turns).await
    }

    fn keeps_leases(&self) -> bool {
        self.inner.context().keeps_leases()
    }

    async fn heartbeat(&self, owner: &str, until: Timestamp) -> Result<(), BackendError> {
        let heartbeat = self.inner.context().heartbeat(owner, until);
        self.faults.meet("heartbeat", heartbeat).await
    }

    async fn lease(&self, owner: &str) -> Result<Option<Timestamp>, BackendError> {
        self.faults.meet("lease", self.inner.context().lease(owner)).await
    }

    async fn release(&self, owner: &str) -> Result<(), BackendError> {
        self.faults.meet("release", self.inner.context().release(owner)).await
    }
}

#[async_trait]
impl WorkflowBackend for Faulty {
    async fn put_registry(&self, registry: &RegistryDocument) -> Result<(), BackendError> {
        let put = self.inner.workflows().put_registry(registry);
        self.faults.meet("put_registry", put).await
    }

    async fn registry(&self, id: &RegistryId) -> Result<Option<Arc<RegistryDocument>>, BackendError> {
        self.faults.meet("registry", self.inner.workflows().registry(id)).await
    }

    async fn set_current(
        &self,
        execution: &ExecutionId,
        registry: &RegistryId,
        workflow: &str,
    ) -> Result<(), BackendError> {
        let set = self.inner.workflows().set_current(execution, registry, workflow);
        self.faults.meet("set_current", set).await
    }

    async fn delete_current(&self, execution: &ExecutionId) -> Result<(), BackendError> {
        let delete = self.inner.workflows().delete_current(execution);
        self.faults.meet("delete_current", delete).await
    }
}

/// The store of a trait that the inner backends may lack. [`wrapped`] gives nobody a handle on it then.
fn there<T>(store: Option<T>) -> Result<T, BackendError> {
    store.ok_or_else(|| BackendError::new(BackendErrorKind::Unsupported, "the store inside has no such trait"))
}

#[async_trait]
impl ContextSchemaBackend for Faulty {
    async fn schemas(&self, main: &ExecutionId) -> Result<IndexMap<Arc<str>, Value>, BackendError> {
        let store = there(self.inner.schemas())?;
        self.faults.meet("schemas", store.schemas(main)).await
    }

    async fn put_schemas(&self, main: &ExecutionId, schemas: &IndexMap<Arc<str>, Value>) -> Result<(), BackendError> {
        let store = there(self.inner.schemas())?;
        self.faults.meet("put_schemas", store.put_schemas(main, schemas)).await
    }

    async fn delete_schemas(&self, main: &ExecutionId) -> Result<(), BackendError> {
        let store = there(self.inner.schemas())?;
        self.faults.meet("delete_schemas", store.delete_schemas(main)).await
    }
}

#[async_trait]
impl IdentityBackend for Faulty {
    async fn identities(&self, main: &ExecutionId) -> Result<IndexMap<Arc<str>, Arc<str>>, BackendError> {
        let store = there(self.inner.identities())?;
        self.faults.meet("identities", store.identities(main)).await
    }

    async fn put_identities(
        &self,
        main: &ExecutionId,
        identities: &IndexMap<Arc<str>, Arc<str>>,
    ) -> Result<(), BackendError> {
        let store = there(self.inner.identities())?;
        let put = store.put_identities(main, identities);
        self.faults.meet("put_identities", put).await
    }

    async fn delete_identities(&self, main: &ExecutionId) -> Result<(), BackendError> {
        let store = there(self.inner.identities())?;
        self.faults
            .meet("delete_identities", store.delete_identities(main))
            .await
    }
}

#[async_trait]
impl ConversationHistoryBackend for Faulty {
    async fn turns(&self, main: &ExecutionId) -> Result<Vec<Turn>, BackendError> {
        let store = there(self.inner.conversations())?;
        self.faults.meet("turns", store.turns(main)).await
    }

    async fn append_turns(&self, main: &ExecutionId, turns: &[Turn]) -> Result<(), BackendError> {
        let store = there(self.inner.conversations())?;
        self.faults.meet("append_turns", store.append_turns(main, turns)).await
    }

    async fn replace_turns(&self, main: &ExecutionId, turns: &[Turn]) -> Result<(), BackendError> {
        let store = there(self.inner.conversations())?;
        self.faults
            .meet("replace_turns", store.replace_turns(main, turns))
            .await
    }

    async fn delete_turns(&self, main: &ExecutionId) -> Result<(), BackendError> {
        let store = there(self.inner.conversations())?;
        self.faults.meet("delete_turns", store.delete_turns(main)).await
    }
}

#[async_trait]
impl TelemetryBackend for Faulty {
    async fn append_events(&self, tree: &ExecutionId, events: &[Event]) -> Result<(), BackendError> {
        let store = there(self.inner.telemetry())?;
        self.faults
            .meet("append_events", store.append_events(tree, events))
            .await
    }

    async fn events(&self, tree: &ExecutionId, from: u64, limit: usize) -> Result<Vec<Event>, BackendError> {
        let store = there(self.inner.telemetry())?;
        self.faults.meet("events", store.events(tree, from, limit)).await
    }

    async fn delete_events(&self, tree: &ExecutionId) -> Result<(), BackendError> {
        let store = there(self.inner.telemetry())?;
        self.faults.meet("delete_events", store.delete_events(tree)).await
    }
}
