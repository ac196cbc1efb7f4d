//! llm nodes, transition by transition; and requests that custom nodes make by themselves.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value as Json, json};
use soe_backends::{Awaits, Dialogue, Limits, Run, Status, Turn, Usage};
use soe_core::llm::{Capabilities, LlmCaller, LlmError, LlmReply, LlmRequest, LlmSpecs, Llms};
use soe_core::machine::{AnswerContent, Denial, Effect, Input, LlmAnswer, LlmCall, Outcome};

use crate::{Bench, Setup, flow};

struct Native;

#[async_trait]
impl LlmCaller for Native {
    async fn call(&self, _: LlmRequest) -> Result<LlmReply, LlmError> {
        Ok(LlmReply::text("nobody asks it here"))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().tool_calls(true)
    }
}

/// Only the LLM called `native` takes native tool calls.
pub(crate) fn specs() -> LlmSpecs {
    let mut llms = Llms::new();
    llms.register("native", Native).unwrap();
    llms.specs()
}

pub(crate) fn llm(more: &str) -> Setup {
    flow(&format!(
        "  A: {{node_type: llm, event_triggers: [START], prompt: 'n is {{{{ context.n }}}}', output_field: out,
    event_emissions: [{{signal_name: DONE}}]{more}}}"
    ))
    .field("n", json!([1]))
}

pub(crate) fn limited() -> Limits {
    Limits {
        llm_calls: Some(10),
        ..Limits::default()
    }
}

pub(crate) fn output(value: Json) -> AnswerContent {
    let value = value.into();
    let signals = Vec::new();
    AnswerContent::Output { value, signals }
}

pub(crate) fn invalid(problem: &str) -> AnswerContent {
    let (reply, problem) = ("nonsense".into(), problem.into());
    AnswerContent::Invalid { reply, problem }
}

impl Bench {
    pub(crate) fn answered(&mut self, run: u64, call: u32, answer: Result<LlmAnswer, Arc<str>>) {
        let outcome = Outcome::Llm(answer);
        let attempt = call;
        self.input(Input::Completed { run, attempt, outcome });
    }

    pub(crate) fn replied(&mut self, run: u64, call: u32, content: AnswerContent) {
        let (usage, warnings) = (None, Vec::new());
        let answer = LlmAnswer {
            content,
            usage,
            warnings,
        };
        self.answered(run, call, Ok(answer));
    }

    pub(crate) fn granted(&mut self, run: u64, call: u32, denied: Option<Denial>) {
        self.input(Input::Granted { run, call, denied });
    }

    pub(crate) fn run_of(&self, run: u64) -> &Run {
        &self.machine.state().runs[&run]
    }

    pub(crate) fn dialogue(&self, run: u64) -> &Dialogue {
        self.run_of(run).progress.dialogue().unwrap()
    }

    /// The only request that the last step makes.
    pub(crate) fn request(&self) -> &LlmCall {
        match self.effects.as_slice() {
            [Effect::CallLlm(call)] => call,
            other => panic!("{other:?}"),
        }
    }

    /// Requests, tool calls, errors and tokens so far, which are those of the tree too.
    pub(crate) fn used(&self) -> [u64; 4] {
        let state = &self.machine.state().context.operational;
        let tree = state.tree;
        let used = [state.llm_calls, state.tool_calls, state.errors, state.tokens];
        assert_eq!(
            [tree.llm_calls, tree.tool_calls, tree.tokens],
            [used[0], used[1], used[3]]
        );
        used
    }

    /// Something came that nobody waits for: an event, and nothing else.
    pub(crate) fn discards(&mut self, input: Input) {
        let mut expected = self.machine.state().clone();
        self.input(input);
        expected.version += 1;
        expected.next_event += 1;
        expected.updated_at = self.machine.state().updated_at;
        assert_eq!(*self.machine.state(), expected);
        assert_eq!(
            (self.last_events(), self.asked().len()),
            (vec!["completion_discarded"], 0)
        );
    }

    pub(crate) fn turns(&self) -> Vec<&Turn> {
        let turns = self.commits.iter().flat_map(|commit| &commit.turns);
        turns.flat_map(|turns| &turns.turns).collect()
    }
}

pub(crate) fn denial() -> Denial {
    Denial {
        limit: "llm_calls",
        message: "all 10 requests to LLMs were made".to_owned(),
    }
}

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
    assert_eq!(
        bench.machine.state().context.operational.node_tokens.get("A"),
        Some(&13)
    );
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
        assert_eq!(bench.asked(), ["abort 1"]);
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
    assert_eq!((bench.signals().as_str(), bench.used()), ("START FAILED", [0, 0, 1, 0]));
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
    bench.input(Input::Recover);
    assert_eq!((bench.asked(), bench.used()), (vec!["reserve 1.1".to_owned()], [0; 4]));
    bench.granted(1, 1, None);
    bench.replied(1, 1, invalid("no JSON"));
    bench.input(Input::Recover);
    assert_eq!(bench.asked(), ["reserve 1.2"]);
    bench.granted(1, 2, None);
    bench.input(Input::Recover);
    assert_eq!(
        (bench.asked(), bench.used()),
        (vec!["ask 1.2 llm".to_owned()], [2, 0, 1, 0])
    );
    assert_eq!(&*bench.request().prompt, "n is 1");
    assert_eq!(*bench.request().run, *bench.run_of(1));
    bench.replied(1, 2, output(json!(2)));
    assert_eq!(bench.status(), Status::Rested);
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
    let turns = bench.commits.last().unwrap().turns.as_ref().unwrap();
    assert_eq!(turns.main.as_str(), "x");

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
fn templates_warn_at_the_first_request() {
    let mut bench = llm(", identity: '{{ 1 / 0 }}'").run();
    assert_eq!(bench.warnings().len(), 1);
    assert!(bench.warnings()[0].starts_with("there is no history, the identity can't be rendered: "));
    bench.replied(1, 1, invalid("no JSON"));
    bench.replied(1, 2, output(json!("text")));
    assert_eq!(bench.warnings().len(), 1, "once");

    let node = "  A: {node_type: llm, event_triggers: [START], prompt: '{{ context.m }} {{ 1 / 0 }}'}";
    let bench = flow(node).limits(limited()).run();
    assert_eq!(bench.warnings().len(), 0, "nothing was asked yet");
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
