//! Trees of executions: whatever is late, lost, doubled, failed or cancelled on the way.

use soe_backends::Schedule;
use soe_tests::trees::generate::Shape;
use soe_tests::trees::{Plan, simulate};

fn plan(seed: u64) -> Plan {
    Plan {
        seed,
        schedule: match seed % 3 {
            2 => Schedule::DepthFirst,
            _ => Schedule::Concurrent,
        },
        shape: Shape {
            levels: 1 + (seed % 4 % 3) as usize,
            fails: false,
            handled: seed.is_multiple_of(5),
        },
        pings: (seed % 7 % 3) as u32,
        crashes: [0, 0, 30, 8][(seed % 4) as usize],
        unreliable: seed % 5 > 1,
        resumes: None,
        cancel_root: false,
        cancel_child: false,
    }
}

#[test]
fn joins_fire_once_and_nothing_is_lost_or_doubled() {
    simulate(1_000, plan);
}

#[test]
fn a_failure_goes_up_and_what_is_below_is_suspended() {
    simulate(400, |seed| {
        let mut plan = plan(seed);
        (plan.shape.fails, plan.shape.handled) = (true, false);
        plan
    });
}

#[test]
fn a_failure_with_a_signal_stays_where_it_is() {
    simulate(400, |seed| {
        let mut plan = plan(seed);
        (plan.shape.fails, plan.shape.handled) = (true, true);
        plan
    });
}

#[test]
fn what_has_failed_and_is_resumed_ends_as_if_nothing_had_happened() {
    simulate(600, |seed| {
        let mut plan = plan(seed);
        (plan.shape.fails, plan.shape.handled) = (true, false);
        plan.resumes = Some(1 + (seed % 3) as u32);
        plan
    });
}

#[test]
fn a_child_whose_failure_was_handled_can_be_resumed_alone() {
    simulate(300, |seed| {
        let mut plan = plan(seed);
        (plan.shape.fails, plan.shape.handled) = (true, true);
        plan.resumes = Some(1 + (seed % 3) as u32);
        plan
    });
}

#[test]
fn a_cancellation_ends_all_that_is_below() {
    simulate(400, |seed| {
        let mut plan = plan(seed);
        plan.cancel_root = seed % 3 > 0;
        plan.cancel_child = seed % 3 != 1;
        plan.shape.fails = seed % 4 == 1;
        plan
    });
}
