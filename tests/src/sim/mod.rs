//! Simulations of the state machine: random workflows, random orders of completions, signals, failures, cancellations and
//! crashes, each compared with a model step by step.
//!
//! `SOE_SIM_CASES` says how many interleavings there are about, 10,000 if it isn't set; `SOE_SIM_SEED` runs one alone, as a
//! failure names it.

pub mod answer;
pub(crate) mod check;
mod conditions;
pub mod flow;
pub mod generate;
pub mod llm;
mod llm_parts;
pub mod met;
pub mod model;
pub mod outcome;
pub(crate) mod parts;
mod perform;
pub mod plan;
pub mod run;
pub mod talk;
pub mod task;

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::Result;
use fastrand::Rng;

use flow::Flow;
use plan::{Plan, Prepared};
use run::Sim;

/// The interleavings of the main simulations, to which `SOE_SIM_CASES` is relative.
pub(crate) const USUAL: u64 = 10_000;

/// Runs `cases` interleavings of workflows that `generate` makes, `each` of one workflow; `plan` says for a seed what may
/// happen.
///
/// # Panics
/// One of them didn't go as it should: with its seed, the workflow, and what was done to the machine.
pub fn simulate(cases: u64, each: u64, generate: impl Fn(&mut Rng) -> Flow, plan: impl Fn(u64) -> Plan) {
    let only: Option<u64> = number("SOE_SIM_SEED");
    let scale = number("SOE_SIM_CASES").unwrap_or(USUAL);
    let cases = cases.saturating_mul(scale).div_ceil(USUAL);
    let seeds = only.map_or(0..cases, |seed| seed..seed + 1);
    let mut prepared: Option<(u64, Prepared)> = None;
    for seed in seeds {
        let workflow = seed / each.max(1);
        if prepared.as_ref().is_none_or(|(made, _)| *made != workflow) {
            let flow = generate(&mut outcome::rng(&[workflow, 0]));
            let written = written(&flow);
            let compiled = Prepared::new(flow).unwrap_or_else(|error| panic!("seed {seed}: {error}\n{written}"));
            prepared = Some((workflow, compiled));
        }
        if let Some((_, prepared)) = &prepared {
            one(prepared, plan(seed));
        }
    }
}

fn one(prepared: &Prepared, plan: Plan) {
    let mut sim = None;
    let result = catch_unwind(AssertUnwindSafe(|| -> Result<()> {
        let sim = sim.insert(Sim::start(prepared, plan)?);
        sim.run()?;
        if plan.stored {
            sim.replay()?;
        }
        Ok(())
    }));
    let problem = match result {
        Ok(Ok(())) => return,
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => "it panicked, see above".to_owned(),
    };
    let moves = sim.map_or_else(String::new, |sim| {
        sim.moves.iter().map(|each| format!("  {each:?}\n")).collect()
    });
    let (seed, flow) = (plan.seed, &prepared.flow);
    let tools: String = flow.tools.iter().map(|tool| format!("  {tool:?}\n")).collect();
    let outside = (&flow.start, &flow.external, &flow.limits);
    panic!(
        "{problem}\n\nagain: SOE_SIM_SEED={seed}, {plan:?}\nworkflow:\n{}tools:\n{tools}outside: {outside:?}\nmoves:\n{moves}",
        written(flow)
    );
}

/// A node in a line; this is also YAML.
fn written(flow: &Flow) -> String {
    let config = flow.config();
    let nodes = config[flow::WORKFLOW].as_object().into_iter().flatten();
    nodes.map(|(name, node)| format!("  {name}: {node}\n")).collect()
}

pub(crate) fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}
