//! What the SOE engine stores, and where.
//!
//! * [`Value`], [`History`] and [`Context`]: the data of an execution, persistent (structure-shared), so that a snapshot
//!   is O(1).
//! * [`ExecutionState`]: all that is needed to go on with an execution. [`Commit`]: what one event changes.
//!   [`ExecutionState::apply`] is the one fold from commits to state, in the live engine, in every store, at recovery.
//! * The six storage traits ([`ContextBackend`] and [`WorkflowBackend`] are required), and [`Backends`], the handle on
//!   those that an engine works with.
//! * [`MemoryStore`]: all six in memory. `FileStore` (feature `file`): readable files in a folder.
//! * `conformance` (feature `conformance`): the suite that checks any implementation of the traits.

mod answer;
mod apply;
mod backends;
mod collections;
mod commit;
#[cfg(feature = "conformance")]
pub mod conformance;
mod context;
mod depth;
mod dialogue;
mod durability;
mod error;
mod event;
mod family;
#[cfg(feature = "file")]
mod file;
mod fits;
mod fork;
mod id;
mod limits;
mod memory;
mod snapshots;
mod state;
pub mod stored;
mod time;
mod traits;
mod value;
mod value_read;
mod version;

pub use answer::{Answer, Answers};
pub use backends::{Backends, BackendsBuilder};
pub use collections::{OrderedMap, SignalLog};
pub use commit::{ApplyError, Change, Commit, Definitions, Genesis, RegistryDocument, TreeTurns};
pub use context::{Context, History, Operational, ParentInfo, TreeTotals, Usage};
pub use dialogue::{Awaits, Dialogue, DialogueStep, Entries, Entry, Question, Rejected, Stage};
pub use durability::Durability;
pub use error::{BackendError, BackendErrorKind};
pub use event::{Event, EventKind, ExecutionEvent, WorkflowChange};
pub use family::{Child, ChildStatus, Family, Incoming, Received, Started, Tell, Told};
#[cfg(feature = "file")]
pub use file::FileStore;
pub use fork::Forked;
pub use id::{ExecutionId, InvalidExecutionId, InvalidRegistryId, InvalidRunId, RegistryId, RunId};
pub use limits::Limits;
pub use memory::MemoryStore;
pub use state::{
    Batch, ExecutionState, ExecutionSummary, FORMAT, Failure, Frame, Owner, Progress, Run, Schedule, Spawning, Status,
    Then,
};
pub use time::Timestamp;
pub use traits::{
    ContextBackend, ContextSchemaBackend, ConversationHistoryBackend, IdentityBackend, ListCursor, ListPage, ListQuery,
    Sections, TelemetryBackend, TreeShared, Turn, WorkflowBackend,
};
pub use value::{Excess, Map, Value};
pub use version::{EditedBy, WorkflowEdit, WorkflowVersion};
