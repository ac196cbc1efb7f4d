//! agent nodes, transition by transition.

use serde_json::{Value as Json, json};
use soe_backends::{Awaits, Entry, Status, Value};
use soe_core::llm::ToolRequest;
use soe_core::machine::{AnswerContent, Input, Outcome, ToolFailure};
use soe_core::tools::ToolSpec;

use crate::asking::{invalid, limited, output};
use crate::{Bench, Setup, flow};

/// An agent with the tool `t`; the tool `other` is registered, but not the agent's.
pub(crate) fn agent(more: &str) -> Setup {
    let mut setup = flow(&format!(
        "  A: {{node_type: agent, event_triggers: [START], prompt: do it, tools: [t, missing], output_field: out,
    event_emissions: [{{signal_name: DONE}}]{more}}}"
    ));
    setup.tools.push(ToolSpec::new("other", "", json!({})).unwrap());
    setup
}

pub(crate) fn native(more: &str) -> Setup {
    agent(&format!(", llm: native{more}"))
}

fn tool(name: &str) -> AnswerContent {
    let name = name.into();
    AnswerContent::CallTool { name }
}

pub(crate) fn calls(calls: &[(&str, &str, &str)]) -> AnswerContent {
    let call = |(id, name, arguments): &(&str, &str, &str)| ToolRequest {
        id: (*id).to_owned(),
        name: (*name).to_owned(),
        arguments: (*arguments).to_owned(),
    };
    let calls = calls.iter().map(call).collect();
    let text = "".into();
    AnswerContent::ToolCalls { text, calls }
}

pub(crate) fn tool_answer(run: u64, index: u32, result: Result<Json, &str>) -> Input {
    let failed = |message: &str| ToolFailure {
        message: message.into(),
        retryable: true,
    };
    let result = result.map(Value::from).map_err(failed);
    Input::Completed {
        execution: 0,
        run,
        attempt: 1,
        outcome: Outcome::AgentTool { index, result },
    }
}

impl Bench {
    pub(crate) fn tool_answered(&mut self, run: u64, index: u32, result: Result<Json, &str>) {
        self.input(tool_answer(run, index, result));
    }

    /// What the agent did, in short.
    pub(crate) fn entries(&self, run: u64) -> Vec<String> {
        let short = |entry: &Entry| match entry {
            Entry::Said { text } => format!("said {text}"),
            Entry::Called {
                index,
                turn,
                id,
                tool,
                arguments,
                ..
            } => {
                format!(
                    "called {index}/{turn} {} {tool} {arguments}",
                    id.as_deref().unwrap_or("-")
                )
            }
            Entry::Answered { index, tool, content } => format!("answered {index} {tool} {content}"),
            Entry::Failed { index, tool, error } => format!("failed {index} {tool} {error}"),
            Entry::SystemError { error } => format!("error {error}"),
            other => format!("{other:?}"),
        };
        self.dialogue(run).entries.iter().map(short).collect()
    }

    /// Turns, failures and the calls in flight.
    pub(crate) fn progress(&self, run: u64) -> (u32, u32, Vec<u32>) {
        let dialogue = self.dialogue(run);
        (
            dialogue.turns,
            dialogue.failures,
            dialogue.open.keys().copied().collect(),
        )
    }
}

