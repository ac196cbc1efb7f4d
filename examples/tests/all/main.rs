//! Runs every example as a user would, and checks what it prints.

// mod cli;
mod programs;
mod service;
mod support;
mod workflows;
