//! 10 Draft, critique, revision.

use serde_json::json;
use soe_core::runtime::Engine;
use soe_core::testing::{MockLlm, node};

use super::{Done, has_line, is_mocked, run};
use crate::support::stdout;

#[path = "../../../10-revision/tools.rs"]
mod tools;

const PROGRAM: &str = env!("CARGO_BIN_EXE_10-revision");

async fn revise(llm: &MockLlm, max_drafts: u32) -> Done {
    let builder = Engine::builder().llm(llm.clone()).tool(tools::best_draft());
    let workflow = include_str!("../../../10-revision/workflow.yaml");
    let fields = json!({"topic": "tea", "words": 40, "good": 8, "max_drafts": max_drafts});
    run(builder, workflow, fields).await
}

/// Drafts `draft 1`, `draft 2`, ..., with these scores.
fn scored(scores: &[i64]) -> MockLlm {
    let llm = MockLlm::new();
    for (index, score) in scores.iter().enumerate() {
        llm.on(node("Draft")).text(format!("draft {}", index + 1)).once();
        llm.on(node("Critique"))
            .output(json!({"score": score, "weaknesses": [format!("weak {score}")]}))
            .once();
    }
    llm
}

#[test]
fn the_program_publishes_the_first_good_draft_or_the_best_one() {
    let printed = stdout(PROGRAM, &[]);
    is_mocked(&printed);
    has_line(&printed, "published: draft 3 (good enough)");
    has_line(
        &printed,
        "13 turns of conversation; 6 requests to the LLM, 735 tokens, 1 tool call, 0 failed attempts",
    );
    let printed = stdout(PROGRAM, &["--max-drafts", "2"]);
    has_line(&printed, "published: draft 2 (no drafts left)");
}

#[tokio::test]
async fn a_good_draft_ends_the_loop() {
    let llm = scored(&[4, 8]);
    let done = revise(&llm, 5).await;
    llm.assert_all_used();
    assert_eq!(
        done.signals(),
        "START DRAFTED CRITICISED REVISE DRAFTED CRITICISED GOOD_ENOUGH PUBLISHED"
    );
    assert_eq!(done.value("best"), json!({"number": 2, "score": 8, "text": "draft 2"}));
    let second = &llm.requests_of("Draft")[1].text;
    assert!(
        second.contains("Your last draft: draft 1") && second.contains("weak 4"),
        "{second}"
    );
}

#[tokio::test]
async fn without_a_good_one_the_best_of_all_drafts_is_published() {
    let llm = scored(&[4, 7, 5]);
    let done = revise(&llm, 3).await;
    llm.assert_all_used();
    assert_eq!(
        (
            done.times("OUT_OF_DRAFTS"),
            done.times("GOOD_ENOUGH"),
            done.times("REVISE")
        ),
        (1, 0, 2)
    );
    assert_eq!(done.value("best"), json!({"number": 2, "score": 7, "text": "draft 2"}));
}

#[tokio::test]
async fn each_identity_has_its_own_prompt_and_both_share_the_conversation() {
    let llm = scored(&[1, 9]);
    let done = revise(&llm, 3).await;
    let requests = llm.requests();
    assert!(requests[0].text.contains("[system]: You write short"));
    assert!(
        requests[1].text.contains("[system]: You are a strict editor") && !requests[1].text.contains("You write short")
    );
    assert!(
        requests[1].text.contains("[assistant]: draft 1"),
        "the editor sees what the writer said"
    );
    let turns = done.engine.conversation(&done.id).await.unwrap().turns().await.unwrap();
    let roles: Vec<&str> = turns.iter().map(|turn| turn.role.as_ref()).collect();
    assert_eq!(
        roles,
        [
            "system",
            "user",
            "assistant",
            "user",
            "assistant",
            "user",
            "assistant",
            "user",
            "assistant"
        ]
    );
}
