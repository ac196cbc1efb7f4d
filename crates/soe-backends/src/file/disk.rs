//! Files that are replaced as a whole, locks, and errors that say which path it was and what to do.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use fs4::{FileExt, TryLockError};
use serde::de::DeserializeOwned;

use super::Durability;
use super::layout::temporary;
use crate::{BackendError, BackendErrorKind, stored};

/// No file that is read as a whole is larger: what is larger is refused before it is read.
const MAX_BYTES: u64 = 1 << 30;

/// An exclusive lock between threads and processes, released when dropped (or when the process ends).
#[derive(Debug)]
pub(super) struct Lock(#[allow(dead_code, reason = "closing the file releases the lock")] File);

impl Lock {
    pub(super) fn take(path: &Path) -> Result<Self, BackendError> {
        let file = open_lock(path)?;
        loop {
            match FileExt::lock(&file) {
                Ok(()) => return Ok(Self(file)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed("lock", path, error)),
            }
        }
    }

    /// `None` if somebody else holds it.
    pub(super) fn try_take(path: &Path) -> Result<Option<Self>, BackendError> {
        let file = open_lock(path)?;
        match FileExt::try_lock(&file) {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed("lock", path, error)),
        }
    }
}

fn open_lock(path: &Path) -> Result<File, BackendError> {
    regular(path)?;
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    options
        .open(path)
        .map_err(|error| failed("open the lock file", path, error))
}

/// A change to one file that is written already, but not seen yet. Dropped, it never happened.
#[derive(Debug)]
pub(super) struct Staged {
    target: PathBuf,
    /// `None`: the target is to be removed.
    temporary: Option<PathBuf>,
}

impl Staged {
    /// Writes what is to replace `target`: `parts`, one behind the other. The caller holds the lock of the target until it is
    /// published.
    pub(super) fn replace(target: PathBuf, parts: &[&[u8]], durability: Durability) -> Result<Self, BackendError> {
        let path = temporary(&target);
        let staged = Self {
            target,
            temporary: Some(path.clone()),
        };
        let write = || {
            let mut file = create(&path)?;
            parts.iter().try_for_each(|part| file.write_all(part))?;
            match durability {
                Durability::Full => file.sync_all(),
                Durability::Relaxed => Ok(()),
            }
        };
        write().map_err(|error| failed("write", &path, error))?;
        Ok(staged)
    }

    /// Stages the removal of `target`.
    pub(super) fn remove(target: PathBuf) -> Self {
        Self {
            target,
            temporary: None,
        }
    }

    /// Makes the change seen, in one step. If it can't be made durable, it is seen all the same, and the error's kind is
    /// [`BackendErrorKind::Other`].
    pub(super) fn publish(mut self, durability: Durability) -> Result<(), BackendError> {
        match self.temporary.as_ref() {
            Some(temporary) => {
                fs::rename(temporary, &self.target).map_err(|error| failed("replace", &self.target, error))?;
                self.temporary = None;
            }
            None => match fs::remove_file(&self.target) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                other => other.map_err(|error| failed("remove", &self.target, error))?,
            },
        }
        match durability {
            Durability::Full => sync_folder(&self.target),
            Durability::Relaxed => Ok(()),
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // What stays behind is overwritten by the next writer, or removed when the store is opened.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// Makes the entry of `file` in its folder durable.
#[cfg(unix)]
pub(super) fn sync_folder(file: &Path) -> Result<(), BackendError> {
    let Some(folder) = file.parent() else { return Ok(()) };
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| {
            let message = format!(
                "{} was written, but can't be made durable: it is seen now and may be gone after a power cut",
                file.display()
            );
            BackendError::new(BackendErrorKind::Other, message).because(error)
        })
}

/// Other systems can't sync a folder, or do it by themselves.
#[cfg(not(unix))]
pub(super) fn sync_folder(_: &Path) -> Result<(), BackendError> {
    Ok(())
}

/// A new file: whatever has its name goes, and is not written through.
fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => File::create_new(path),
    }
}

/// The content of a file; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, BackendError> {
    match open(path)? {
        Some(file) => read_all(file, path).map(Some),
        None => Ok(None),
    }
}

