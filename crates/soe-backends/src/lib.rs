//! What the SOE engine stores, and where.
//!
//! * [`Value`], [`History`] and [`Context`]: the data of an execution, persistent (structure-shared), so that a snapshot
//!   is O(1).
//! * [`TreeState`]: all that is needed to go on with an execution tree. [`Commit`]: what one event changes.
//!   [`TreeState::apply`] is the one fold from commits to state, in the live engine, in every store, at recovery.
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
pub mod convert;
mod depth;
mod dialogue;
mod durability;
mod error;
mod event;
#[cfg(feature = "file")]
mod file;
mod id;
mod inbox;
mod limits;
mod memory;
mod snapshots;
mod state;
pub mod stored;
mod time;
mod traits;
mod tree;
mod value;
mod value_read;
mod version;
mod work;

pub use answer::{Answer, Answers};
pub use backends::{Backends, BackendsBuilder};
pub use collections::{NumberMap, OrderedMap, SignalLog};
pub use commit::{ApplyError, Change, Commit, Definitions, ExecutionChange, Genesis, RegistryDocument, TreeGenesis};
pub use context::{Context, History, Operational, ParentInfo, TreeTotals, Usage};
pub use dialogue::{Awaits, Dialogue, DialogueStep, Entries, Entry, Question, Rejected, Stage};
pub use durability::Durability;
pub use error::{BackendError, BackendErrorKind};
pub use event::{Event, EventKind, WorkflowChange};
#[cfg(feature = "file")]
pub use file::FileStore;
pub use id::{ExecutionId, InvalidExecutionId, InvalidRegistryId, InvalidRunId, RegistryId, RunId};
pub use inbox::{Deletion, Guard, Message, Post, Posted, Request};
pub use limits::Limits;
pub use memory::MemoryStore;
pub use state::{
    Batch, Children, ExecutionState, ExecutionSummary, Failure, Origin, Owner, Progress, Run, Schedule, Spawning,
    Status,
};
pub use time::Timestamp;
pub use traits::{
    ContextBackend, ContextSchemaBackend, ConversationHistoryBackend, Damaged, IdentityBackend, ListCursor, ListPage,
    ListQuery, Sections, TelemetryBackend, Turn, WorkflowBackend,
};
pub use tree::{FORMAT, Owed, TreeState, Used};
pub use value::{Excess, Map, Value};
pub use version::{EditedBy, WorkflowEdit, WorkflowVersion};
pub use work::{Accepted, Delivery, Frame, Spawn, Stopped, Then, Work, WorkChange};
