//! Trees of executions: in whatever order everything happens, what comes of it is what the model says.

use soe_backends::{Schedule, Sections};
use soe_tests::trees::generate::Shape;
use soe_tests::trees::world::Crash;
use soe_tests::trees::{Plan, simulate};

fn plan(seed: u64) -> Plan {
    Plan {
        schedule: match seed % 4 {
            3 => Schedule::DepthFirst,
            _ => Schedule::Concurrent,
        },
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
    simulate(2_000, plan);
}

#[test]
fn an_event_that_is_cut_into_many_commits_is_one_event_still() {
    simulate(1_000, |seed| {
        let mut plan = plan(seed);
        plan.pace = Some((1 + (seed % 5) as usize, 1 + (seed % 2) as usize));
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
    simulate(500, |seed| {
        let mut plan = plan(seed);
        (plan.shape.fails, plan.shape.handled) = (1, true);
        plan
    });
}

#[test]
fn what_has_failed_and_is_resumed_ends_as_if_nothing_had_happened() {
    simulate(1_000, |seed| {
        let mut plan = plan(seed);
        (plan.shape.fails, plan.shape.handled) = (1 + (seed % 3) as u32, seed.is_multiple_of(3));
        plan.resumes = true;
        plan
    });
}

#[test]
fn a_cancellation_ends_all_that_is_below() {
    simulate(1_000, |seed| {
        let mut plan = plan(seed);
        plan.cancels = 1 + (seed % 3) as u32;
        plan.shape.fails = u32::from(seed % 4 == 1);
        plan.resumes = seed.is_multiple_of(8);
        plan
    });
}

#[test]
fn whatever_ends_in_the_middle_of_an_event_ends_consistently() {
    simulate(1_000, |seed| {
        let mut plan = plan(seed);
        plan.pace = Some((1 + (seed % 4) as usize, 1));
        plan.cancels = (seed % 3) as u32;
        plan.shape.fails = (seed % 4) as u32;
        plan.resumes = seed % 3 > 0;
        plan
    });
}

/// A crash comes before a commit is stored, or after it and some of its effects.
fn crashes(seed: u64) -> Vec<Crash> {
    let crash = |place: u64| Crash {
        commits: 1 + (seed / 3 + place * 5) % 9,
        stored: match (seed + place) % 4 {
            0 => None,
            some => Some(some as usize - 1),
        },
    };
    (0..1 + seed % 4).map(crash).collect()
}

#[test]
fn processes_may_crash_anywhere() {
    simulate(1_500, |seed| {
        let mut plan = plan(seed);
        plan.crashes = crashes(seed);
        plan
    });
}

#[test]
fn processes_may_crash_in_the_middle_of_an_event_and_of_its_end() {
    simulate(1_000, |seed| {
        let mut plan = plan(seed);
        plan.crashes = crashes(seed);
        plan.pace = (seed % 3 > 0).then_some((1 + (seed % 5) as usize, 1));
        plan.cancels = (seed % 3) as u32;
        plan.shape.fails = (seed % 4) as u32;
        plan.resumes = seed % 5 > 0;
        plan
    });
}