#[test]
fn an_agent_decides_calls_and_answers() {
    let mut bench = agent("").run();
    assert_eq!(bench.asked(), ["ask 1.1 router"]);
    let told = ["node_execution", "agent_tools_loaded", "llm_call"];
    assert_eq!(bench.last_events()[2..], told);
    bench.replied(1, 1, tool("t"));
    assert_eq!(bench.asked(), ["ask 1.2 parameter"]);
    assert_eq!(bench.dialogue(1).question.tool.as_deref(), Some("t"));
    bench.replied(1, 2, AnswerContent::Arguments(json!({"n": 1})));
    assert_eq!(bench.asked(), [r#"tool 1.0 t{"n":1}"#]);
    assert_eq!(bench.last_events(), ["llm_reply", "agent_tool_call"]);
    assert_eq!(
        (bench.dialogue(1).awaits, bench.progress(1)),
        (Awaits::Tools, (1, 0, vec![0]))
    );
    bench.tool_answered(1, 0, Ok(json!([1, "x"])));
    assert_eq!(
        (bench.asked(), bench.progress(1)),
        (vec!["ask 1.3 router".to_owned()], (2, 0, vec![]))
    );
    assert_eq!(bench.last_events(), ["agent_tool_result", "llm_call"]);
    assert_eq!(bench.dialogue(1).question.tool, None);
    assert_eq!(
        bench.entries(1),
        [r#"called 0/1 - t {"n":1}"#, r#"answered 0 t [1,"x"]"#]
    );
    bench.replied(1, 3, AnswerContent::Finish);
    assert_eq!(
        (bench.asked(), bench.dialogue(1).turns),
        (vec!["ask 1.4 response".to_owned()], 2)
    );
    bench.replied(1, 4, output(json!("done")));
    assert_eq!(
        (bench.history("out"), bench.signals().as_str()),
        (json!(["done"]), "START DONE")
    );
    assert_eq!(
        (bench.used(), bench.status(), bench.runs("A")),
        ([4, 1, 0, 0], Status::Rested, 1)
    );
}

#[test]
fn a_tool_that_it_does_not_have_is_an_error_that_it_sees() {
    for name in ["nobody", "other", "missing"] {
        let mut bench = agent(", retries: 1").run();
        bench.replied(1, 1, tool(name));
        assert_eq!(
            (bench.asked(), bench.progress(1)),
            (vec!["ask 1.2 router".to_owned()], (2, 1, vec![]))
        );
        assert_eq!(
            bench.last_events(),
            ["llm_reply", "agent_tool_not_found", "node_error", "llm_call"]
        );
        assert_eq!(
            bench.entries(1),
            [format!("error there is no tool '{name}'; there are: t")]
        );
        assert_eq!(bench.used(), [2, 0, 1, 0]);
    }
}

#[test]
fn an_error_of_a_tool_is_told_and_counted() {
    let mut bench = agent(", retries: 1").run();
    bench.replied(1, 1, tool("t"));
    bench.replied(1, 2, AnswerContent::Arguments(json!({})));
    bench.tool_answered(1, 0, Err("boom"));
    assert_eq!(
        (bench.asked(), bench.progress(1)),
        (vec!["ask 1.3 router".to_owned()], (2, 1, vec![]))
    );
    assert_eq!(bench.last_events(), ["node_error", "llm_call"]);
    assert_eq!(bench.entries(1)[1..], ["failed 0 t boom"]);
    assert_eq!(bench.used(), [3, 1, 1, 0]);
    bench.discards(tool_answer(1, 0, Ok(json!(1))));
}

#[test]
fn more_failures_than_retries_fail_it() {
    for retries in [0, 2] {
        let failures = retries + 1;
        let mut bench = agent(&format!(", retries: {retries}, llm_failure_signal: FAILED")).run();
        (1..=failures).for_each(|call| bench.replied(1, call, tool("nobody")));
        assert_eq!(
            (bench.signals().as_str(), bench.status()),
            ("START FAILED", Status::Rested)
        );
        let mut bench = agent(&format!(", retries: {retries}")).run();
        (1..=failures).for_each(|call| bench.replied(1, call, tool("nobody")));
        let start =
            format!("node 'A': {failures} calls of tools failed, {retries} may; the last: there is no tool 'nobody'");
        assert!(bench.failure().starts_with(&start), "{}", bench.failure());
        assert_eq!((bench.asked(), bench.run_of(1).number), (vec!["abort 0".to_owned()], 1));
        assert_eq!(bench.used()[..2], [u64::from(failures), 0]);
    }
}

#[test]
fn max_turns_counts_decisions() {
    let mut bench = agent(", max_turns: 2").run();
    bench.replied(1, 1, tool("t"));
    bench.replied(1, 2, AnswerContent::Arguments(json!({})));
    bench.tool_answered(1, 0, Ok(json!(null)));
    bench.replied(1, 3, tool("t"));
    assert_eq!(
        bench.failure(),
        "node 'A': it calls tools in its last turn, and 'max_turns' allows no more than 2"
    );
    assert_eq!((bench.status(), bench.used()), (Status::Failed, [3, 1, 0, 0]));
    let mut bench = agent(", max_turns: 1").run();
    bench.replied(1, 1, AnswerContent::Finish);
    bench.replied(1, 2, output(json!(1)));
    assert_eq!(bench.status(), Status::Rested, "its last decision may be to finish");
}

#[test]
fn invalid_replies_count_for_each_question_alone() {
    let mut bench = agent(", retries: 1, llm_failure_signal: FAILED").run();
    bench.replied(1, 1, invalid("what?"));
    assert_eq!(
        (bench.asked(), bench.progress(1)),
        (vec!["ask 1.2 router".to_owned()], (1, 0, vec![]))
    );
    bench.replied(1, 2, tool("t"));
    assert_eq!(bench.dialogue(1).rejected, []);
    bench.replied(1, 3, invalid("no number"));
    assert_eq!(
        (bench.asked(), bench.dialogue(1).question.tool.as_deref()),
        (vec!["ask 1.4 parameter".to_owned()], Some("t"))
    );
    bench.replied(1, 4, invalid("no number"));
    assert_eq!((bench.signals().as_str(), bench.used()), ("START FAILED", [4, 0, 3, 0]));
}

#[test]
fn recovery_goes_on_at_each_stage() {
    let mut bench = agent("").run();
    // A request that was lost is made again under the same number, and counts again.
    let recovers = |bench: &mut Bench, asked: &str, again: u64| {
        let ([calls, tools, errors, tokens], before) = (bench.used(), bench.dialogue(1).clone());
        bench.recover();
        assert_eq!(bench.asked(), [asked.to_owned()]);
        assert_eq!(bench.used(), [calls + again, tools, errors, tokens]);
        assert_eq!(*bench.dialogue(1), before);
    };
    recovers(&mut bench, "ask 1.1 router", 1);
    bench.replied(1, 1, tool("t"));
    recovers(&mut bench, "ask 1.2 parameter", 1);
    bench.replied(1, 2, AnswerContent::Arguments(json!({"n": 1})));
    recovers(&mut bench, r#"tool 1.0 t{"n":1}"#, 0);
    bench.tool_answered(1, 0, Ok(json!(1)));
    recovers(&mut bench, "ask 1.3 router", 1);
    bench.replied(1, 3, AnswerContent::Finish);
    recovers(&mut bench, "ask 1.4 response", 1);
    bench.replied(1, 4, output(json!(1)));
    assert_eq!((bench.status(), bench.used()), (Status::Rested, [8, 1, 0, 0]));
}

#[test]
fn a_denied_decision_fails_it() {
    let mut bench = agent(", llm_failure_signal: FAILED").limits(limited(1)).run();
    bench.replied(1, 1, tool("t"));
    assert_eq!((bench.signals().as_str(), bench.used()), ("START FAILED", [1, 0, 0, 0]));
}

#[test]
fn what_tools_answer_is_kept_where_there_is_an_identity() {
    let conversation = |more: &str| {
        let mut bench = agent(more).run();
        bench.replied(1, 1, tool("nobody"));
        bench.replied(1, 2, tool("t"));
        bench.replied(1, 3, AnswerContent::Arguments(json!({})));
        bench.tool_answered(1, 0, Ok(json!({"a": 1})));
        bench.replied(1, 4, tool("t"));
        bench.replied(1, 5, AnswerContent::Arguments(json!({})));
        bench.tool_answered(1, 1, Err("boom"));
        bench.replied(1, 6, AnswerContent::Finish);
        bench.replied(1, 7, output(json!("done")));
        assert_eq!(bench.status(), Status::Rested);
        let turn = |turn: &&soe_backends::Turn| {
            let (tool, key) = (turn.tool_name.as_deref().unwrap_or("-"), turn.key.as_deref().unwrap());
            format!("{key} {} {tool} {}", turn.role, turn.content)
        };
        bench.turns().iter().map(turn).collect::<Vec<_>>()
    };
    let expected = [
        "x:1/0 system_error - there is no tool 'nobody'; there are: t",
        r#"x:1/2 tool t {"a":1}"#,
        "x:1/4 tool_error t boom",
    ];
    assert_eq!(conversation(", identity: sage"), expected);
    assert_eq!(
        conversation("").len() + conversation(", identity: '{{ \" \" }}'").len(),
        0
    );
}
