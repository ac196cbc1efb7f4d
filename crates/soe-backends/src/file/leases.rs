//! `owners/NAME.json`: which engines are alive, and until when their leases hold.

use serde::{Deserialize, Serialize};

use super::Inner;
use super::disk::{self, Lock, Staged};
use super::trees::pretty;
use crate::{BackendError, BackendErrorKind, Durability, ExecutionId, Timestamp};

#[derive(Serialize, Deserialize)]
struct Lease {
    until: Timestamp,
}

/// The name of an owner as a part of file names.
pub(super) fn checked(owner: &str) -> Result<ExecutionId, BackendError> {
    ExecutionId::new(owner).map_err(|error| {
        let message = format!("'{owner}' can't be the owner of a lease: owners are named as executions are");
        BackendError::new(BackendErrorKind::Unsupported, message).because(error)
    })
}

impl Inner {
    /// Not synced: no lease is worth anything after a power cut.
    pub(super) fn heartbeat(&self, owner: &ExecutionId, until: Timestamp) -> Result<(), BackendError> {
        let path = self.layout.owner(owner);
        let _lock = Lock::take(&self.layout.lock(owner))?;
        Staged::replace(path, &[&pretty(&Lease { until })?], Durability::Relaxed)?.publish(Durability::Relaxed)
    }

    pub(super) fn lease(&self, owner: &ExecutionId) -> Result<Option<Timestamp>, BackendError> {
        let path = self.layout.owner(owner);
        let Some(content) = disk::read(&path)? else {
            return Ok(None);
        };
        disk::parse::<Lease>(&content, &path).map(|lease| Some(lease.until))
    }

    pub(super) fn release(&self, owner: &ExecutionId) -> Result<(), BackendError> {
        let _lock = Lock::take(&self.layout.lock(owner))?;
        Staged::remove(self.layout.owner(owner)).publish(Durability::Relaxed)
    }
}
