//! Runs every example as a user would, and checks what it prints. The workflows with LLMs are also run on engines of the
//! tests, with other replies and in other orders.

#![allow(clippy::unwrap_used, reason = "all of this is tests, helpers included")]

mod cli;
mod llm;
mod programs;
mod service;
mod support;
mod trees;
mod workflows;
