//! What no workflow, tool or caller should do, done: each ends in a clear error or works, and takes nobody else down.

// Helpers are no tests to clippy.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod children;
mod common;
mod depth;
mod signals;
mod stores;
mod tools;
mod values;
