//! 08 Chain of thought.

use serde_json::json;
use soe_core::llm::LlmErrorKind;
use soe_core::runtime::Engine;
use soe_core::testing::{MockLlm, node};

use super::{has_line, is_mocked, run};
use crate::support::stdout;

const WORKFLOW: &str = include_str!("../../../08-chain-of-thought/workflow.yaml");

#[test]
fn the_program_solves_its_problem() {
    let printed = stdout(env!("CARGO_BIN_EXE_08-chain-of-thought"), &[]);
    is_mocked(&printed);
    has_line(&printed, "fact: 60 litres are in it");
    has_line(
        &printed,
        "answer: 12.0 minutes. The missing 180 litres come at 15 litres a minute.",
    );
    has_line(
        &printed,
        "5 requests to the LLM, 891 tokens, 0 tool calls, 1 failed attempt",
    );
}

#[tokio::test]
async fn every_step_reads_what_the_steps_before_it_wrote() {
    let llm = MockLlm::from_yaml(include_str!("../../../08-chain-of-thought/replies.yaml")).unwrap();
    let done = run(
        Engine::builder().llm(llm.clone()),
        WORKFLOW,
        json!({"problem": "a tank"}),
    )
    .await;
    llm.assert_all_used();
    assert_eq!(done.signals(), "START UNDERSTOOD PLANNED WORKED ANSWERED");
    assert_eq!(done.value("facts").as_array().unwrap().len(), 4);
    assert_eq!(
        done.value("answer")["value"],
        json!(12.0),
        "the text \"12\" became a number"
    );
    for (node, said) in [
        ("Plan", "60 litres are in it"),
        ("Work", "Divide the first by the second"),
        ("Answer", "180 / 15 = 12"),
    ] {
        assert!(llm.requests_of(node)[0].text.contains(said), "{node}");
    }
    let again = &llm.requests_of("Answer")[1].text;
    assert!(again.contains("value: should be a number, not \"twelve\""), "{again}");
    assert!(again.contains("explanation: is missing"), "{again}");
}

#[tokio::test]
async fn an_answer_that_never_fits_ends_with_its_signal_and_an_error_of_the_llm_fails_the_execution() {
    let llm = MockLlm::from_yaml(include_str!("../../../08-chain-of-thought/replies.yaml")).unwrap();
    let broken = MockLlm::new();
    broken.on(node("Answer")).text("I don't know");
    let with = |last: &MockLlm| Engine::builder().llm(llm.clone()).named_llm("last", last.clone());
    let workflow = WORKFLOW.replace("retries: 2", "retries: 2\n      llm: last");
    let done = run(with(&broken), &workflow, json!({"problem": "a tank"})).await;
    assert_eq!((broken.calls(), done.counts()), (3, [6, 0, 3]));
    assert_eq!(done.signals(), "START UNDERSTOOD PLANNED WORKED NO_ANSWER");

    let failing = MockLlm::new();
    failing
        .on(node("Understand"))
        .error(LlmErrorKind::Unauthorized, "the key is wrong");
    let failed = run(Engine::builder().llm(failing), WORKFLOW, json!({"problem": "a tank"})).await;
    let error = failed.result.unwrap_err().to_string();
    assert!(
        error.contains("Understand") && error.contains("the key is wrong"),
        "{error}"
    );
}
