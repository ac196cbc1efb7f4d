//! A suite that checks any implementation of the storage traits.
//!
//! Give it a [`Factory`] of fresh stores (a closure will do) and run it in a test:
//!
//! ```
//! use soe_backends::{Backends, conformance};
//!
//! # futures::executor::block_on(async {
//! let report = conformance::run_all(&|| async { Backends::memory() }).await;
//! println!("{report}");
//! # });
//! ```
//!
//! The suite needs no particular runtime: it runs its checks one after the other on the task that calls it. Each check is a
//! public function as well, and [`checks`] lists them with the requirement that each stands for.

pub mod arbitrary;
mod compare;
pub mod concurrency;
pub mod context;
pub mod conversations;
pub mod definitions;
pub mod delete;
pub mod faults;
mod fixture;
pub mod forks;
pub mod history;
pub mod inbox;
pub mod leases;
pub mod list;
pub mod owed;
pub mod posters;
pub mod refused;
pub mod reopen;
pub mod runs;
pub mod telemetry;
pub mod trees;
pub mod values;
pub mod work;
pub mod workflows;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use async_trait::async_trait;

use crate::Backends;

/// A piece of work of a check.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Makes the stores that the suite checks. Implemented for closures that return a future of fresh [`Backends`].
#[async_trait]
pub trait Factory: Send + Sync {
    /// A store with nothing in it, which shares nothing with those made before.
    async fn fresh(&self) -> Backends;

    /// Closes the store and opens it anew: what an application finds after a restart. `None` (the default) if nothing is
    /// meant to survive that; what needs it is skipped.
    async fn reopen(&self, backends: Backends) -> Option<Backends> {
        drop(backends);
        None
    }

    /// Completes all of `tasks`. By default they take turns on one thread, wherever they await; give them to a runtime with
    /// several threads to make the checks of concurrent writers sharper.
    async fn concurrently(&self, tasks: Vec<Task>) {
        futures::future::join_all(tasks).await;
    }
}

#[async_trait]
impl<F, T> Factory for F
where
    F: Fn() -> T + Send + Sync,
    T: Future<Output = Backends> + Send,
{
    async fn fresh(&self) -> Backends {
        self().await
    }
}

/// Why a check did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// What the store did, and should not have.
    Violated(String),
    /// Why the check doesn't apply.
    Skipped(&'static str),
}

/// What a check function gives.
pub type Outcome = Result<(), Finding>;

type Running<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// One check of the suite.
#[derive(Clone, Copy)]
pub struct Check {
    /// The path of its function in this module.
    pub name: &'static str,
    /// What it demands of a store.
    pub requirement: &'static str,
    run: fn(&dyn Factory) -> Running<'_>,
}

impl Check {
    /// Runs it.
    ///
    /// # Errors
    /// What was found if the requirement isn't met, or why it was skipped.
    pub async fn run(&self, factory: &dyn Factory) -> Outcome {
        (self.run)(factory).await
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("name", &self.name)
            .field("requirement", &self.requirement)
            .finish()
    }
}

/// What the suite found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// The names of the checks that passed.
    pub passed: Vec<&'static str>,
    /// The names of those that don't apply, and why.
    pub skipped: Vec<(&'static str, &'static str)>,
    /// What was violated.
    pub violations: Vec<Violation>,
}

/// A requirement that a store doesn't meet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{check}: {requirement}\n    found: {found}")]
#[non_exhaustive]
pub struct Violation {
    /// The name of the check.
    pub check: &'static str,
    /// The requirement.
    pub requirement: &'static str,
    /// What the store did instead.
    pub found: String,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} checks passed, {} were skipped, {} requirements are violated",
            self.passed.len(),
            self.skipped.len(),
            self.violations.len()
        )?;
        for (check, reason) in &self.skipped {
            write!(f, "\n  skipped {check}: {reason}")?;
        }
        for violation in &self.violations {
            write!(f, "\n  violated {violation}")?;
        }
        Ok(())
    }
}

/// Runs every check and says what was found.
pub async fn check_all(factory: &dyn Factory) -> Report {
    let mut report = Report::default();
    for check in checks() {
        match check.run(factory).await {
            Ok(()) => report.passed.push(check.name),
            Err(Finding::Skipped(reason)) => report.skipped.push((check.name, reason)),
            Err(Finding::Violated(found)) => report.violations.push(Violation {
                check: check.name,
                requirement: check.requirement,
                found,
            }),
        }
    }
    report
}

/// Runs every check, for a test: see the [module](self).
///
/// # Panics
/// If a requirement is violated; the message lists all that are.
pub async fn run_all(factory: &dyn Factory) -> Report {
    let report = check_all(factory).await;
    assert!(report.violations.is_empty(), "{report}");
    report
}

macro_rules! checks {
    ($($module:ident { $($name:ident: $requirement:literal,)* })*) => {
        /// Every check, in the order in which [`run_all`] runs them.
        pub fn checks() -> Vec<Check> {
            vec![$($(Check {
                name: concat!(stringify!($module), "::", stringify!($name)),
                requirement: $requirement,
                run: |factory| Box::pin($module::$name(factory)),
            },)*)*]
        }
    };
}

