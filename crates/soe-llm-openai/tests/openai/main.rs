//! The caller against servers that behave well, badly, or not at all.

mod errors;
mod limits;
mod rates;
mod replies;
mod requests;
mod retries;
mod streams;
mod support;
