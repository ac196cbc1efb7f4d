//! Going on with what has failed, transition by transition.

use serde_json::json;
use soe_backends::{Limits, Status};
use soe_core::machine::{AnswerContent, MachineError};

use crate::agent::{agent, calls, native};
use crate::asking::{invalid, limited, output};
use crate::flow;

fn arguments() -> AnswerContent {
    AnswerContent::Arguments(json!({}))
}

fn tool(name: &str) -> AnswerContent {
    let name = name.into();
    AnswerContent::CallTool { name }
}

#[test]
fn an_agent_that_failed_too_often_decides_anew_and_keeps_what_it_has() {
    let mut bench = agent(", retries: 0").run();
    bench.replied(1, 1, tool("t"));
    bench.replied(1, 2, arguments());
    bench.tool_answered(1, 0, Err("boom"));
    bench.tool_answered(1, 0, Err("boom"));
    assert_eq!(bench.status(), Status::Failed);
    bench.reload();
    bench.resume();
    assert_eq!(
        bench.asked(),
        ["ask 1.3 router"],
        "another request, not the last one again"
    );
    bench.replied(1, 3, AnswerContent::Finish);
    bench.replied(1, 4, output(json!("done")));
    assert_eq!(
        (bench.signals().as_str(), bench.status()),
        ("START DONE", Status::Rested)
    );
}

#[test]
fn turns_and_rejected_replies_count_anew() {
    let mut bench = native(", max_turns: 1, retries: 0").run();
    bench.replied(1, 1, calls(&[("a", "t", "{}")]));
    assert_eq!(bench.status(), Status::Failed, "it calls tools in its last turn");
    bench.resume();
    bench.replied(1, 2, invalid("no JSON"));
    assert_eq!(bench.status(), Status::Failed);
    bench.resume();
    assert_eq!(bench.dialogue(1).rejected.len(), 0);
    bench.replied(1, 3, output(json!("done")));
    assert_eq!(
        (bench.signals().as_str(), bench.status()),
        ("START DONE", Status::Rested)
    );
}

#[test]
fn a_request_that_was_denied_is_asked_for_again() {
    let mut bench = agent("").limits(limited(0)).run();
    assert_eq!(bench.status(), Status::Failed);
    bench.try_resume(Some(Limits::default())).unwrap();
    assert_eq!(bench.asked(), ["ask 1.1 router"]);
}

#[test]
fn only_the_run_that_has_failed_gets_its_attempts_back() {
    let two = "  A: {node_type: llm, event_triggers: [START], prompt: a, retries: 1}
  B: {node_type: llm, event_triggers: [START], prompt: b, retries: 0}";
    let mut bench = flow(two).run();
    bench.replied(1, 1, invalid("no JSON"));
    bench.replied(2, 1, invalid("no JSON"));
    assert_eq!(bench.status(), Status::Failed);
    bench.resume();
    assert_eq!(
        bench.asked(),
        ["ask 1.2 llm", "ask 2.2 llm"],
        "A asks again what was in flight"
    );
    bench.replied(1, 2, invalid("no JSON"));
    assert_eq!(bench.status(), Status::Failed, "A had one retry");
    bench.cancel();
    let refused = bench.try_resume(None);
    assert!(matches!(refused, Err(MachineError::NotAccepting(Status::Cancelled))));
}

#[test]
fn batches_and_nodes_that_a_limit_kept_waiting_go_on() {
    let two = "  A: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: B}]}
  B: {node_type: router, event_triggers: [B], event_emissions: [{signal_name: C}]}";
    let one = Limits {
        broadcasts: 1,
        ..Limits::default()
    };
    let mut bench = flow(two).limits(one).run();
    assert_eq!((bench.signals().as_str(), bench.status()), ("START", Status::Failed));
    let runs = Limits {
        runs: 1,
        ..Limits::default()
    };
    bench.try_resume(Some(runs)).unwrap();
    assert_eq!((bench.signals().as_str(), bench.status()), ("START B", Status::Failed));
    bench.try_resume(Some(Limits::default())).unwrap();
    assert_eq!(
        (bench.signals().as_str(), bench.status()),
        ("START B C", Status::Rested)
    );
}
