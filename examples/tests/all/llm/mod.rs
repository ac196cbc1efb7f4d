//! The examples with LLMs: their programs with the mock and with an endpoint, and their workflows with other replies.

mod chain;
mod endpoint;
mod extending;
mod extraction;
mod file_agent;
mod judge;
mod react;
mod revision;
mod swarm;
mod voting;

use crate::support::{Done, has_line, run};

/// The program said first that nothing real was asked.
#[track_caller]
fn is_mocked(printed: &str) {
    assert!(printed.starts_with("LLM: mocked"), "{printed}");
}
