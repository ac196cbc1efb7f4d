//! llm nodes under limits, after crashes and after the end; and requests that custom nodes make by themselves.

use serde_json::json;
use soe_backends::{Awaits, Limits, Status, Usage};
use soe_core::machine::{Input, LlmAnswer, MachineError, Outcome};

use crate::asking::{invalid, limited, llm, output};
use crate::flow;

#[test]
fn what_nobody_waits_for_is_discarded() {
    let completed = |call, content| Input::Completed {
        execution: 0,
        run: 1,
        attempt: call,
        outcome: Outcome::Llm(Ok(LlmAnswer {
            content,
            usage: Some(Usage::default()),
            warnings: Vec::new(),
        })),
    };
    let mut bench = llm(", retries: 1").run();
    bench.discards(completed(2, output(json!(1))));
    bench.discards(completed(0, output(json!(1))));
    bench.replied(1, 1, invalid("no JSON"));
    bench.discards(completed(1, output(json!(1))));
    bench.replied(1, 2, invalid("no JSON"));
    assert_eq!(bench.status(), Status::Failed);
    bench.discards(completed(2, output(json!(1))));
    let mut bench = llm("").run();
    bench.cancel();
    bench.discards(completed(1, output(json!(1))));
}

#[test]
fn the_limit_on_requests_is_exact() {
    let mut bench = llm(", retries: 5").limits(limited(2)).run();
    assert_eq!(
        (bench.asked(), bench.used()),
        (vec!["ask 1.1 llm".to_owned()], [1, 0, 0, 0])
    );
    bench.replied(1, 1, invalid("no JSON"));
    assert_eq!(
        (bench.asked(), bench.used()),
        (vec!["ask 1.2 llm".to_owned()], [2, 0, 1, 0])
    );
    bench.replied(1, 2, invalid("no JSON"));
    let message = "node 'A': limit llm_calls exceeded: all 2 requests to LLMs were made";
    assert_eq!((bench.status(), bench.failure().as_str()), (Status::Failed, message));
    assert_eq!(
        bench.state().failure.as_ref().unwrap().limit.as_deref(),
        Some("llm_calls")
    );
    assert_eq!((bench.dialogue(1).awaits, bench.dialogue(1).calls), (Awaits::Grant, 2));
    bench.try_resume(Some(limited(3))).unwrap();
    assert_eq!(
        (bench.asked(), bench.used()),
        (vec!["ask 1.3 llm".to_owned()], [3, 0, 2, 0])
    );
    bench.replied(1, 3, output(json!(1)));
    assert_eq!(bench.status(), Status::Rested);
}

#[test]
fn requests_of_one_event_share_what_is_left() {
    let node = |name| {
        format!("  {name}: {{node_type: llm, event_triggers: [START], prompt: p, llm_failure_signal: NO_{name}}}\n")
    };
    let bench = flow(&["A", "B", "C"].map(node).concat()).limits(limited(2)).run();
    assert_eq!((bench.asked().len(), bench.used()), (2, [2, 0, 0, 0]));
    assert_eq!(bench.signals(), "START NO_C", "the first in the file get it");
}

#[test]
fn tokens_are_limited_by_what_was_reported() {
    let limits = Limits {
        tokens: Some(9),
        ..Limits::default()
    };
    let mut bench = llm(", retries: 5, llm_failure_signal: FAILED").limits(limits).run();
    let reply = |tokens| LlmAnswer {
        content: invalid("no JSON"),
        usage: Some(Usage {
            prompt_tokens: tokens,
            completion_tokens: 0,
        }),
        warnings: Vec::new(),
    };
    bench.answered(1, 1, Ok(reply(8)));
    assert_eq!(bench.asked(), ["ask 1.2 llm"]);
    bench.answered(1, 2, Ok(reply(1)));
    assert_eq!((bench.signals().as_str(), bench.used()), ("START FAILED", [2, 0, 2, 9]));
}

