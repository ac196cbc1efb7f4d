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
//! * Commits are rows that are added, never changed. From time to time the states of the executions that have changed since
//!   are written beside them: a tree is loaded from those and the commits after them. What a commit costs follows from what it
//!   changes, not from the number of executions in its tree nor of the commits before it. Old commits and states stay, so
//!   every earlier state of a tree can be loaded.
//! * One thread writes. It takes all commits that wait, whatever their tree, stores them in one transaction and syncs once.
//!   Others read, each on a connection of its own. It needs no particular async runtime.
//! * Several processes may use one file, on a local disk.
//! * A database that an earlier version wrote is converted when it is opened, in one transaction: a crash leaves it as it was.
//!   Its executions become trees, their events stay; the commits from before are gone, so a tree can't be loaded as it was
//!   before its conversion. A tree that can't be converted is named in lists, with the reason; its rows stay in tables whose
//!   names begin with `old_`.
//!
//! # Compiling SQLite
//!
//! SQLite, which is compiled in, takes two settings only when it is compiled or by calls that Rust considers unsafe, so a
//! library can't set them for the program that uses it. They spare each commit a write of the file's times on Linux (`fsync`
//! becomes `fdatasync`), and each allocation a lock. A program sets them in its own `.cargo/config.toml`:
//!
//! ```toml
//! [env]
//! LIBSQLITE3_FLAGS = "-DHAVE_FDATASYNC=1 -DSQLITE_DEFAULT_MEMSTATUS=0"
//! ```

mod cache;
mod commits;
mod convert;
mod error;
mod flush;
mod inbox;
mod json;
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
