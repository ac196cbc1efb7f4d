//! Simulations of trees of executions: machines without a runtime, and between them everything that can go wrong on the way.
//!
//! `SOE_SIM_SEED` runs one case alone, as a failure names it; `SOE_SIM_CASES` is the number of cases, relative to 10,000.

pub(crate) mod check;
pub mod generate;
mod perform;
pub mod run;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use soe_backends::Schedule;

use crate::sim::outcome::rng;
use generate::{Forest, Shape, forest};
use run::Trees;

/// What may happen.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Where all random choices come from.
    pub seed: u64,
    /// The schedule of the tree.
    pub schedule: Schedule,
    /// What the workflows look like.
    pub shape: Shape,
    /// Signals from outside, to any execution.
    pub pings: u32,
    /// A machine is lost, one in so many moves; 0 for never.
    pub crashes: u8,
    /// Messages come twice, and acknowledgements are lost.
    pub unreliable: bool,
    /// Failing nodes fail so often only, and somebody resumes what has failed, from the top.
    pub resumes: Option<u32>,
    /// Somebody cancels the root.
    pub cancel_root: bool,
    /// Somebody cancels another execution.
    pub cancel_child: bool,
}

/// Runs `cases` trees.
///
/// # Panics
/// One of them didn't go as it should: with its seed, the workflows, and what was done.
pub fn simulate(cases: u64, plan: impl Fn(u64) -> Plan) {
    let variable = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let cases = cases
        .saturating_mul(variable("SOE_SIM_CASES").unwrap_or(10_000))
        .div_ceil(10_000);
    let seeds = variable("SOE_SIM_SEED").map_or(0..cases, |seed| seed..seed + 1);
    // Compiling the workflows takes longer than running them: each is run several times.
    let mut forests: HashMap<(u64, Shape), Forest> = HashMap::new();
    for seed in seeds {
        let (plan, made) = (plan(seed), seed / 50);
        forests.retain(|(of, _), _| *of == made);
        let forest = forests.entry((made, plan.shape)).or_insert_with(|| {
            forest(&mut rng(&[made, 11]), plan.shape).unwrap_or_else(|error| panic!("seed {seed}: {error}"))
        });
        one(forest, plan);
    }
}

fn one(forest: &Forest, plan: Plan) {
    let seed = plan.seed;
    let mut trees = Trees::new(forest, plan);
    let problem = match catch_unwind(AssertUnwindSafe(|| trees.run())) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => "it panicked, see above".to_owned(),
    };
    let moves: String = trees.moves.iter().map(|each| format!("  {each:?}\n")).collect();
    panic!(
        "{problem}\n\nagain: SOE_SIM_SEED={seed}, {plan:?}\nfields: {:?}\nworkflows:\n{}moves:\n{moves}",
        forest.fields, forest.text
    );
}
