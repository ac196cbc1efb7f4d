//! LLM and agent nodes, run by the engine with a scripted LLM.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are no test functions")]

mod agent;
mod budgets;
mod common;
mod conversation;
mod interrupted;
mod nodes;
mod parallel;
mod replies;
mod separate;
