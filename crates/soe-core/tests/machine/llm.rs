//! llm nodes, transition by transition.

use serde_json::json;
use soe_backends::{Awaits, Status, Turn, Usage};
use soe_core::machine::{AnswerContent, Effect, LlmAnswer};

use crate::asking::{invalid, limited, llm, output};
use crate::flow;

#[test]
fn a_request_says_what_is_asked() {
    let bench = llm(", identity: '{{ context.who }}'")
        .field("who", json!(["sage"]))
        .run();
    assert_eq!(bench.asked(), ["ask 1.1 llm"]);
    let call = bench.request();
    assert_eq!(
        (&*call.prompt, call.identity.as_deref(), &*call.node.name),
        ("n is 1", Some("sage"), "A")
    );
    assert_eq!(*call.run, *bench.run_of(1), "the run is as it is now");
    assert_eq!(call.context.operational.llm_calls, 1, "its own request is counted");
    assert_eq!((bench.used(), bench.runs("A")), ([1, 0, 0, 0], 1));
    assert_eq!(bench.dialogue(1).awaits, Awaits::Reply);
    let told = ["orchestration_start", "signals_broadcast", "node_execution", "llm_call"];
    assert_eq!(bench.last_events(), told);
}

#[test]
fn requests_of_one_event_are_counted_before_any_reads_the_context() {
    let two = "  A: {node_type: llm, event_triggers: [START], prompt: '{{ context.__operational__.llm_calls }}'}
  B: {node_type: llm, event_triggers: [START], prompt: '{{ context.__operational__.llm_calls }}'}";
    let bench = flow(two).run();
    let prompts = bench.effects.iter().map(|effect| match effect {
        Effect::CallLlm(call) => &*call.prompt,
        other => panic!("{other:?}"),
    });
    assert_eq!(prompts.collect::<Vec<_>>(), ["2", "2"]);
}

#[test]
fn an_output_is_written_emitted_and_counted() {
    let mut bench = llm("").run();
    let usage = Usage {
        prompt_tokens: 10,
        completion_tokens: 3,
    };
    let answer = LlmAnswer {
        content: output(json!({"x": [1]})),
        usage: Some(usage),
        warnings: vec!["odd".into()],
    };
    bench.answered(1, 1, Ok(answer));
    assert_eq!(
        (bench.history("out"), bench.signals().as_str()),
        (json!([{"x": [1]}]), "START DONE")
    );
    assert_eq!((bench.used(), bench.status()), ([1, 0, 0, 13], Status::Rested));
    assert_eq!(bench.state().context.operational.node_tokens.get("A"), Some(&13));
    let told = [
        "llm_reply",
        "context_warning",
        "node_finished",
        "context_updated",
        "signals_broadcast",
        "execution_rested",
    ];
    assert_eq!((bench.last_events(), bench.warnings()), (told.to_vec(), vec!["odd"]));
    let finished = serde_json::to_value(&bench.commits.last().unwrap().events[2].kind).unwrap();
    assert_eq!(finished["data"]["tokens"], 13);
}

#[test]
fn null_is_not_written_but_the_signals_are_emitted() {
    let mut bench = llm("").run();
    bench.replied(1, 1, output(json!(null)));
    assert_eq!(
        (bench.history("out"), bench.signals().as_str()),
        (json!([]), "START DONE")
    );
}

#[test]
fn the_llm_chooses_where_the_node_lets_it() {
    let emissions = |conditions: [&str; 2]| {
        let [a, b] = conditions;
        flow(&format!(
            "  A: {{node_type: llm, event_triggers: [START], prompt: p, output_field: out,
    event_emissions: [{{signal_name: X, condition: '{a}'}}, {{signal_name: Y, condition: '{b}'}}]}}"
        ))
    };
    for (conditions, signals) in [(["a", "b"], "START Y"), (["{{ context.out == 5 }}", "b"], "START X Y")] {
        let mut bench = emissions(conditions).run();
        let signals_chosen = vec!["Y".into()];
        bench.replied(
            1,
            1,
            AnswerContent::Output {
                value: 5.into(),
                signals: signals_chosen,
            },
        );
        assert_eq!(bench.signals(), signals);
    }
    let mut bench = emissions(["a", "b"]).run();
    bench.replied(1, 1, output(json!(5)));
    assert_eq!((bench.signals().as_str(), bench.status()), ("START", Status::Rested));
}

