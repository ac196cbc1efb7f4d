//! What the SOE engine stores, and where.
//!
//! * [`Value`], [`History`] and [`Context`]: the data of an execution, persistent (structure-shared), so that a snapshot is O(1).

mod collections;
mod context;
mod id;
mod value;

pub use collections::{OrderedMap, SignalLog};
pub use context::{Context, History, Operational, ParentInfo, TreeTotals};
pub use id::{ExecutionId, InvalidExecutionId, InvalidRegistryId, InvalidRunId, RegistryId, RunId};
pub use value::{Map, Value};
