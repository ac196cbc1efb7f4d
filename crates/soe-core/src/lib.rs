//! The SOE workflow engine: YAML becomes a checked [`config::Config`]; a pure state machine turns (state, input) into
//! (commit, effects); a thin Tokio driver persists the commit, performs the effects as parallel tasks, and feeds their
//! results back over an mpsc channel.

pub mod config;
mod failure;
pub mod llm;
pub mod machine;
pub mod nodes;
pub mod policy;
#[cfg(feature = "runtime")]
pub mod runtime;
pub mod template;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tools;