#[test]
fn a_denied_request_fails_its_node() {
    let bench = llm(", llm_failure_signal: FAILED").limits(limited(0)).run();
    assert_eq!((bench.signals().as_str(), bench.used()), ("START FAILED", [0, 0, 0, 0]));
    assert_eq!((bench.status(), bench.commits.len()), (Status::Rested, 1));
    let bench = llm("").limits(limited(0)).run();
    let message = "node 'A': limit llm_calls exceeded: all 0 requests to LLMs were made";
    assert_eq!((bench.status(), bench.failure().as_str()), (Status::Failed, message));
}

#[test]
fn a_denial_goes_on_with_the_cascade() {
    let bench = flow(
        "  A: {node_type: llm, event_triggers: [START], prompt: p, llm_failure_signal: FAILED}
  B: {node_type: router, event_triggers: [FAILED], event_emissions: [{signal_name: HEARD}]}",
    )
    .limits(limited(0))
    .run();
    assert_eq!(
        (bench.signals().as_str(), bench.status()),
        ("START FAILED HEARD", Status::Rested)
    );
}

#[test]
fn recovery_asks_the_same_again() {
    let mut bench = llm("").limits(limited(4)).run();
    bench.recover();
    assert_eq!(
        (bench.asked(), bench.used()),
        (vec!["ask 1.1 llm".to_owned()], [2, 0, 0, 0])
    );
    bench.replied(1, 1, invalid("no JSON"));
    bench.recover();
    assert_eq!(
        (bench.asked(), bench.used()),
        (vec!["ask 1.2 llm".to_owned()], [4, 0, 1, 0])
    );
    assert_eq!(&*bench.request().prompt, "n is 1");
    assert_eq!(*bench.request().run, *bench.run_of(1));
    bench.recover();
    assert_eq!(
        bench.status(),
        Status::Failed,
        "what may have reached the endpoint counts"
    );
    bench.try_resume(Some(limited(5))).unwrap();
    bench.replied(1, 2, output(json!(2)));
    assert_eq!(bench.status(), Status::Rested);
}

#[test]
fn nothing_is_kept_of_an_output_that_exceeds_a_limit() {
    let limits = Limits {
        value_bytes: 100,
        ..Limits::default()
    };
    let mut bench = llm(", identity: sage").limits(limits).run();
    bench.replied(1, 1, output(json!("x".repeat(101))));
    let limit = bench.state().failure.as_ref().unwrap().limit.clone();
    assert_eq!(
        (bench.status(), limit.as_deref()),
        (Status::Failed, Some("value_bytes"))
    );
    assert_eq!(
        (bench.history("out"), bench.turns().len(), bench.asked()),
        (json!([]), 0, vec!["abort 0".to_owned()])
    );
    assert_eq!(bench.run_of(1).number, 1, "it is kept, to be run again");
}

#[test]
fn depth_first_waits_for_each_reply() {
    let two = "  A: {node_type: llm, event_triggers: [START], prompt: a, event_emissions: [{signal_name: A1}]}
  B: {node_type: llm, event_triggers: [START], prompt: b, event_emissions: [{signal_name: B1}]}
  C: {node_type: llm, event_triggers: [A1], prompt: c, event_emissions: [{signal_name: C1}]}";
    let mut bench = flow(two).depth_first().limits(limited(10)).run();
    for run in 1..=3 {
        assert_eq!(bench.asked(), [format!("ask {run}.1 llm")]);
        bench.replied(run, 1, invalid("no JSON"));
        assert_eq!(bench.asked(), [format!("ask {run}.2 llm")]);
        bench.replied(run, 2, output(json!(1)));
    }
    assert_eq!(bench.signals(), "START A1 C1 B1");
}

