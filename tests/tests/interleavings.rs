//! The guarantee: one order, exact joins, whatever the timing.

use std::collections::BTreeSet;

use soe_backends::Schedule;
use soe_tests::sim::generate::{crowded, structured, wild};
use soe_tests::sim::met::met;
use soe_tests::sim::outcome::rng;
use soe_tests::sim::plan::{Plan, Prepared};
use soe_tests::sim::run::Sim;
use soe_tests::sim::simulate;

fn plan(seed: u64) -> Plan {
    Plan {
        seed,
        schedule: Schedule::Concurrent,
        noise: seed.is_multiple_of(2),
        cancel: false,
        crashes: [0, 0, 0, 8, 0, 0, 0, 12, 0, 2][(seed % 10) as usize],
        stored: seed.is_multiple_of(10),
    }
}

#[test]
fn joins_fire_exactly_once_and_nothing_is_lost_or_doubled() {
    simulate(2_500, 20, structured, plan);
}

#[test]
fn whatever_listens_to_whatever_goes_as_the_model_says() {
    simulate(3_000, 20, wild, plan);
}

#[test]
fn a_cancellation_at_any_time_is_the_end() {
    let plan = |seed| Plan {
        cancel: true,
        ..plan(seed)
    };
    simulate(1_000, 20, structured, plan);
    simulate(500, 20, wild, plan);
}

#[test]
fn crowded_cascades_pause_and_go_on() {
    let plan = |seed| Plan {
        crashes: [0, 2][(seed % 2) as usize],
        ..plan(seed)
    };
    simulate(40, 2, crowded, plan);
}

#[test]
fn the_simulation_meets_whatever_can_happen() {
    let mut all = BTreeSet::new();
    for seed in 0..1_000 {
        let prepared = Prepared::new(wild(&mut rng(&[seed, 6]))).unwrap();
        let mut sim = Sim::start(&prepared, plan(seed)).unwrap();
        sim.run().unwrap();
        all.extend(met(&sim));
    }
    let expected = [
        "a crash before a grant",
        "a crash before a reply",
        "a crash before a tool's answer",
        "a custom node asks",
        "a custom node is answered",
        "asked again",
        "caller's error and failed",
        "caller's error with a signal",
        "denied and failed",
        "denied with a signal",
        "never valid and failed",
        "never valid with a signal",
        "no tokens and failed",
        "no tokens with a signal",
        "retry",
        "too many errors and failed",
        "too many errors with a signal",
        "too many turns and failed",
        "too many turns with a signal",
        "tool's error",
        "turns",
        "unknown tool",
    ];
    assert_eq!(all.into_iter().collect::<Vec<_>>(), expected);
}
