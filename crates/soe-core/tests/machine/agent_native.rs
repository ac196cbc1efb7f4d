//! agent nodes whose LLM calls tools natively; and what nobody waits for.

use serde_json::json;
use soe_backends::{Stage, Value};
use soe_core::machine::{AnswerContent, Input, Outcome};
use soe_core::tools::ToolSpec;

use crate::agent::{agent, calls, native, tool_answer};
use crate::asking::output;
use crate::flow;

#[test]
fn native_calls_run_in_parallel_and_are_awaited_all() {
    let mut bench = native("").run();
    assert_eq!(bench.asked(), ["ask 1.1 turn"]);
    bench.replied(
        1,
        1,
        calls(&[("c1", "t", r#"{"n": 1}"#), ("", "t", " "), ("c3", "t", "{}")]),
    );
    assert_eq!(bench.asked(), [r#"tool 1.0 t{"n":1}"#, "tool 1.1 t{}", "tool 1.2 t{}"]);
    bench.tool_answered(1, 1, Ok(json!("b")));
    bench.tool_answered(1, 0, Err("boom"));
    assert_eq!((bench.asked().len(), bench.progress(1)), (0, (1, 1, vec![2])));
    bench.discards(tool_answer(1, 1, Ok(json!("again"))));
    bench.discards(tool_answer(1, 3, Ok(json!("never called"))));
    bench.recover();
    assert_eq!(bench.asked(), ["tool 1.2 t{}"], "what was answered isn't called again");
    bench.tool_answered(1, 2, Ok(json!(null)));
    assert_eq!(
        (bench.asked(), bench.progress(1)),
        (vec!["ask 1.2 turn".to_owned()], (2, 1, vec![]))
    );
    let expected = [
        r#"called 0/1 c1 t {"n":1}"#,
        "called 1/1 call_1 t {}",
        "called 2/1 c3 t {}",
        "answered 1 t b",
        "failed 0 t boom",
        "answered 2 t null",
    ];
    assert_eq!(
        (bench.entries(1), bench.used()),
        (expected.map(str::to_owned).to_vec(), [2, 3, 1, 0])
    );
    bench.replied(1, 2, calls(&[("", "t", "{}")]));
    assert_eq!(bench.asked(), ["tool 1.3 t{}"]);
    assert_eq!(bench.entries(1)[6..], ["called 3/2 call_3 t {}"]);
}

#[test]
fn native_calls_that_cannot_be_made_are_answered_at_once() {
    let mut bench = native(", retries: 2").run();
    let text = "let me see".into();
    let AnswerContent::ToolCalls { calls: requests, .. } = calls(&[("", "other", "{}"), ("", "t", "{broken")]) else {
        unreachable!()
    };
    let calls = requests;
    bench.replied(1, 1, AnswerContent::ToolCalls { text, calls });
    assert_eq!(
        (bench.asked(), bench.progress(1)),
        (vec!["ask 1.2 turn".to_owned()], (2, 2, vec![]))
    );
    let entries = bench.entries(1);
    assert_eq!(entries[0], "said let me see");
    assert_eq!(entries[2], "failed 0 other there is no tool 'other'; there are: t");
    assert_eq!(entries[3], r#"called 1/1 call_1 t "{broken""#);
    assert!(
        entries[4].starts_with("failed 1 t the arguments are no JSON: "),
        "{entries:?}"
    );
    assert_eq!(bench.used(), [2, 0, 2, 0]);
}

#[test]
fn native_arguments_are_checked() {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let mut bench = native("")
        .tool(|tool| *tool = ToolSpec::new("t", "", schema).unwrap())
        .run();
    let deep = format!("{{\"n\": {}1{}}}", "[".repeat(110), "]".repeat(110));
    bench.replied(
        1,
        1,
        calls(&[("", "t", "{}"), ("", "t", &deep), ("", "t", r#"{"n": 5}"#)]),
    );
    assert_eq!(
        (bench.asked(), bench.progress(1)),
        (vec![r#"tool 1.2 t{"n":5}"#.to_owned()], (1, 2, vec![2]))
    );
    let entries = bench.entries(1);
    assert_eq!(entries[1], "failed 0 t Tool 't': missing required parameter: n");
    assert!(
        entries[3].starts_with("failed 1 t the arguments nest deeper than 100 levels"),
        "{entries:?}"
    );
}

#[test]
fn more_than_64_native_calls_are_not_made() {
    let mut bench = native("").run();
    bench.replied(1, 1, calls(&[("", "t", "{}"); 66]));
    assert_eq!((bench.asked().len(), bench.progress(1).1), (64, 1));
    assert_eq!(
        bench.entries(1).last().unwrap(),
        "error 66 calls in one turn: only the first 64 were made"
    );
}

#[test]
fn long_results_are_clipped() {
    let mut bench = native("").run();
    bench.replied(1, 1, calls(&[("", "t", "{}"), ("", "t", "{}")]));
    bench.tool_answered(1, 0, Ok(json!("x".repeat(300_000))));
    bench.tool_answered(1, 1, Err(&"y".repeat(300_000)));
    let long: Vec<_> = bench.entries(1)[2..].iter().map(String::len).collect();
    assert!(
        long.iter().all(|length| (262_000..263_000).contains(length)),
        "{long:?}"
    );
    let told = serde_json::to_string(&bench.commits[2].events).unwrap();
    assert!(told.len() < 2_000, "{}", told.len());
}

#[test]
fn a_native_answer_may_be_the_output() {
    let mut bench = native("").run();
    bench.replied(1, 1, output(json!(5)));
    assert_eq!((bench.history("out"), bench.used()), (json!([5]), [1, 0, 0, 0]));
}

#[test]
fn what_comes_after_the_end_is_discarded() {
    for end in [
        Input::Cancel { execution: 0 },
        Input::LimitExceeded {
            limit: "active_time",
            message: "5s".to_owned(),
        },
    ] {
        let mut bench = native("").run();
        bench.replied(1, 1, calls(&[("", "t", "{}"), ("", "t", "{}")]));
        bench.input(end);
        assert_eq!(bench.asked(), ["abort 0"]);
        bench.discards(tool_answer(1, 0, Ok(json!(1))));
    }
    let mut bench = agent("").run();
    bench.discards(tool_answer(1, 0, Ok(json!(1))));
    bench.discards(bench.completed(1, 1, Outcome::Tool(Ok(Value::Null))));
}

#[test]
fn depth_first_waits_for_all_of_a_turn() {
    let nodes = "  A: {node_type: agent, event_triggers: [START], prompt: p, llm: native, tools: [t],
    event_emissions: [{signal_name: A1}]}
  B: {node_type: tool, event_triggers: [START], tool_name: t, event_emissions: [{signal_name: B1}]}
  C: {node_type: tool, event_triggers: [A1], tool_name: t, event_emissions: [{signal_name: C1}]}";
    let mut bench = flow(nodes).depth_first().run();
    bench.replied(1, 1, calls(&[("", "t", "{}"), ("", "t", "{}")]));
    bench.tool_answered(1, 1, Ok(json!(1)));
    bench.tool_answered(1, 0, Ok(json!(1)));
    assert_eq!(
        (bench.asked(), bench.dialogue(1).question.stage),
        (vec!["ask 1.2 turn".to_owned()], Stage::Turn)
    );
    bench.replied(1, 2, output(json!(1)));
    assert_eq!(bench.asked(), ["call 2.1"]);
    bench.returned(2, json!(1));
    bench.returned(3, json!(1));
    assert_eq!(bench.signals(), "START A1 C1 B1");
}

#[test]
fn a_native_agent_without_tools_is_told_so() {
    let node = "  A: {node_type: agent, event_triggers: [START], prompt: p, llm: native, tools: [missing]}";
    for tools in [node.to_owned(), node.replace(", tools: [missing]", "")] {
        let mut bench = flow(&tools).run();
        bench.replied(1, 1, calls(&[("", "t", "{}")]));
        let told = "failed 0 t there is no tool 't': this task has no tools";
        assert_eq!(
            (&*bench.entries(1)[1], bench.asked()),
            (told, vec!["ask 1.2 turn".to_owned()])
        );
    }
}