/// A regular file to be read; `None` if there is none.
pub(super) fn open(path: &Path) -> Result<Option<File>, BackendError> {
    if !regular(path)? {
        return Ok(None);
    }
    match File::open(path) {
        // It may be another than it was a moment ago.
        Ok(file) => is_regular(&file, path).map(|()| Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("open", path, error)),
    }
}

/// A regular file to be read and changed; if there is none, it is made or that is an error.
pub(super) fn open_to_change(path: &Path, make: bool) -> Result<File, BackendError> {
    regular(path)?;
    let mut options = OpenOptions::new();
    options.create(make).truncate(false).read(true).write(true);
    let file = options.open(path).map_err(|error| failed("open", path, error))?;
    is_regular(&file, path).map(|()| file)
}

/// Whether there is a file. Only regular ones are opened: others may have no end, or keep waiting whoever opens them, and a
/// link may lead out of the store.
fn regular(path: &Path) -> Result<bool, BackendError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(true),
        Ok(metadata) if metadata.is_symlink() => Err(damaged(path, "it is a symbolic link")),
        Ok(_) => Err(damaged(path, "it is no regular file")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("open", path, error)),
    }
}

fn is_regular(file: &File, path: &Path) -> Result<(), BackendError> {
    let metadata = file.metadata().map_err(|error| failed("open", path, error))?;
    match metadata.is_file() {
        true => Ok(()),
        false => Err(damaged(path, "it is no regular file")),
    }
}

/// The length of an open file, if it isn't absurd.
pub(super) fn length(file: &File, path: &Path, most: u64) -> Result<u64, BackendError> {
    let length = file.metadata().map_err(|error| failed("read", path, error))?.len();
    match length <= most {
        true => Ok(length),
        false => Err(damaged(
            path,
            &format!("it has {length} bytes, more than such a file of a store has"),
        )),
    }
}

/// The rest of an open file.
pub(super) fn read_all(file: File, path: &Path) -> Result<Vec<u8>, BackendError> {
    let length = length(&file, path, MAX_BYTES)?;
    let mut content = Vec::new();
    file.take(length)
        .read_to_end(&mut content)
        .map_err(|error| failed("read", path, error))?;
    Ok(content)
}

/// Reads JSON.
pub(super) fn parse<T: DeserializeOwned>(content: &[u8], path: &Path) -> Result<T, BackendError> {
    stored::read(content).map_err(|error| damaged(path, &error.to_string()).because(error))
}

/// The error of a file that can't be read as what it should be.
pub(super) fn damaged(path: &Path, why: &str) -> BackendError {
    let message = format!(
        "{} is damaged: {why}. Nothing was changed; repair it, restore it from a backup or move it away",
        path.display()
    );
    BackendError::new(BackendErrorKind::Corrupt, message)
}

/// The error of a file that a later version wrote.
pub(super) fn newer(path: &Path, found: u64, known: u32) -> BackendError {
    let message = format!(
        "{} was written by a later version: it has format {found}, this version reads up to {known}. Nothing was changed; \
         use that version",
        path.display()
    );
    BackendError::new(BackendErrorKind::Corrupt, message)
}

/// The error of an I/O operation.
pub(super) fn failed(operation: &str, path: &Path, error: io::Error) -> BackendError {
    let advice = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; make room on the disk and try again",
        ErrorKind::FileTooLarge => "; the system limits the size of files",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "; the user that the program runs as needs write access to the folder"
        }
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory => {
            "; something else is in the place of a folder or file of the store, or it was removed"
        }
        _ => "",
    };
    let message = format!("can't {operation} {}: {error}{advice}", path.display());
    BackendError::new(BackendErrorKind::Unavailable, message).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_staged_and_dropped_never_happened() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.json");
        let write = |content: &[u8]| Staged::replace(target.clone(), &[content], Durability::Full).unwrap();
        write(b"1").publish(Durability::Full).unwrap();
        drop(write(b"2"));
        assert_eq!(read(&target).unwrap().unwrap(), b"1");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        Staged::remove(target.clone()).publish(Durability::Full).unwrap();
        assert_eq!(read(&target).unwrap(), None);
    }
}