checks! {
    context {
        missing: "what was never stored is not there, and asking for it is no error",
        round_trip: "a loaded state equals the fold of its commits, whatever they change, with the state after them given or not",
        arbitrary: "a loaded state equals the fold of its commits, in any sequence of them",
        batches: "consecutive commits are stored together, in order",
        isolation: "trees with similar ids share nothing",
    }
    refused {
        versions: "a commit that wasn't computed from the stored version is a conflict and changes nothing",
        fences: "a commit that was computed under another fence is a conflict and changes nothing",
        atomicity: "a batch with a commit that doesn't fit is stored not at all, whatever executions it changes",
    }
    values {
        unicode: "text is stored as it is, in names too, control characters included",
        numbers: "numbers keep their type and their exact value",
        large: "values of 10 MB, long histories and deep nesting are stored",
        empty: "empty texts, lists, objects, histories, batches and commits are stored",
    }
    runs {
        snapshots: "the state has the contexts that runs in flight were dispatched on, as they were then, and no others",
        progress: "runs in flight are stored with how far they are",
        dialogues: "what a run has asked, and what was answered, is stored with it",
        answers: "what built-in tools have answered is kept until the run is over, and a field can become a copy",
        statuses: "every status is stored, with the failure where there is one",
        limits: "limits are stored, changed ones too",
    }
    work {
        list: "what a tree has still to do is stored, in order",
        stopped: "what an execution had to do when it failed is stored with it",
    }
    trees {
        children: "children are stored in their tree, in their places, and are no trees of their own",
        unsent: "what children have for their parents is stored in order",
        ends: "ends are stored where they are, and decide what is below",
        many: "a tree of a thousand children is stored, and each can change by itself",
        deep: "a tree of many generations is stored, with the short names of the lowest",
        survives: "children survive re-opening the store",
    }
    inbox {
        posted: "a message is stored once under its id, in the order of posting, and given back as it is",
        taken: "a commit that takes messages removes them, one that is refused removes none, and none comes back",
        remembered: "the ids of messages that were taken are known, so that none is stored twice",
        waiting: "the trees that have messages which were not taken are listed, and no others",
        undisturbed: "posting changes neither version nor fence, and is no conflict with a commit",
        deleted: "a tree isn't deleted while a message waits, and a new tree of its name knows none of its messages",
        isolated: "trees with similar ids have inboxes of their own",
        survives: "messages survive re-opening the store, and so do the ids of those that were taken",
    }
    posters {
        concurrent: "concurrent posters lose nothing, double nothing and keep each one's order, while messages are taken",
    }
    owed {
        paid: "what is owed to other stores is stored until it is paid, and can be given twice",
        survives: "what is owed survives re-opening the store",
    }
    list {
        order: "lists are newest first, of those created together the greatest id first",
        pages: "pages give every tree once, and the last says that it is the last",
        filters: "lists are filtered by status, workflow and time of creation, and by what is unsettled, also page by page",
        stable: "a page goes on where the one before ended, whatever was created or deleted meanwhile",
        summaries: "a list says of a tree what its state says",
    }
    concurrency {
        one_winner: "of several commits that make the same version exactly one is stored, the others are conflicts",
        one_creator: "of several commits that create the same tree exactly one is stored, the others are conflicts",
        one_owner: "of several owners that claim a tree exactly one gets it, the others get conflicts",
        many_trees: "commits to different trees don't disturb each other",
        cancelled: "a commit whose future is dropped is stored as a whole or not at all",
    }
    workflows {
        registries: "a registry is stored once and given back as it is; an unknown one is not there",
        committed: "a registry that comes with a commit is there when the commit is",
        current: "what a root uses now can be set, set again and deleted, also if it isn't there",
    }
    definitions {
        identities: "identities of a tree are given back in order, replaced as a whole, and deleted",
        schemas: "schemas of a tree are given back in order, replaced as a whole, and deleted",
        committed: "identities and schemas that come with a commit replace those of the tree",
    }
    conversations {
        order: "turns are given back in the order in which they were appended",
        keys: "a turn whose key is stored is not appended again; one without a key always is",
        replaced: "a replaced history is forgotten, its keys too",
        committed: "the turns of commits are appended in order, each once, those of children too",
        deleted: "a deleted history is empty, and those of other trees are not touched",
        concurrent: "concurrent appends lose nothing, double nothing and keep each writer's order",
    }
    telemetry {
        order: "events are given back in order, from the number asked for, at most as many as asked for",
        numbers: "an event whose number is stored is not appended again",
        committed: "events that come with a commit are there when the commit is",
        deleted: "deleted events are gone, and those of other trees are not touched",
    }
    delete {
        everything: "deleting a tree deletes all that belongs to it, and nothing else",
        guarded: "a tree that has another version or fence than the one who deletes it knows is not deleted",
        gone_on_with: "a deletion that ended in the middle is gone on with",
        again: "a deleted tree can be created anew and begins from nothing",
    }
    history {
        commits: "a store that keeps commits gives them back as they were, from any version on, with their events",
        states: "a store that keeps commits gives the state as each of them made it",
        gone: "the commits of a deleted tree are gone, also when it is created anew",
        survives: "kept commits survive re-opening the store",
    }
    forks {
        begun: "a tree that begins as a copy of another has all of it, and doesn't change the other",
        taken: "a copy under the name of a tree that exists is a conflict and changes nothing",
        turns: "a store that keeps earlier conversation histories gives them as they were at each commit",
    }
    leases {
        told: "until when a lease holds is what its owner said last, and owners don't disturb each other",
        survives: "leases survive re-opening the store: other processes see them",
    }
    reopen {
        survives: "everything survives re-opening the store",
        goes_on: "a re-opened store goes on where it was: versions, numbers of events, keys of turns",
    }
}

/// Ends a check with a violation unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($found:tt)+) => {
        if !$condition {
            return Err($crate::conformance::Finding::Violated(format!($($found)+)));
        }
    };
}
use ensure;
