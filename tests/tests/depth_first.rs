//! The deterministic schedule: one node at a time, in the order of a synchronous recursion.

use fastrand::Rng;
use soe_backends::Schedule;
use soe_tests::sim::generate::{crowded, structured, wild};
use soe_tests::sim::outcome::rng;
use soe_tests::sim::plan::{Plan, Prepared};
use soe_tests::sim::run::Sim;
use soe_tests::sim::{flow::Flow, simulate};

fn plan(seed: u64) -> Plan {
    Plan {
        seed,
        schedule: Schedule::DepthFirst,
        noise: seed.is_multiple_of(2),
        cancel: false,
        crashes: [0, 0, 0, 8, 0, 0, 0, 12, 0, 2][(seed % 10) as usize],
        stored: seed.is_multiple_of(10),
    }
}

#[test]
fn the_trace_is_that_of_a_recursion() {
    simulate(1_500, 20, structured, plan);
    simulate(1_500, 20, wild, plan);
    simulate(20, 2, crowded, plan);
}

#[test]
fn the_same_trace_twice() {
    for i in 0..50 {
        let generate: fn(&mut Rng) -> Flow = if i % 2 == 0 { structured } else { wild };
        let mut flow = generate(&mut rng(&[i, 2]));
        flow.external.clear();
        let prepared = Prepared::new(flow).unwrap();
        let plan = Plan {
            noise: false,
            crashes: 0,
            ..plan(i)
        };
        let trace = || {
            let mut sim = Sim::start(&prepared, plan).unwrap();
            sim.run().ok();
            sim.commits
        };
        assert_eq!(trace(), trace());
    }
}
