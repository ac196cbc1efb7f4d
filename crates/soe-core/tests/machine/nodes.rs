//! Tool nodes and custom nodes.

use serde_json::json;
use soe_backends::Status;
use soe_core::machine::Effect;
use soe_core::nodes::NodeOutput;
use soe_core::tools::ToolSpec;

use crate::flow;

const TOOL: &str = "  A: {node_type: tool, event_triggers: [START], tool_name: t, output_field: out,
    event_emissions: [{signal_name: DONE}]}";
const CUSTOM: &str = "  A: {node_type: worker, event_triggers: [START], event_emissions: [{signal_name: DONE}]}";

#[test]
fn a_tool_writes_emits_and_is_counted() {
    let mut bench = flow(TOOL).run();
    assert_eq!(
        (bench.asked(), bench.arguments()),
        (vec!["call 1.1".to_owned()], json!({}))
    );
    bench.returned(1, json!({"x": [1]}));
    assert_eq!(bench.history("out"), json!([{"x": [1]}]));
    assert_eq!((bench.signals().as_str(), bench.counters()), ("START DONE", [1, 0]));
    assert_eq!(bench.status(), Status::Rested);
    let told = [
        "node_finished",
        "context_updated",
        "signals_broadcast",
        "execution_rested",
    ];
    assert_eq!(bench.last_events(), told);
}

#[test]
fn null_is_not_written_but_the_signals_are_emitted() {
    let mut bench = flow(TOOL).run();
    bench.returned(1, json!(null));
    assert_eq!(
        (bench.history("out"), bench.signals().as_str()),
        (json!([]), "START DONE")
    );
}

#[test]
fn a_failure_is_written_as_text_and_sends_the_tools_failure_signal() {
    for (signal, signals) in [(Some("FAILED"), "START FAILED"), (None, "START")] {
        let mut bench = flow(TOOL)
            .tool(|tool| tool.failure_signal = signal.map(Into::into))
            .run();
        bench.failed(1, 1, true);
        assert_eq!(
            (bench.history("out"), bench.signals().as_str()),
            (json!(["boom"]), signals)
        );
        assert_eq!((bench.status(), bench.counters()), (Status::Rested, [1, 1]));
    }
}

#[test]
fn retries_are_attempts_of_the_same_run() {
    let mut bench = flow(TOOL).tool(|tool| tool.max_retries = 2).run();
    bench.failed(1, 1, true);
    assert_eq!(bench.asked(), ["call 1.2"]);
    bench.failed(1, 1, true);
    assert_eq!(bench.last_events(), ["completion_discarded"]);
    bench.failed(1, 2, true);
    assert_eq!(bench.asked(), ["call 1.3"]);
    bench.failed(1, 3, true);
    assert_eq!((bench.history("out"), bench.counters()), (json!(["boom"]), [1, 3]));
    assert_eq!((bench.runs("A"), bench.status()), (1, Status::Rested));
}

#[test]
fn what_is_not_retryable_is_not_tried_again() {
    let mut bench = flow(TOOL).tool(|tool| tool.max_retries = 2).run();
    bench.failed(1, 1, false);
    assert_eq!((bench.asked().len(), bench.counters()), (0, [1, 1]));
}

#[test]
fn a_condition_sees_the_result_and_the_context_with_it() {
    let mut bench = flow(
        "  A: {node_type: tool, event_triggers: [START], tool_name: t, output_field: out, event_emissions: [
    {signal_name: RESULT, condition: '{{ result.n == 2 }}'}, {signal_name: CONTEXT, condition: '{{ context.out.n == 2 }}'},
    {signal_name: OTHER, condition: '{{ result.n == 3 }}'}, {signal_name: TEXT, condition: any text}]}",
    )
    .run();
    bench.returned(1, json!({"n": 2}));
    assert_eq!(bench.signals(), "START RESULT CONTEXT TEXT");
}

