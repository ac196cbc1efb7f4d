//! Proof by simulation: the whole process crashes, after a commit or between a commit and its effects; only what was committed
//! is left; an engine recovers it and goes on, and may crash again. Trees of machines with nodes of every kind run on a simulated
//! store under a simulated driver. An onlooker, who knows only what was committed and what was performed, holds both to the
//! guarantee.
//!
//! Seeds come in groups of [`GROUP`]: one workflow and one order of events each. A group is run undisturbed first, which says how
//! often it stores something and what must come of it; each of its seeds is a crash at another of these points.
//!
//! `SOE_SIM_CASES` is the number of crash schedules, 10,000 if it isn't set; `SOE_SIM_SEED` runs one alone, as a failure names it.

mod between;
mod check;
pub mod generate;
mod ledger;
mod outside;
mod perform;
mod process;
mod run;
mod serve;
mod store;
mod summary;

use std::panic::{AssertUnwindSafe, catch_unwind};

use soe_backends::Schedule;

use crate::sim::outcome::rng;
use crate::sim::{USUAL, number};
use generate::{Grove, Shape, grove};
pub use run::{Move, Sim};
pub use summary::Summary;

/// The crash schedules of one workflow and order.
pub const GROUP: u64 = 32;

/// What may happen.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Where the workflow and all random choices come from.
    pub group: u64,
    /// The schedule of the tree.
    pub schedule: Schedule,
    /// What the workflows look like.
    pub shape: Shape,
    /// Whether turns of conversations have a store of their own.
    pub turns_follow: bool,
    /// Somebody resumes what has failed, from the top.
    pub resumes: bool,
    /// Somebody cancels the root, or an execution below.
    pub cancels: Option<Cancels>,
    /// When the process crashes first.
    pub crash: Option<Crash>,
}

/// Who is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancels {
    /// The root.
    Root,
    /// Any execution.
    Any,
}

/// When the process crashes.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// After so many times that something was stored.
    pub stored: u64,
    /// After so many effects of what was stored then; with fewer, before its callers are answered.
    pub effects: usize,
    /// After that, one in so many times; 0 for never.
    pub again: u8,
    /// What is random after the first crash.
    pub seed: u64,
}

/// Runs about `cases` crash schedules of what `plan` says for a group.
///
/// # Panics
/// One of them didn't go as it should: with its seed, the workflows, and what was done.
pub fn simulate(cases: u64, plan: impl Fn(u64) -> Plan) {
    let cases = cases
        .saturating_mul(number("SOE_SIM_CASES").unwrap_or(USUAL))
        .div_ceil(USUAL);
    let only = number("SOE_SIM_SEED");
    let groups = match only {
        Some(seed) => seed / GROUP..seed / GROUP + 1,
        None => 0..cases.div_ceil(GROUP),
    };
    for group in groups {
        let plan = plan(group);
        let grove =
            grove(&mut rng(&[group, 21]), plan.shape).unwrap_or_else(|error| panic!("group {group}: {error:#}"));
        let calm = one(&grove, plan, group * GROUP, None);
        for seed in group * GROUP..(group + 1) * GROUP {
            if only.is_none_or(|only| only == seed) && seed < cases.max(only.map_or(0, |only| only + 1)) {
                let crash = crash(seed, calm.stores);
                one(
                    &grove,
                    Plan {
                        crash: Some(crash),
                        ..plan
                    },
                    seed,
                    Some(&calm),
                );
            }
        }
    }
}

/// Every point of a small case, spread over those of a larger one.
fn crash(seed: u64, stores: u64) -> Crash {
    let (mut rng, place) = (rng(&[seed, 22]), seed % GROUP);
    let stored = match stores <= GROUP {
        true => 1 + place % stores.max(1),
        false => 1 + (place * stores + rng.u64(..stores)) / GROUP,
    };
    // The first time before any effect.
    let effects = if place < stores && seed.is_multiple_of(2) {
        0
    } else {
        rng.usize(..4)
    };
    let again = [0, 0, 25, 6][rng.usize(..4)];
    Crash {
        stored,
        effects,
        again,
        seed,
    }
}

fn one(grove: &Grove, plan: Plan, seed: u64, calm: Option<&Summary>) -> Summary {
    let mut sim = Sim::new(grove, plan);
    let problem = match catch_unwind(AssertUnwindSafe(|| sim.run(calm))) {
        Ok(Ok(summary)) => return summary,
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => "it panicked, see above".to_owned(),
    };
    let moves: String = sim.moves.iter().map(|each| format!("  {each:?}\n")).collect();
    panic!(
        "{problem}\n\nagain: SOE_SIM_SEED={seed}, {plan:?}\nfields: {:?}\nworkflows:\n{}moves:\n{moves}",
        grove.fields, grove.text
    );
}
