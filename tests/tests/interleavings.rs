//! The guarantee: one order, exact joins, whatever the timing.

use soe_backends::Schedule;
use soe_tests::sim::generate::{crowded, structured, wild};
use soe_tests::sim::plan::Plan;
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
    simulate(6_000, 20, structured, plan);
}

#[test]
fn whatever_listens_to_whatever_goes_as_the_model_says() {
    simulate(4_000, 20, wild, plan);
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
    simulate(60, 2, crowded, plan);
}
