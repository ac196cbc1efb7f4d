//! The whole process crashes, wherever it can, and another goes on.

use soe_backends::Schedule;
use soe_tests::crashes::generate::Shape;
use soe_tests::crashes::{Cancels, Plan, simulate};

fn plan(group: u64) -> Plan {
    Plan {
        group,
        schedule: match group % 3 {
            2 => Schedule::DepthFirst,
            _ => Schedule::Concurrent,
        },
        shape: Shape {
            levels: [0, 1, 1, 2][(group % 4) as usize],
            fails: 0,
            handled: group.is_multiple_of(5),
        },
        turns_follow: (group / 2).is_multiple_of(2),
        resumes: false,
        cancels: None,
        crash: None,
    }
}

#[test]
fn what_crashes_ends_as_if_nothing_had_happened() {
    simulate(5_000, plan);
}

#[test]
fn what_fails_crashes_and_is_resumed_ends_as_if_nothing_had_happened() {
    simulate(2_000, |group| {
        let mut plan = plan(group);
        plan.shape.fails = 1 + (group % 2) as u32;
        plan.shape.handled = false;
        plan.resumes = true;
        plan
    });
}

#[test]
fn what_fails_for_good_stops_what_depends_on_it_and_nothing_else() {
    simulate(1_500, |group| {
        let mut plan = plan(group);
        plan.shape.fails = u32::MAX;
        plan.shape.handled = group.is_multiple_of(2);
        plan
    });
}

#[test]
fn what_is_cancelled_stays_cancelled() {
    simulate(1_500, |group| {
        let mut plan = plan(group);
        plan.cancels = Some(if group.is_multiple_of(2) {
            Cancels::Root
        } else {
            Cancels::Any
        });
        plan.shape.fails = (group % 5 / 4) as u32;
        plan
    });
}
