//! The driver: takes inputs to the state machine, commits what it says through the backends, performs its effects as
//! parallel Tokio tasks, and feeds their outcomes back over an mpsc channel. It decides nothing about routing.

mod builder;
mod claim;
mod coordinator;
mod create;
mod delete;
mod engine;
mod error;
mod events;
mod execution;
mod fork;
mod inbox;
mod inherit;
mod lease;
mod orchestration;
mod past;
mod perform;
mod recover;
mod registries;
mod shared;
mod shutdown;
mod signals;
mod store;
mod taken;
mod tokens;
mod tree;
mod versions;
mod wait;

pub use builder::{BuildError, EngineBuilder};
pub use delete::{Collectable, Collected, Retention};
pub use engine::Engine;
pub use error::{EngineError, EngineErrorKind};
pub use events::{EventStream, StreamItem};
pub use execution::Execution;
pub use fork::Fork;
pub use orchestration::{ContextExport, Orchestration};
pub use recover::Recovered;
pub use shared::Finished;
pub use shutdown::ShutdownReport;
pub use tokens::{TokenPiece, TokenStream, Tokens};
pub use tree::{Conversation, TreeDefinitions};
