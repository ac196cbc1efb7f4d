//! Limits end an execution, and say which they are.

use serde_json::json;
use soe_backends::{Limits, Status, Value};
use soe_core::machine::{Input, MachineError};

use crate::{Bench, flow};

const LOOP: &str = "  A: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: START}]}";
const TOOL: &str = "  A: {node_type: tool, event_triggers: [START], tool_name: t, output_field: out,
    event_emissions: [{signal_name: START}]}";

fn limit(bench: &Bench) -> &str {
    bench.state().failure.as_ref().unwrap().limit.as_deref().unwrap()
}

#[test]
fn a_loop_without_a_guard_ends_at_a_limit() {
    for (limits, name, runs) in [
        (
            Limits {
                runs: 2_500,
                ..Limits::default()
            },
            "runs",
            2_500,
        ),
        (
            Limits {
                broadcasts: 2_500,
                ..Limits::default()
            },
            "broadcasts",
            2_500,
        ),
    ] {
        let mut bench = flow(LOOP).limits(limits).run();
        for _ in 0..2 {
            assert_eq!(bench.asked(), ["continue"]);
            bench.input(Input::Continue);
        }
        assert_eq!(
            (bench.status(), limit(&bench), bench.runs("A")),
            (Status::Failed, name, runs)
        );
        assert!(
            bench.failure().starts_with(&format!("limit {name} exceeded: 2500 ")),
            "{}",
            bench.failure()
        );
        assert_eq!(bench.asked(), ["abort 0"]);
    }
}

#[test]
fn a_loop_through_a_tool_ends_at_a_limit() {
    let mut bench = flow(TOOL)
        .limits(Limits {
            runs: 3,
            ..Limits::default()
        })
        .run();
    for run in 1..=3 {
        bench.returned(run, json!(1));
    }
    assert_eq!((limit(&bench), bench.history("out")), ("runs", json!([1, 1, 1])));
}

#[test]
fn values_and_contexts_have_limits() {
    let text = "x".repeat(1_000);
    let size = Value::from(text.as_str()).size();
    let mut bench = flow(TOOL)
        .limits(Limits {
            value_bytes: size - 1,
            ..Limits::default()
        })
        .run();
    bench.returned(1, json!(text));
    assert_eq!((limit(&bench), bench.history("out")), ("value_bytes", json!([])));
    assert_eq!(
        bench.state().runs.len(),
        1,
        "it is kept, to be run again under other limits"
    );

    let mut bench = flow(TOOL)
        .limits(Limits {
            context_bytes: 2 * size,
            ..Limits::default()
        })
        .run();
    bench.returned(1, json!(text));
    bench.returned(2, json!(text));
    assert_eq!(bench.state().context_bytes, 2 * size);
    bench.returned(3, json!(text));
    assert_eq!(
        (limit(&bench), bench.state().context_bytes),
        ("context_bytes", 2 * size)
    );
}

#[test]
fn an_initial_context_has_the_same_limits() {
    for (limits, name) in [
        (
            Limits {
                value_bytes: 100,
                ..Limits::default()
            },
            "value_bytes",
        ),
        (
            Limits {
                context_bytes: 100,
                ..Limits::default()
            },
            "context_bytes",
        ),
    ] {
        let error = flow(LOOP)
            .limits(limits)
            .field("f", json!(["x".repeat(101)]))
            .try_run()
            .err()
            .unwrap();
        assert!(
            matches!(error, MachineError::TooLarge { limit, .. } if limit == name),
            "{error}"
        );
    }
}

#[test]
fn the_driver_can_fail_an_execution_for_a_limit() {
    let mut bench = flow(TOOL).run();
    let message = "it was active for 5s".to_owned();
    bench.input(Input::LimitExceeded {
        limit: "active_time",
        message,
    });
    assert_eq!(
        (limit(&bench), bench.asked()),
        ("active_time", vec!["abort 0".to_owned()])
    );
    assert_eq!(bench.failure(), "limit active_time exceeded: it was active for 5s");
}

#[test]
fn what_waits_keeps_its_order_when_a_limit_is_met() {
    let limits = Limits {
        broadcasts: 2,
        ..Limits::default()
    };
    let nodes = "  A: {node_type: tool, event_triggers: [START], tool_name: t, event_emissions: [{signal_name: DONE}]}";
    let mut bench = flow(nodes).depth_first().limits(limits).run();
    bench.broadcast(&["X"]).unwrap();
    bench.broadcast(&["Y"]).unwrap();
    bench.returned(1, json!(1));
    assert_eq!((limit(&bench), bench.signals().as_str()), ("broadcasts", "START DONE"));
    bench.try_resume(Some(Limits::default())).unwrap();
    assert_eq!(bench.signals(), "START DONE X Y");
}

#[test]
fn batches_that_wait_for_a_depth_first_run_are_bounded() {
    let mut bench = flow(TOOL).depth_first().run();
    for _ in 0..10_000 {
        bench.broadcast(&["X"]).unwrap();
    }
    let refused = bench.broadcast(&["X"]).unwrap_err();
    assert!(matches!(refused, MachineError::TooManyAccepted), "{refused}");
    assert_eq!(bench.machine.state().work.accepted.len(), 10_000);
}

#[test]
fn a_loop_over_many_conditions_lets_the_driver_in_sooner() {
    let emissions = "{signal_name: X}, ".repeat(1_600) + "{signal_name: START}";
    let node = format!("  A: {{node_type: router, event_triggers: [START], event_emissions: [{emissions}]}}");
    let bench = flow(&node).run();
    assert_eq!(bench.asked(), ["continue"]);
    assert_eq!(bench.runs("A"), 10);
}
