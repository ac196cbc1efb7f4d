//! llm nodes under limits, after crashes and after the end; and requests that custom nodes make by themselves.

use std::sync::Arc;

use serde_json::json;
use soe_backends::{Awaits, Limits, Status, Usage};
use soe_core::machine::{Input, LlmAnswer, Outcome};

use crate::asking::{denial, invalid, limited, llm, output};
use crate::flow;

#[test]
fn what_nobody_waits_for_is_discarded() {
    let completed = |call, content| Input::Completed {
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
    bench.discards(Input::Granted {
        run: 1,
        call: 2,
        denied: None,
    });
    bench.discards(Input::Granted {
        run: 1,
        call: 1,
        denied: Some(denial()),
    });
    bench.replied(1, 1, invalid("no JSON"));
    bench.discards(completed(1, output(json!(1))));
    bench.replied(1, 2, invalid("no JSON"));
    assert_eq!(bench.status(), Status::Failed);
    bench.discards(completed(2, output(json!(1))));
    let mut bench = llm("").run();
    bench.input(Input::Cancel);
    bench.discards(completed(1, output(json!(1))));
}

#[test]
fn a_limit_is_asked_for_before_each_request() {
    for limits in [
        limited(),
        Limits {
            tokens: Some(9),
            ..Limits::default()
        },
    ] {
        let mut bench = llm("").limits(limits).run();
        assert_eq!((bench.asked(), bench.used()), (vec!["reserve 1.1".to_owned()], [0; 4]));
        assert_eq!(bench.dialogue(1).awaits, Awaits::Grant);
        bench.discards(Input::Granted {
            run: 1,
            call: 2,
            denied: None,
        });
        bench.granted(1, 1, None);
        assert_eq!(
            (bench.asked(), bench.last_events()),
            (vec!["ask 1.1 llm".to_owned()], vec!["llm_call"])
        );
        bench.replied(1, 1, invalid("no JSON"));
        assert_eq!(
            (bench.asked(), bench.used()),
            (vec!["reserve 1.2".to_owned()], [1, 0, 1, 0])
        );
        bench.granted(1, 2, None);
        assert_eq!(bench.dialogue(1).rejected.len(), 1);
        bench.replied(1, 2, output(json!(2)));
        assert_eq!((bench.used(), bench.status()), ([2, 0, 1, 0], Status::Rested));
    }
}

#[test]
fn a_denied_request_fails_its_node() {
    let mut bench = llm(", llm_failure_signal: FAILED").limits(limited()).run();
    bench.granted(1, 1, Some(denial()));
    assert_eq!((bench.signals().as_str(), bench.used()), ("START FAILED", [0, 0, 0, 0]));
    assert_eq!(bench.status(), Status::Rested);
    let mut bench = llm("").limits(limited()).run();
    bench.granted(1, 1, Some(denial()));
    let message = "node 'A': limit llm_calls exceeded: all 10 requests to LLMs were made";
    assert_eq!((bench.status(), bench.failure().as_str()), (Status::Failed, message));
    assert_eq!(
        bench.machine.state().failure.as_ref().unwrap().limit.as_deref(),
        Some("llm_calls")
    );
    assert_eq!((bench.dialogue(1).awaits, bench.dialogue(1).calls), (Awaits::Grant, 0));
    bench.discards(Input::Granted {
        run: 1,
        call: 1,
        denied: None,
    });
}

#[test]
fn a_denial_goes_on_with_the_cascade() {
    let listener = "\n  B: {node_type: router, event_triggers: [FAILED], event_emissions: [{signal_name: HEARD}]}";
    let mut setup = flow(&format!(
        "  A: {{node_type: llm, event_triggers: [START], prompt: p, llm_failure_signal: FAILED}}{listener}"
    ));
    setup.start.limits = Arc::new(limited());
    let mut bench = setup.run();
    bench.granted(1, 1, Some(denial()));
    assert_eq!(
        (bench.signals().as_str(), bench.status()),
        ("START FAILED HEARD", Status::Rested)
    );
}

#[test]
fn recovery_asks_the_same_again() {
    let mut bench = llm("").limits(limited()).run();
    bench.recover();
    assert_eq!((bench.asked(), bench.used()), (vec!["reserve 1.1".to_owned()], [0; 4]));
    bench.granted(1, 1, None);
    bench.replied(1, 1, invalid("no JSON"));
    bench.recover();
    assert_eq!(bench.asked(), ["reserve 1.2"]);
    bench.granted(1, 2, None);
    bench.recover();
    assert_eq!(bench.asked(), ["reserve 1.2"], "what was lost has to be allowed again");
    bench.granted(1, 2, None);
    assert_eq!(
        (bench.asked(), bench.used()),
        (vec!["ask 1.2 llm".to_owned()], [3, 0, 1, 0])
    );
    assert_eq!(&*bench.request().prompt, "n is 1");
    assert_eq!(*bench.request().run, *bench.run_of(1));
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
    let limit = bench.machine.state().failure.as_ref().unwrap().limit.clone();
    assert_eq!(
        (bench.status(), limit.as_deref()),
        (Status::Failed, Some("value_bytes"))
    );
    assert_eq!(
        (bench.history("out"), bench.turns().len(), bench.asked()),
        (json!([]), 0, vec!["abort 1".to_owned()])
    );
    assert_eq!(bench.run_of(1).number, 1, "it is kept, to be run again");
}

#[test]
fn depth_first_waits_for_a_grant_and_for_each_reply() {
    let two = "  A: {node_type: llm, event_triggers: [START], prompt: a, event_emissions: [{signal_name: A1}]}
  B: {node_type: llm, event_triggers: [START], prompt: b, event_emissions: [{signal_name: B1}]}
  C: {node_type: llm, event_triggers: [A1], prompt: c, event_emissions: [{signal_name: C1}]}";
    let mut bench = flow(two).depth_first().limits(limited()).run();
    for run in 1..=3 {
        assert_eq!(bench.asked(), [format!("reserve {run}.1")]);
        bench.granted(run, 1, None);
        bench.replied(run, 1, invalid("no JSON"));
        assert_eq!(bench.asked(), [format!("reserve {run}.2")]);
        bench.granted(run, 2, None);
        assert_eq!(bench.asked(), [format!("ask {run}.2 llm")]);
        bench.replied(run, 2, output(json!(1)));
    }
    assert_eq!(bench.signals(), "START A1 C1 B1");
}

#[test]
fn what_a_custom_node_asks_is_counted() {
    let mut bench = flow("  A: {node_type: worker, event_triggers: [START]}").run();
    bench.input(Input::Asked { run: 1, call: 1 });
    assert_eq!((bench.last_events(), bench.used()), (vec!["llm_call"], [1, 0, 0, 0]));
    assert_eq!(bench.asked().len(), 0);
    let usage = Some(Usage {
        prompt_tokens: 4,
        completion_tokens: 3,
    });
    bench.input(Input::Replied { run: 1, call: 1, usage });
    assert_eq!((bench.last_events(), bench.used()), (vec!["llm_reply"], [1, 0, 0, 7]));
    bench.input(Input::Asked { run: 1, call: 2 });
    bench.input(Input::Replied {
        run: 1,
        call: 2,
        usage: None,
    });
    let called = serde_json::to_value(&bench.commits.last().unwrap().events[0].kind).unwrap();
    assert_eq!(called["data"], json!({"node_name": "A", "run": 1, "call": 2}));
    assert_eq!(bench.machine.state().context.operational.node_tokens.get("A"), Some(&7));
    bench.node(1, Ok(soe_core::nodes::NodeOutput::new()));
    let (before, commits) = (bench.machine.state().clone(), bench.commits.len());
    bench.input(Input::Asked { run: 1, call: 3 });
    bench.input(Input::Replied { run: 1, call: 3, usage });
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
    assert_eq!((bench.status(), bench.machine.state().runs.len()), (Status::Failed, 2));
    let (before, commits) = (bench.machine.state().clone(), bench.commits.len());
    bench.input(Input::Asked { run: 1, call: 1 });
    bench.input(Input::Replied {
        run: 1,
        call: 1,
        usage: Some(Usage::default()),
    });
    assert_eq!((bench.machine.state(), bench.commits.len()), (&before, commits));
}

#[test]
fn a_grant_and_the_kept_exchange_are_about_the_context_of_the_beginning() {
    let two = "  A: {node_type: llm, event_triggers: [START], prompt: 'n is {{ context.n }}', identity: sage}
  B: {node_type: tool, event_triggers: [START], tool_name: t, output_field: n}";
    let mut bench = flow(two).field("n", json!([1])).limits(limited()).run();
    bench.returned(2, json!(2));
    bench.granted(1, 1, None);
    assert_eq!(&*bench.request().prompt, "n is 1");
    bench.replied(1, 1, output(json!("fine")));
    assert_eq!(&*bench.turns()[0].content, "n is 1");
}

#[test]
fn a_reply_that_comes_twice_is_discarded_while_the_next_request_waits() {
    let mut bench = llm("").limits(limited()).run();
    bench.granted(1, 1, None);
    bench.replied(1, 1, invalid("no JSON"));
    let twice = Outcome::Llm(Err("late".into()));
    bench.discards(Input::Completed {
        run: 1,
        attempt: 1,
        outcome: twice,
    });
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
    let of_node = bench.machine.state().context.operational.node_tokens.get("A").copied();
    assert_eq!((bench.used()[3], of_node, bench.dialogue(1).tokens), (14, Some(14), 14));
}