#[test]
fn an_invalid_reply_is_asked_again_on_the_same_context() {
    let two =
        "  A: {node_type: llm, event_triggers: [START], prompt: 'n is {{ context.n }}', output_field: out, retries: 2}
  B: {node_type: tool, event_triggers: [START], tool_name: t, output_field: n}";
    let mut bench = flow(two).field("n", json!([1])).run();
    bench.returned(2, json!(2));
    bench.replied(1, 1, invalid("no JSON"));
    assert_eq!(
        (bench.asked(), &*bench.request().prompt),
        (vec!["ask 1.2 llm".to_owned()], "n is 1")
    );
    assert_eq!(bench.last_events(), ["llm_reply", "node_error", "llm_call"]);
    let error = serde_json::to_value(&bench.commits.last().unwrap().events[1].kind).unwrap();
    assert_eq!(
        (&error["data"]["error"], &error["data"]["retry_attempt"]),
        (&json!("the reply is not valid: no JSON"), &json!(2))
    );
    bench.replied(1, 2, invalid("no list"));
    let rejected = &bench.dialogue(1).rejected;
    let problems: Vec<_> = rejected.iter().map(|each| (&*each.reply, &*each.problem)).collect();
    assert_eq!(problems, [("nonsense", "no JSON"), ("nonsense", "no list")]);
    bench.replied(1, 3, output(json!(3)));
    assert_eq!((bench.history("out"), bench.used()), (json!([3]), [3, 1, 2, 0]));
}

#[test]
fn too_many_invalid_replies_fail_the_node() {
    for retries in [0, 1] {
        let attempts = retries + 1;
        let mut bench = llm(&format!(", retries: {retries}, llm_failure_signal: FAILED")).run();
        (1..=attempts).for_each(|call| bench.replied(1, call, invalid("no JSON")));
        assert_eq!(
            (bench.signals().as_str(), bench.history("out")),
            ("START FAILED", json!([]))
        );
        assert_eq!(
            (bench.status(), bench.used()),
            (Status::Rested, [u64::from(attempts), 0, u64::from(attempts), 0])
        );

        let mut bench = llm(&format!(", retries: {retries}")).run();
        (1..=attempts).for_each(|call| bench.replied(1, call, invalid("no JSON")));
        let expected = format!("node 'A': no valid reply in {attempts} attempts; the last: no JSON");
        assert_eq!((bench.status(), bench.failure()), (Status::Failed, expected));
        assert_eq!(bench.asked(), ["abort 0"]);
        assert_eq!(bench.run_of(1).number, 1, "it is kept, to be run again");
        assert_eq!(bench.used(), [u64::from(attempts), 0, u64::from(attempts), 0]);
    }
}

#[test]
fn an_error_of_the_caller_is_not_asked_again() {
    let mut bench = llm(", retries: 5, llm_failure_signal: FAILED").run();
    bench.answered(1, 1, Err("no connection".into()));
    assert_eq!((bench.signals().as_str(), bench.used()), ("START FAILED", [1, 0, 1, 0]));
    assert_eq!(bench.last_events()[..3], ["llm_reply", "node_error", "node_finished"]);
    let mut bench = llm("").run();
    bench.answered(1, 1, Err("no connection".into()));
    assert_eq!(bench.failure(), "node 'A': no connection");
}

#[test]
fn an_exchange_is_kept_where_there_is_an_identity() {
    let mut bench = llm(", identity: sage").run();
    bench.replied(1, 1, invalid("no JSON"));
    bench.replied(1, 2, output(json!({"a": 1})));
    let turn = |role: &str, content: &str, key: &str| Turn {
        role: role.into(),
        content: content.into(),
        tool_name: None,
        key: Some(key.into()),
    };
    let expected = [
        turn("user", "n is 1", "x:1/0"),
        turn("assistant", r#"{"a":1}"#, "x:1/1"),
    ];
    assert_eq!(bench.turns(), expected.iter().collect::<Vec<_>>());
    assert_eq!(
        bench.commits.last().unwrap().turns.len(),
        2,
        "in the commit of its output"
    );

    for identity in [
        "",
        ", identity: '{{ context.nobody }}'",
        ", identity: '{{ 1 / 0 }}'",
        ", identity: '{{ \" \" }}'",
    ] {
        let mut bench = llm(identity).run();
        assert_eq!(bench.request().identity, None, "{identity}");
        bench.replied(1, 1, output(json!("text")));
        assert_eq!(bench.turns().len(), 0, "{identity}");
    }
}

#[test]
fn templates_warn_at_the_first_request() {
    let mut bench = llm(", identity: '{{ 1 / 0 }}'").run();
    assert_eq!(bench.warnings().len(), 1);
    assert!(bench.warnings()[0].starts_with("there is no history, the identity can't be rendered: "));
    bench.replied(1, 1, invalid("no JSON"));
    bench.replied(1, 2, output(json!("text")));
    assert_eq!(bench.warnings().len(), 1, "once");

    let node = "  A: {node_type: llm, event_triggers: [START], prompt: '{{ context.m }} {{ 1 / 0 }}'}";
    let bench = flow(node).limits(limited(0)).run();
    assert_eq!(bench.warnings().len(), 0, "nothing was asked");
    let bench = flow(node).run();
    let [missing, broken] = bench.warnings()[..] else {
        panic!("{:?}", bench.warnings());
    };
    assert_eq!(
        missing,
        "context field 'm', which the prompt mentions, is not in the context"
    );
    assert!(broken.starts_with("the prompt is sent unrendered: "), "{broken}");
    assert_eq!(&*bench.request().prompt, "{{ context.m }} {{ 1 / 0 }}");
}
