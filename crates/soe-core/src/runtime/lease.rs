//! Which process runs a tree. A tree names its owner within its own commits; that the owner is alive is said by
//! its lease, which one task for the whole engine renews. So two processes don't run the same execution at the same time;
//! should one of them have been taken for dead, then the version that each commit is computed from keeps it from
//! committing anything more.

use std::sync::Arc;
use std::time::Duration;

use soe_backends::{ExecutionId, Status, TreeState};
use tokio::sync::OnceCell;

use super::shared::Shared;
use super::{Engine, EngineError, EngineErrorKind};

/// A lease is renewed so often while it lasts that one renewal, or two, may come late.
const RENEWALS: u32 = 3;

/// However short the lease is, the store has other things to do.
const LEAST_PAUSE: Duration = Duration::from_millis(10);

/// The engine's lease.
pub(super) struct Lease {
    /// The name under which it is kept.
    pub(super) process: Arc<str>,
    /// How long it holds after it was renewed.
    pub(super) term: Duration,
    /// Set when it is held for the first time.
    held: OnceCell<()>,
}

impl Lease {
    pub(super) fn new(term: Duration) -> Self {
        Self {
            process: process_name().into(),
            term,
            held: OnceCell::new(),
        }
    }
}

impl Engine {
    /// Whether this engine may run an execution: nobody does, or this engine itself.
    ///
    /// # Errors
    /// [`Elsewhere`](EngineErrorKind::Elsewhere) if another process runs it; it doesn't exist; or the store fails.
    pub async fn check_free(&self, execution: &ExecutionId) -> Result<(), EngineError> {
        let tree = self.shared.load_tree(execution).await?;
        self.shared.check_owner(&tree).await
    }
}

impl Shared {
    /// Says that this process is alive, before it says that it owns something; and from then on again and again.
    ///
    /// # Errors
    /// The store fails.
    pub(super) async fn hold_lease(self: &Arc<Self>) -> Result<(), EngineError> {
        let Some(lease) = &self.lease else { return Ok(()) };
        let held = lease.held.get_or_try_init(|| async {
            self.call(self.renew(lease)).await?;
            self.look_for_messages();
            let (shared, stop) = (Arc::downgrade(self), self.stop.clone());
            let pause = (lease.term / RENEWALS).max(LEAST_PAUSE);
            tokio::spawn(async move {
                loop {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                    let Some(shared) = shared.upgrade() else { return };
                    let Some(lease) = &shared.lease else { return };
                    if let Err(error) = shared.renew(lease).await {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(
                            error,
                            "the lease can't be renewed; other processes may take executions over"
                        );
                    }
                    if stop.is_cancelled() {
                        // It was given up meanwhile, perhaps before it was renewed.
                        return shared.release_lease().await;
                    }
                }
            });
            Ok::<_, EngineError>(())
        });
        held.await.copied()
    }

    async fn renew(&self, lease: &Lease) -> Result<(), soe_backends::BackendError> {
        let until = self.now().after(lease.term);
        self.backends.context().heartbeat(&lease.process, until).await
    }

    /// Gives the lease up: what this process owned is anybody's.
    pub(super) async fn release_lease(&self) {
        let Some(lease) = self.lease.as_ref().filter(|lease| lease.held.initialized()) else {
            return;
        };
        if let Err(error) = self.call(self.backends.context().release(&lease.process)).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the lease can't be given up; it ends by itself");
        }
    }

    /// Whether a tree runs, and this process is the last that ran it.
    pub(super) fn owns(&self, tree: &TreeState) -> bool {
        let runs = tree.root_state().is_some_and(|root| root.status == Status::Running);
        let own = self.lease.as_ref().map(|lease| &lease.process);
        runs && own.is_some() && own == tree.owner.as_ref().map(|owner| &owner.process)
    }

    /// Whether this process may go on with a tree.
    ///
    /// # Errors
    /// Another process runs it, or the store fails.
    pub(super) async fn check_owner(&self, tree: &TreeState) -> Result<(), EngineError> {
        let runs = tree.root_state().is_some_and(|root| root.status == Status::Running);
        let Some(owner) = tree.owner.as_ref().filter(|_| runs) else {
            return Ok(());
        };
        let own = self.lease.as_ref().is_some_and(|lease| lease.process == owner.process);
        if own || is_dead(&owner.process) {
            return Ok(());
        }
        let until = self.call(self.backends.context().lease(&owner.process)).await?;
        match until.filter(|until| *until > self.now()) {
            Some(until) => Err(EngineError::new(EngineErrorKind::Elsewhere {
                process: owner.process.clone(),
                until,
            })
            .of(&tree.root)),
            None => Ok(()),
        }
    }
}

/// A name for this engine that no other has, in which others on this machine can read which process it is.
fn process_name() -> String {
    let unique = uuid::Uuid::now_v7().simple();
    match this_process() {
        Some(process) => format!("{unique}.{process}"),
        None => unique.to_string(),
    }
}

/// Whether the process of that name is known to have ended: it ran on this machine since it was started last, and there is
/// no such process any more. Of processes elsewhere nothing is known.
fn is_dead(name: &str) -> bool {
    let Some((_, process)) = name.split_once('.') else {
        return false;
    };
    let (Some(own), Some((place, id))) = (this_process(), process.rsplit_once('_')) else {
        return false;
    };
    let Some((own_place, _)) = own.rsplit_once('_') else {
        return false;
    };
    let Some((number, started)) = id.split_once('-') else {
        return false;
    };
    place == own_place
        && number
            .parse()
            .is_ok_and(|number: u32| start_of(number).as_deref() != Some(started))
}

/// `BOOT-NAMESPACE_PROCESS-START`, as Linux tells them; `None` elsewhere.
fn this_process() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let boot: String = boot.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let namespace: String = namespace.to_str()?.chars().filter(char::is_ascii_digit).collect();
    let number = std::process::id();
    Some(format!("{boot}-{namespace}_{number}-{}", start_of(number)?))
}

/// When a process was started, in the kernel's own units; `None` if there is none of that number.
fn start_of(number: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    // The name of the program comes second, in brackets, and may have anything in it.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    // A process that has ended may still be waited for.
    (!matches!(state, "Z" | "X")).then(|| fields.nth(18).map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_are_known_only_on_the_same_machine() {
        let own = process_name();
        assert!(!is_dead(&own), "{own}");
        assert!(soe_backends::ExecutionId::new(&own).is_ok(), "{own}");
        assert!(!is_dead("0123"));
        assert!(!is_dead("0123.0-0_1-2"));
        let Some((place, _)) = own.rsplit_once('_') else {
            // Nothing is known on this system.
            return;
        };
        assert!(is_dead(&format!("{place}_{}-1", std::process::id())));
        assert!(is_dead(&format!("{place}_4294967295-1")));
    }
}
