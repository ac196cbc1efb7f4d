//! Small data that stands for huge data, and data that nests without end: who copies it, or recurses into it, must not.

use serde_json::{Value as Json, json};
use soe_backends::{Limits, Status, Value};
use soe_core::machine::{Input, MachineError};
use soe_core::nodes::NodeOutput;

use crate::flow;

const REPEAT: &str = r#"  A: {node_type: tool, event_triggers: [START], tool_name: t, output_field: out,
    parameters: {p: "{{ [context.f] * 400000 }}"}, event_emissions: [{signal_name: DONE}]}"#;
const WRAP: &str = r#"  A: {node_type: tool, event_triggers: [START], tool_name: t, output_field: out,
    parameters: {p: "{{ [context.out] }}"}, event_emissions: [{signal_name: START}]}"#;
const CUSTOM: &str = "  A: {node_type: _mine, event_triggers: [START]}";

fn nested(levels: usize) -> Value {
    (0..levels).fold(Value::Null, |value, _| Value::list([value]))
}

#[test]
fn arguments_that_repeat_a_large_value_are_an_error_before_they_are_copied() {
    for field in [json!("x".repeat(1_000_000)), json!(vec![0; 100_000])] {
        let mut bench = flow(REPEAT).field("f", json!([field])).run();
        bench.complete_known();
        let error = "the arguments of tool 't' exceed the limit value_bytes of 67108864 bytes";
        assert_eq!(bench.history("out"), json!([error]));
        assert_eq!(bench.status(), Status::Rested);
    }
}

#[test]
fn a_loop_that_wraps_what_its_tool_returns_ends() {
    let mut bench = flow(WRAP).run();
    for run in 1..=Value::MAX_DEPTH as u64 {
        let Json::Object(mut arguments) = bench.arguments() else {
            panic!("arguments are an object");
        };
        bench.returned(run, arguments["p"].take());
    }
    assert_eq!(bench.status(), Status::Running);
    let mut arguments = bench.arguments();
    bench.returned(Value::MAX_DEPTH as u64 + 1, arguments["p"].take());
    assert_eq!(bench.status(), Status::Rested);
    let last = bench.history("out")[Value::MAX_DEPTH].clone();
    assert_eq!(last, json!("the result of tool 't' is nested deeper than 100 levels"));
}

#[test]
fn what_nests_too_deep_is_refused_wherever_it_comes_from() {
    let mut setup = flow(CUSTOM);
    setup
        .start
        .fields
        .push(("deep".into(), [nested(Value::MAX_DEPTH + 1)].into_iter().collect()));
    let error = setup.try_run().err().unwrap();
    assert!(
        matches!(&error, MachineError::TooDeep(field) if field.as_ref() == "deep"),
        "{error}"
    );

    let mut bench = flow(CUSTOM).run();
    bench.node(1, Ok(NodeOutput::new().write("f", nested(Value::MAX_DEPTH + 1))));
    assert_eq!(
        bench.failure(),
        "node 'A': what it wrote to field 'f' is nested deeper than 100 levels"
    );

    let mut bench = flow(CUSTOM).run();
    bench.node(1, Ok(NodeOutput::new().write("f", nested(Value::MAX_DEPTH))));
    assert_eq!(bench.status(), Status::Rested);
}

#[test]
fn a_small_value_that_stands_for_a_huge_one_is_over_the_limit_at_once() {
    let doubled = (0..90).fold(Value::Null, |value, _| Value::list([value.clone(), value]));
    let mut bench = flow(CUSTOM).run();
    bench.node(1, Ok(NodeOutput::new().write("f", doubled)));
    assert_eq!(
        bench.state().failure.as_ref().unwrap().limit.as_deref(),
        Some("value_bytes")
    );
}

#[test]
fn a_loop_that_emits_many_signals_at_a_time_ends_before_they_fill_the_memory() {
    let emissions: Vec<String> = (0..1_000).map(|i| format!("{{signal_name: S{i}}}")).collect();
    let node = format!(
        "  A: {{node_type: router, event_triggers: [START, S0], event_emissions: [{}]}}",
        emissions.join(", ")
    );
    let limits = Limits {
        context_bytes: 1_000_000,
        ..Limits::default()
    };
    let mut bench = flow(&node).limits(limits).run();
    while bench.status() == Status::Running {
        bench.input(Input::Continue);
    }
    let failure = bench.state().failure.as_ref().unwrap();
    assert_eq!(failure.limit.as_deref(), Some("context_bytes"), "{failure}");
    assert!(bench.state().context.operational.signals.len() <= 62_500);
}
