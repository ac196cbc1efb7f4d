//! Simulations of trees: a machine without a runtime, and a world in which everything happens in any order.
//!
//! `SOE_SIM_SEED` runs one case alone, as a failure names it; `SOE_SIM_CASES` is the number of cases in all tests together,
//! normally 10,000.

pub mod check;
mod event;
pub mod flow;
pub mod generate;
pub mod ledger;
pub mod model;
pub mod outcome;
mod perform;
mod play;
mod talk;
pub mod world;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use soe_backends::{Schedule, Sections};

use flow::Grove;
use generate::{Shape, grove};
use outcome::rng;
use world::{Crash, Setting, World};

/// What may happen.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where all random choices come from.
    pub seed: u64,
    /// The order in which the tree runs its nodes.
    pub schedule: Schedule,
    /// What the workflows look like.
    pub shape: Shape,
    /// Commits are cut after so many steps and children, if not after as many as usual.
    pub pace: Option<(usize, usize)>,
    /// Signals from outside, to any execution.
    pub pings: u32,
    /// Whether what comes from outside comes through the inbox.
    pub posts: bool,
    /// Cancellations of any execution; the root's too.
    pub cancels: u32,
    /// Somebody resumes what has failed.
    pub resumes: bool,
    /// Where processes crash.
    pub crashes: Vec<Crash>,
    /// What stores take of a commit by themselves.
    pub sections: Sections,
}

impl Plan {
    /// A tree in which nothing goes wrong.
    pub fn calm(seed: u64) -> Self {
        Self {
            seed,
            schedule: Schedule::Concurrent,
            shape: Shape {
                levels: 1,
                fails: 0,
                handled: false,
            },
            pace: None,
            pings: 0,
            posts: false,
            cancels: 0,
            resumes: false,
            crashes: Vec::new(),
            sections: Sections::ALL,
        }
    }

    fn setting(&self, every: u64) -> Setting {
        Setting {
            seed: self.seed,
            schedule: self.schedule,
            sections: self.sections,
            crashes: self.crashes.iter().copied().collect(),
            every,
            modelled: self.is_modelled(),
        }
    }

    /// Whether the model says all of what comes of it.
    fn is_modelled(&self) -> bool {
        let ends = self.cancels > 0 || self.shape.fails > 0;
        match self.schedule {
            // It follows only a tree that waits, and one that is resumed at once: what is sent to one that has failed comes later
            // there than in a recursion that never stopped.
            Schedule::DepthFirst => {
                let resumed = self.resumes && !self.shape.handled && self.pings == 0;
                self.cancels == 0 && (self.shape.fails == 0 || resumed)
            }
            // Where an event is cut, what ends something may come between.
            _ => self.pace.is_none() || !ends,
        }
    }

    /// Whether everything comes to its end as if nothing had happened.
    pub fn is_clean(&self) -> bool {
        self.cancels == 0 && (self.shape.fails == 0 || self.resumes)
    }
}

/// How many of `cases` there are, of 10,000 in all tests together, and which of them.
pub fn seeds(cases: u64) -> std::ops::Range<u64> {
    let variable = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let all = variable("SOE_SIM_CASES").unwrap_or(10_000);
    let cases = cases.saturating_mul(all).div_ceil(10_000);
    variable("SOE_SIM_SEED").map_or(0..cases, |seed| seed..seed + 1)
}

/// Runs `cases` trees.
///
/// # Panics
/// One of them didn't go as it should: with its seed, the workflows, and what was done.
pub fn simulate(cases: u64, plan: impl Fn(u64) -> Plan) {
    // Compiling the workflows takes longer than running them: each is run several times.
    let mut groves: HashMap<(u64, Shape), Grove> = HashMap::new();
    for seed in seeds(cases) {
        let (plan, made) = (plan(seed), seed / 50);
        groves.retain(|(of, _), _| *of == made);
        let grove = groves.entry((made, plan.shape)).or_insert_with(|| {
            grove(&mut rng(&[made, 11]), plan.shape).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"))
        });
        one(grove, &plan);
    }
}

/// Runs one tree to its end.
///
/// # Panics
/// It didn't go as it should.
pub fn one<'g>(grove: &'g Grove, plan: &Plan) -> World<'g> {
    let problem = match run(grove, plan, 8) {
        Ok(world) => return world,
        Err(problem) => problem,
    };
    // Once more, looking at every commit.
    let (problem, moves) = run(grove, plan, 1).err().unwrap_or(problem);
    let moves: String = moves.iter().map(|each| format!("  {each}\n")).collect();
    let text = &grove.text;
    panic!(
        "{problem}\n\nagain: SOE_SIM_SEED={}, {plan:?}\nworkflows:\n{text}moves:\n{moves}",
        plan.seed
    );
}

fn run<'g>(grove: &'g Grove, plan: &Plan, every: u64) -> Result<World<'g>, (String, Vec<String>)> {
    let mut world =
        World::new(grove, plan.setting(every), plan.pace).map_err(|error| (format!("{error:#}"), Vec::new()))?;
    match catch_unwind(AssertUnwindSafe(|| world.play(plan))) {
        Ok(Ok(())) => Ok(world),
        Ok(Err(error)) => Err((format!("{error:#}"), world.moves)),
        Err(_) => Err(("it panicked, see above".to_owned(), world.moves)),
    }
}