#[test]
fn what_a_custom_node_asks_is_limited() {
    let mut bench = flow("  A: {node_type: worker, event_triggers: [START]}")
        .limits(limited(1))
        .run();
    bench.input(asked(1));
    let refused = bench.try_input(asked(2)).unwrap_err();
    let message = "limit llm_calls exceeded: all 1 requests to LLMs were made";
    assert!(matches!(&refused, MachineError::Denied(denial) if denial.limit == "llm_calls"));
    assert_eq!((refused.to_string().as_str(), bench.used()), (message, [1, 0, 0, 0]));
    assert_eq!(
        bench.status(),
        Status::Running,
        "the node is told, and does what it likes"
    );
}

/// The custom node of run 1 asks an LLM.
fn asked(call: u32) -> Input {
    let (execution, run) = (0, 1);
    Input::Asked { execution, run, call }
}

fn replied(call: u32, usage: Option<Usage>) -> Input {
    let (execution, run) = (0, 1);
    Input::Replied {
        execution,
        run,
        call,
        usage,
    }
}

#[test]
fn what_a_custom_node_asks_is_counted() {
    let mut bench = flow("  A: {node_type: worker, event_triggers: [START]}").run();
    bench.input(asked(1));
    assert_eq!((bench.last_events(), bench.used()), (vec!["llm_call"], [1, 0, 0, 0]));
    assert_eq!(bench.asked().len(), 0);
    let usage = Some(Usage {
        prompt_tokens: 4,
        completion_tokens: 3,
    });
    bench.input(replied(1, usage));
    assert_eq!((bench.last_events(), bench.used()), (vec!["llm_reply"], [1, 0, 0, 7]));
    bench.input(asked(2));
    bench.input(replied(2, None));
    let called = serde_json::to_value(&bench.commits.last().unwrap().events[0].kind).unwrap();
    assert_eq!(called["data"], json!({"node_name": "A", "run": 1, "call": 2}));
    assert_eq!(bench.state().context.operational.node_tokens.get("A"), Some(&7));
    bench.node(1, Ok(soe_core::nodes::NodeOutput::new()));
    let (before, commits) = (bench.machine.state().clone(), bench.commits.len());
    bench.input(asked(3));
    bench.input(replied(3, usage));
    assert_eq!(
        (bench.machine.state(), bench.commits.len()),
        (&before, commits),
        "nobody counts it any more"
    );
}

#[test]
fn what_a_custom_node_asks_after_a_failure_is_not_counted() {
    let two = "  A: {node_type: worker, event_triggers: [START]}\n  B: {node_type: worker, event_triggers: [START]}";
    let mut bench = flow(two).run();
    bench.node(2, Err("boom"));
    assert_eq!((bench.status(), bench.state().runs.len()), (Status::Failed, 2));
    let (before, commits) = (bench.machine.state().clone(), bench.commits.len());
    bench.input(asked(1));
    bench.input(replied(1, Some(Usage::default())));
    assert_eq!((bench.machine.state(), bench.commits.len()), (&before, commits));
}

#[test]
fn the_kept_exchange_is_about_the_context_of_the_beginning() {
    let two = "  A: {node_type: llm, event_triggers: [START], prompt: 'n is {{ context.n }}', identity: sage}
  B: {node_type: tool, event_triggers: [START], tool_name: t, output_field: n}";
    let mut bench = flow(two).field("n", json!([1])).run();
    bench.returned(2, json!(2));
    bench.replied(1, 1, output(json!("fine")));
    assert_eq!(&*bench.turns()[0].content, "n is 1");
}

#[test]
fn tokens_of_all_requests_add_up() {
    let mut bench = llm("").run();
    for (call, tokens) in [(1, 5), (2, 7)] {
        let usage = Some(Usage {
            prompt_tokens: tokens,
            completion_tokens: 1,
        });
        let content = invalid("no JSON");
        let warnings = Vec::new();
        bench.answered(
            1,
            call,
            Ok(LlmAnswer {
                content,
                usage,
                warnings,
            }),
        );
    }
    let of_node = bench.state().context.operational.node_tokens.get("A").copied();
    assert_eq!((bench.used()[3], of_node, bench.dialogue(1).tokens), (14, Some(14), 14));
}