#[test]
fn arguments_are_those_of_the_snapshot_also_when_tried_again() {
    let mut bench = flow(
        "  A: {node_type: tool, event_triggers: [START], tool_name: t, parameters: {n: '{{ context.n }}', m: 'n={{ context.n }}'}}
  B: {node_type: tool, event_triggers: [START], tool_name: t, output_field: n}",
    )
    .field("n", json!([1]))
    .tool(|tool| tool.max_retries = 1)
    .run();
    bench.returned(2, json!(2));
    bench.failed(1, 1, true);
    assert_eq!(bench.arguments(), json!({"n": 1, "m": "n=1"}));
}

#[test]
fn wrong_arguments_are_a_failure_without_a_call() {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let mut bench = flow(TOOL)
        .tool(|tool| {
            *tool = ToolSpec::new("t", "", schema).unwrap();
            tool.max_retries = 3;
        })
        .run();
    assert_eq!(bench.asked(), ["complete 1.1"]);
    bench.complete_known();
    assert_eq!(bench.history("out"), json!(["Tool 't': missing required parameter: n"]));
    assert_eq!(bench.counters(), [1, 1]);
}

#[test]
fn a_wrong_argument_that_comes_from_a_missing_field_says_so() {
    let schema =
        json!({"type": "object", "properties": {"file": {"type": "string"}, "note": {}, "n": {"type": "string"}}});
    let mut bench = flow(
        "  A: {node_type: tool, event_triggers: [START], tool_name: t, output_field: out,
      parameters: {file: '{{ context.file }}', note: null, n: 'n={{ context.file }}'}}",
    )
    .tool(|tool| *tool = ToolSpec::new("t", "", schema).unwrap())
    .run();
    bench.complete_known();
    assert_eq!(
        bench.history("out"),
        json!(["Tool 't': parameter 'file': null is not of type \"string\"; '{{ context.file }}' gave null"])
    );
}

#[test]
fn a_tool_that_is_not_registered_fails_its_node() {
    let mut bench = flow("  A: {node_type: tool, event_triggers: [START], tool_name: other, output_field: out}").run();
    bench.complete_known();
    assert_eq!(
        bench.history("out"),
        json!(["tool 'other' is not registered with this engine"])
    );
}

#[test]
fn a_context_field_gives_the_arguments() {
    let nodes =
        "  A: {node_type: tool, event_triggers: [START], tool_name: t, context_parameter_field: f, output_field: out}";
    let arguments = |history| flow(nodes).field("f", history).run().arguments();
    assert_eq!(flow(nodes).run().arguments(), json!({}));
    assert_eq!(arguments(json!([1, {"a": 1}])), json!({"a": 1}));
    assert_eq!(arguments(json!(["{\"a\": [1, null]}"])), json!({"a": [1, null]}));
    assert_eq!(arguments(json!(["a: x\nb: 2"])), json!({"a": "x", "b": 2}));
    for (value, error) in [
        (json!("a: [1"), "context field 'f' is not YAML or JSON"),
        (
            json!([1]),
            "takes an object of arguments, but got a value of type array",
        ),
        (
            json!("text"),
            "takes an object of arguments, but got a value of type string",
        ),
    ] {
        let mut bench = flow(nodes).field("f", json!([value])).run();
        bench.complete_known();
        let written = bench.history("out")[0].as_str().unwrap().to_owned();
        assert!(written.contains(error), "{written}");
    }
}

#[test]
fn a_tool_that_processes_the_accumulated_takes_the_history() {
    let nodes = "  A: {node_type: tool, event_triggers: [START], tool_name: t, context_parameter_field: f}";
    let arguments = |history| {
        flow(nodes)
            .tool(|tool| tool.process_accumulated = true)
            .field("f", history)
            .run()
            .arguments()
    };
    assert_eq!(arguments(json!([1, {"a": 2}])), json!([1, {"a": 2}]));
    assert_eq!(arguments(json!([[1, 2]])), json!([[1, 2]]));
    assert_eq!(arguments(json!([])), json!([]));
}

