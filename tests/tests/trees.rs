//! Trees of executions: in whatever order everything happens, what comes of it is what the model says.

use soe_backends::{Schedule, Sections};
use soe_tests::trees::generate::Shape;
use soe_tests::trees::{Plan, simulate};

fn plan(seed: u64) -> Plan {
    Plan {
        schedule: Schedule::Concurrent,
        shape: Shape {
            levels: [1, 2, 2, 3, 4, 0, 1, 3][(seed / 50 % 8) as usize],
            fails: 0,
            handled: seed.is_multiple_of(5),
        },
        pings: (seed % 7 % 4) as u32,
        posts: seed.is_multiple_of(2),
        sections: match seed % 6 {
            0 => Sections::default(),
            _ => Sections::ALL,
        },
        ..Plan::calm(seed)
    }
}

#[test]
fn joins_fire_once_and_nothing_is_lost_or_doubled() {
    simulate(2_500, plan);
}

#[test]
fn one_node_at_a_time_gives_the_order_of_a_recursion() {
    simulate(2_000, |seed| {
        let mut plan = plan(seed);
        (plan.schedule, plan.pings) = (Schedule::DepthFirst, 0);
        plan.shape.levels = (seed / 50 % 2) as usize;
        plan
    });
}

#[test]
fn a_failure_goes_up_and_what_is_below_is_suspended() {
    simulate(1_000, |seed| {
        let mut plan = plan(seed);
        (plan.shape.fails, plan.shape.handled) = (1, false);
        plan
    });
}

#[test]
fn a_failure_with_a_signal_stays_where_it_is() {
    simulate(1_000, |seed| {
        let mut plan = plan(seed);
        (plan.shape.fails, plan.shape.handled) = (1, true);
        plan
    });
}

#[test]
fn a_cancellation_ends_all_that_is_below() {
    simulate(1_500, |seed| {
        let mut plan = plan(seed);
        plan.cancels = 1 + (seed % 3) as u32;
        plan.shape.levels = (seed / 50 % 3) as usize;
        plan
    });
}
