//! Whether commits fit a state, without applying them: what lets a store apply them in place, all or none.

use std::collections::BTreeSet;

use crate::{ApplyError, Change, Commit, ExecutionId, ExecutionState, Run};

impl ExecutionState {
    /// Whether `commits` can be applied to this state, one after the other. Costs what the commits contain, however large the
    /// state is.
    ///
    /// # Errors
    /// The error that [`ExecutionState::apply`] would give at the first commit that doesn't fit.
    pub fn fits(&self, commits: &[Commit]) -> Result<(), ApplyError> {
        let mut check = Check {
            state: self,
            version: self.version,
            next_run: self.next_run,
            stack: self.stack.len(),
            finished: BTreeSet::new(),
            children: BTreeSet::new(),
        };
        commits.iter().try_for_each(|commit| check.commit(commit))
    }
}

/// What the commits checked so far would have changed, as far as the next ones depend on it.
struct Check<'a> {
    state: &'a ExecutionState,
    version: u64,
    next_run: u64,
    stack: usize,
    finished: BTreeSet<u64>,
    children: BTreeSet<ExecutionId>,
}

impl Check<'_> {
    fn commit(&mut self, commit: &Commit) -> Result<(), ApplyError> {
        if commit.execution != self.state.id {
            return Err(ApplyError::Execution(commit.execution.clone()));
        }
        if self.version.checked_add(1) != Some(commit.version) {
            return Err(ApplyError::Version {
                commit: commit.version,
                state: self.version,
            });
        }
        commit.changes.iter().try_for_each(|change| self.change(change))?;
        self.version = commit.version;
        Ok(())
    }

    /// Lists every kind of change, so that a new one that can fail is not forgotten here.
    fn change(&mut self, change: &Change) -> Result<(), ApplyError> {
        match change {
            Change::Created(_) => Err(ApplyError::Mismatch("it exists already")),
            Change::Dispatched(run) | Change::Restarted(run) => self.dispatched(run),
            Change::Stack { kept, .. } if *kept > self.stack => {
                Err(ApplyError::Mismatch("it keeps more of the stack than there is"))
            }
            Change::Stack { kept, frames } => {
                self.stack = kept + frames.len();
                Ok(())
            }
            Change::Progressed { run, .. } if !self.in_flight(*run) => {
                Err(ApplyError::Mismatch("a run that is not in flight made progress"))
            }
            Change::Dialogue { run, .. } if !self.in_flight(*run) => Err(ApplyError::Mismatch(
                "a run that is not in flight asked or was answered",
            )),
            Change::Finished { run } if !self.in_flight(*run) => {
                Err(ApplyError::Mismatch("a run finished that is not in flight"))
            }
            Change::Finished { run } => {
                self.finished.insert(*run);
                Ok(())
            }
            Change::Answered(answer) if answer.execution.is_none() && !self.in_flight(answer.run) => {
                Err(ApplyError::Mismatch("a run was answered that is not in flight"))
            }
            Change::Children(started) => {
                self.children.extend(started.children.iter().cloned());
                Ok(())
            }
            Change::Received { child, .. } if !self.has_child(child) => {
                Err(ApplyError::Mismatch("a message came from no child"))
            }
            Change::Revived { child } if !self.has_child(child) => {
                Err(ApplyError::Mismatch("an execution was resumed that is no child"))
            }
            Change::Received { .. } | Change::Revived { .. } => Ok(()),
            Change::Status { .. }
            | Change::Broadcast(_)
            | Change::Routed { .. }
            | Change::Progressed { .. }
            | Change::Dialogue { .. }
            | Change::Error
            | Change::Turns(_)
            | Change::TurnsStored(_)
            | Change::Appended { .. }
            | Change::Replaced { .. }
            | Change::ToolCalled
            | Change::Answered(_)
            | Change::Accepted(_)
            | Change::TakenUp
            | Change::Told(_)
            | Change::Acknowledged(_)
            | Change::Kept(_)
            | Change::TakenIn
            | Change::Registry(_)
            | Change::Limits(_)
            | Change::Owned(_)
            | Change::Descending(_) => Ok(()),
        }
    }

    fn dispatched(&mut self, run: &Run) -> Result<(), ApplyError> {
        run.check_dispatch(self.next_run, self.version)?;
        self.next_run += 1;
        Ok(())
    }

    fn has_child(&self, id: &ExecutionId) -> bool {
        let family = self.state.family.as_ref();
        self.children.contains(id) || family.is_some_and(|family| family.children.contains_key(id))
    }

    fn in_flight(&self, run: u64) -> bool {
        let dispatched_here = (self.state.next_run..self.next_run).contains(&run);
        (dispatched_here || self.state.runs.contains_key(&run)) && !self.finished.contains(&run)
    }
}
