//! A store for the SOE engine in one SQLite file, without a server: all six storage traits, one transaction for each commit.
//!
//! ```
//! use soe_sqlite::{Durability, SqliteStore};
//!
//! # futures::executor::block_on(async {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("orders.db");
//! let store = SqliteStore::open(&path).await?;
//! let backends = store.backends();
//! // ... give `backends` to an engine ...
//! # drop(backends);
//! store.close().await;
//!
//! let quick = SqliteStore::builder(&path).durability(Durability::Relaxed).open().await?;
//! # quick.close().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! * Commits are rows that are added, never changed: the state is the newest checkpoint and the commits after it. A commit's
//!   cost doesn't depend on how many there were. Old commits stay, so every earlier state can be loaded.
//! * One thread writes. It takes all commits that wait, whatever their execution, stores them in one transaction and syncs
//!   once. Others read, each on a connection of its own. It needs no particular async runtime.
//! * Several processes may use one file, on a local disk.

mod cache;
mod checkpoints;
mod commits;
mod error;
mod list;
mod open;
mod past;
mod prepare;
mod readers;
mod schema;
mod states;
mod store;
mod telemetry;
mod traits;
mod trees;
mod writer;

pub use open::Builder;
pub use soe_backends::Durability;
pub use store::SqliteStore;
