//! The caller against servers that behave well, badly, or not at all.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod errors;
mod limits;
mod logs;
mod rates;
mod replies;
mod requests;
mod retries;
mod streams;
mod support;
