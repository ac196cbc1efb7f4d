//! 09 A ReAct loop.

use serde_json::{Value as Json, json};
use soe_core::runtime::{Engine, EngineBuilder};
use soe_core::testing::{MockLlm, node};

use super::{Done, has_line, is_mocked, run};
use crate::support::stdout;

#[path = "../../../09-react-loop/tools.rs"]
mod tools;

const PROGRAM: &str = env!("CARGO_BIN_EXE_09-react-loop");

async fn react(llm: &MockLlm, max_steps: u32) -> Done {
    let builder = tools::tools().into_iter().fold(Engine::builder(), EngineBuilder::tool);
    let workflow = include_str!("../../../09-react-loop/workflow.yaml");
    let fields = json!({"question": "How heavy?", "max_steps": max_steps});
    run(builder.llm(llm.clone()), workflow, fields).await
}

fn step(action: &str, input: &str) -> Json {
    json!({"thought": format!("I {action}"), "action": action, "input": input})
}

#[test]
fn the_program_finds_the_answer_or_gives_up() {
    let printed = stdout(PROGRAM, &[]);
    is_mocked(&printed);
    has_line(&printed, "observation: 19300");
    has_line(&printed, "observation: 16.6");
    has_line(&printed, "answer: The gold cube is 16.6 kg heavier.");

    let printed = stdout(PROGRAM, &["--max-steps", "3"]);
    has_line(&printed, "gave up after 3 thoughts");
    assert!(
        !printed.contains("observation: 2700"),
        "the last action is not taken\n{printed}"
    );
}

#[tokio::test]
async fn observations_errors_among_them_are_in_the_next_prompt() {
    let llm = MockLlm::from_yaml(include_str!("../../../09-react-loop/replies.yaml")).unwrap();
    let done = react(&llm, 8).await;
    llm.assert_all_used();
    assert_eq!(
        done.signals(),
        "START THOUGHT LOOK_UP OBSERVED THOUGHT LOOK_UP OBSERVED THOUGHT LOOK_UP OBSERVED THOUGHT CALCULATE OBSERVED \
         THOUGHT ANSWERED"
    );
    assert_eq!(done.counts(), [5, 4, 1]);
    let observations = done.context.history("observation").unwrap();
    let observed: Vec<Json> = observations.iter().map(|value| value.to_json()).collect();
    assert_eq!(
        (&observed[0], &observed[2], &observed[3]),
        (&json!(19300), &json!(2700), &json!(16.6))
    );
    let third = &llm.requests()[2].text;
    assert!(
        third.contains("Observation: 19300") && third.contains("'aluminum' is not in the table"),
        "{third}"
    );
}

#[tokio::test]
async fn the_guard_ends_a_loop_that_never_answers() {
    for max_steps in [1, 2, 7] {
        let llm = MockLlm::new();
        llm.on(node("Think")).output(step("calculate", "1 + 1"));
        let done = react(&llm, max_steps).await;
        done.result.as_ref().unwrap();
        assert_eq!(
            (llm.calls(), done.runs("Think")),
            (max_steps as usize, u64::from(max_steps))
        );
        assert_eq!(done.runs("Calculate"), u64::from(max_steps) - 1);
        assert_eq!((done.times("GAVE_UP"), done.times("ANSWERED")), (1, 0));
    }
}

#[tokio::test]
async fn an_unknown_action_is_corrected_and_an_invalid_reply_asked_again() {
    let llm = MockLlm::new();
    llm.on(node("Think"))
        .output(step("google", "weight of gold"))
        .text("I think I should calculate")
        .output(step("calculate", "2 *"))
        .output(step("answer", "unknown"));
    let done = react(&llm, 8).await;
    llm.assert_all_used();
    assert_eq!(
        done.signals(),
        "START THOUGHT NO_SUCH_ACTION OBSERVED THOUGHT CALCULATE OBSERVED THOUGHT ANSWERED"
    );
    // Four requests, of which one was a repetition; two failed attempts: the reply and the expression.
    assert_eq!((done.counts(), done.runs("Think")), ([4, 2, 2], 3));
    let requests = llm.requests();
    assert!(requests[1].text.contains("there is no action 'google'"));
    assert!(requests[2].text.contains("I think I should calculate"));
    assert!(
        requests[3].text.contains("a number was expected"),
        "{}",
        requests[3].text
    );
}

#[test]
fn expressions_are_calculated() {
    for (expression, expected) in [
        ("1 + 2 * 3", 7.0),
        ("(1 + 2) * 3", 9.0),
        ("-(2 - 5) / 2", 1.5),
        ("0.1 + 0.2", 0.3),
        ("10 / 4 / 5", 0.5),
        ("--2", 2.0),
    ] {
        assert_eq!(tools::calculate(expression), Ok(expected), "{expression}");
    }
    let deep = "(".repeat(100_000);
    for wrong in ["", "1 +", "1 / 0", "2 2", "(1", "1.2.3", "one", &deep] {
        assert!(tools::calculate(wrong).is_err(), "{wrong:.20}");
    }
}
