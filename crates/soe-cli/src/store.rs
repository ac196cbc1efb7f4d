//! `--store`: a folder of files, or an SQLite database.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use soe_backends::Backends;
use soe_sqlite::SqliteStore;

/// What says that a path is that of a database, whatever it ends in.
const PREFIX: &str = "sqlite:";

/// What the names of databases end in.
const ENDINGS: [&str; 3] = ["db", "sqlite", "sqlite3"];

/// The databases that were opened: what is left beside them is put into their files when the command ends.
static OPENED: Mutex<Vec<SqliteStore>> = Mutex::new(Vec::new());

/// How long a database may take to close: one that hangs can't keep the command from ending.
const CLOSING: Duration = Duration::from_secs(5);

/// Opens a store; makes it if it is missing.
pub(crate) async fn open(store: &Path) -> anyhow::Result<Backends> {
    let opened = match database(store) {
        Some(path) => SqliteStore::open(path).await.map(|store| {
            let backends = store.backends();
            opened().push(store);
            backends
        }),
        None => Backends::file(store),
    };
    opened.with_context(|| format!("the store {} can't be used", store.display()))
}

fn opened() -> MutexGuard<'static, Vec<SqliteStore>> {
    OPENED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes what was opened. Nothing is lost without it: the database has two more files then.
pub(crate) async fn close() {
    let all = std::mem::take(&mut *opened());
    let closing = async {
        for store in all {
            store.close().await;
        }
    };
    let _ = tokio::time::timeout(CLOSING, closing).await;
}

/// A store that is only read or gone on with must be there: a misspelt one isn't made.
pub(crate) fn check(store: &Path) -> anyhow::Result<()> {
    let is_there = match database(store) {
        // SQLite makes a database of an empty file.
        Some(path) => path.metadata().is_ok_and(|file| file.is_file() && file.len() > 0),
        None => store.join("store.json").is_file(),
    };
    if !is_there {
        bail!("there is no store in {}: no execution was kept there", store.display());
    }
    Ok(())
}

/// The path of the database, if it is one: `sqlite:PATH`, or a path that ends like one and isn't a folder.
fn database(store: &Path) -> Option<PathBuf> {
    if let Some(path) = store.to_str().and_then(|text| text.strip_prefix(PREFIX)) {
        return Some(path.into());
    }
    let ending = store.extension()?.to_str()?.to_ascii_lowercase();
    (ENDINGS.contains(&ending.as_str()) && !store.is_dir()).then(|| store.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_told_from_a_folder() {
        let path = |store: &str| database(Path::new(store)).map(|path| path.display().to_string());
        assert_eq!(path("data"), None);
        assert_eq!(path("data/"), None);
        assert_eq!(path(".db"), None);
        assert_eq!(path("data/orders.db").as_deref(), Some("data/orders.db"));
        assert_eq!(path("orders.SQLite").as_deref(), Some("orders.SQLite"));
        assert_eq!(path("sqlite:orders").as_deref(), Some("orders"));
        let folder = tempfile::tempdir().unwrap();
        let named = folder.path().join("folder.db");
        std::fs::create_dir(&named).unwrap();
        assert_eq!(database(&named), None);
    }
}