#[test]
fn what_cannot_be_evaluated_leaves_warnings() {
    let mut bench = flow(
        "  A: {node_type: tool, event_triggers: [START], tool_name: t, parameters: {a: ['{{ 1 / 0 }}']},
    event_emissions: [{signal_name: BAD, condition: '{{ 1 / 0 }}'}, {signal_name: GOOD}]}",
    )
    .run();
    assert_eq!(bench.arguments(), json!({"a": ["{{ 1 / 0 }}"]}));
    bench.returned(1, json!(1));
    assert_eq!(bench.signals(), "START GOOD");
    let [parameter, condition] = bench.warnings()[..] else {
        panic!("{:?}", bench.warnings());
    };
    assert!(
        parameter.starts_with("parameter 'a[0]' is passed unrendered: "),
        "{parameter}"
    );
    assert!(
        condition.starts_with("the condition of signal 'BAD' counts as false: "),
        "{condition}"
    );
}

#[test]
fn a_custom_node_writes_and_emits() {
    for (output, signals) in [
        (NodeOutput::new(), "START DONE"),
        (NodeOutput::new().emit("X").emit("Y"), "START X Y"),
        (NodeOutput::new().emit_all([""; 0]), "START"),
    ] {
        let mut bench = flow(CUSTOM).field("a", json!([0])).run();
        match &bench.effects[..] {
            [Effect::RunNode(run)] => assert_eq!(run.context.value("a"), Some(&0.into())),
            other => panic!("{other:?}"),
        }
        bench.node(1, Ok(output.write("a", 1).write("b", "x").write("a", 2).write("b", ())));
        assert_eq!(
            (bench.history("a"), bench.history("b")),
            (json!([0, 1, 2]), json!(["x"]))
        );
        assert_eq!((bench.signals().as_str(), bench.counters()), (signals, [0, 0]));
    }
}

#[test]
fn a_custom_node_may_not_write_or_emit_everything() {
    for (output, error) in [
        (NodeOutput::new().write("__operational__", 1), "belong to the engine"),
        (NodeOutput::new().emit(""), "empty name"),
    ] {
        let mut bench = flow(CUSTOM).run();
        bench.node(1, Ok(output.write("a", 1)));
        assert_eq!((bench.status(), bench.history("a")), (Status::Failed, json!([])));
        assert!(bench.failure().contains(error), "{}", bench.failure());
    }
}

#[test]
fn a_custom_nodes_failure_fails_the_execution() {
    let two = format!("{CUSTOM}\n  B: {{node_type: tool, event_triggers: [START], tool_name: t, output_field: out}}");
    let mut bench = flow(&two).run();
    bench.node(1, Err("boom"));
    assert_eq!(
        (bench.status(), bench.failure().as_str()),
        (Status::Failed, "node 'A': boom")
    );
    assert_eq!(bench.asked(), ["abort 0"]);
    assert_eq!(bench.state().runs.len(), 2, "both are kept, to be run again");

    bench.returned(2, json!(1));
    assert_eq!(
        (bench.last_events(), bench.history("out")),
        (vec!["completion_discarded"], json!([]))
    );
    let refused = bench.broadcast(&["START"]).unwrap_err();
    assert_eq!(refused.to_string(), "the execution is failed and takes no signals");
}

#[test]
fn a_custom_nodes_failure_signal_goes_on() {
    let mut bench =
        flow("  A: {node_type: worker, event_triggers: [START], failure_signal: FAILED, event_emissions: [{signal_name: DONE}]}")
            .run();
    bench.node(1, Err("boom"));
    assert_eq!((bench.signals().as_str(), bench.counters()), ("START FAILED", [0, 1]));
    assert_eq!(bench.status(), Status::Rested);
}
