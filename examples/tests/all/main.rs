//! Runs every example as a user would, and checks what it prints.

#![allow(clippy::unwrap_used, reason = "all of this is tests, helpers included")]

mod cli;
mod programs;
mod service;
mod support;
mod workflows;
