//! The driver from outside: what an application sees, whatever goes wrong under it.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are no test functions")]

mod api;
mod builtins;
mod builtins_agent;
mod builtins_policy;
mod builtins_tree;
mod cancel;
mod children;
mod children_ends;
mod common;
mod custom_nodes;
mod delete;
mod events;
mod failure;
mod inherit;
mod lifecycle;
mod limits;
mod many_senders;
mod parallel;
mod resume;
mod resume_used;
mod separate;
mod shutdown;
mod store_faults;
mod taking;
mod trees;
mod two_engines;
mod versions;
