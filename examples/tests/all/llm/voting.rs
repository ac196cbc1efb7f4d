//! 11 Three LLMs vote.

use std::time::Duration;

use serde_json::json;
use soe_core::llm::LlmErrorKind;
use soe_core::runtime::Engine;
use soe_core::testing::{MockLlm, any};
use tokio::time::Instant;

use super::{Done, has_line, is_mocked, run};
use crate::support::stdout;

/// An LLM that votes after so many milliseconds.
fn voter(keep: bool, millis: u64) -> MockLlm {
    let llm = MockLlm::new();
    let vote = json!({"keep": keep, "reason": format!("after {millis}")});
    llm.on(any()).output(vote).after(Duration::from_millis(millis));
    llm
}

async fn vote(voters: [MockLlm; 3]) -> Done {
    let [a, b, c] = voters;
    let builder = Engine::builder().named_llm("a", a).named_llm("b", b).named_llm("c", c);
    let workflow = include_str!("../../../11-voting/workflow.yaml");
    run(
        builder,
        workflow,
        json!({"article": "Shops", "comment": "Nice.", "voters": 3}),
    )
    .await
}

#[test]
fn the_program_counts_once() {
    let printed = stdout(env!("CARGO_BIN_EXE_11-voting"), &[]);
    is_mocked(&printed);
    has_line(&printed, "signals: START VOTED VOTED VOTED TALLIED PUBLISH");
    has_line(&printed, "Tally was evaluated 3 times and passed 1 time");
}

#[tokio::test(start_paused = true)]
async fn whatever_the_order_the_tally_is_exact() {
    for latencies in [
        [1, 2, 3],
        [1, 3, 2],
        [2, 1, 3],
        [2, 3, 1],
        [3, 1, 2],
        [3, 2, 1],
        [2, 2, 2],
    ] {
        for (keeps, outcome) in [
            ([true, true, true], "PUBLISH"),
            ([true, false, true], "PUBLISH"),
            ([false, true, false], "REJECT"),
            ([false, false, false], "REJECT"),
        ] {
            let began = Instant::now();
            let done = vote([0, 1, 2].map(|i| voter(keeps[i], latencies[i] * 1000))).await;
            let case = format!("{latencies:?} {keeps:?}: {}", done.signals());
            assert_eq!(
                done.signals(),
                format!("START VOTED VOTED VOTED TALLIED {outcome}"),
                "{case}"
            );
            assert_eq!((done.runs("Tally"), done.runs("Decide")), (3, 1), "{case}");
            let slowest = latencies.iter().max().unwrap() * 1000;
            assert_eq!(began.elapsed().as_millis() / 100, u128::from(slowest) / 100, "{case}");
            // The ballots are in the order in which they came in.
            let ballots = done.context.history("votes").unwrap();
            let reasons: Vec<String> = ballots
                .iter()
                .map(|vote| soe_examples::plain(vote.get("reason").unwrap()))
                .collect();
            assert!(reasons.is_sorted(), "{reasons:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_cannot_vote_abstains_and_nobody_waits_for_it() {
    let unreachable = || {
        let llm = MockLlm::new();
        llm.on(any())
            .error(LlmErrorKind::Timeout, "no answer")
            .after(Duration::from_secs(2));
        llm
    };
    let babbling = MockLlm::new();
    babbling.on(any()).text("Well, it depends.");

    let done = vote([voter(true, 1000), unreachable(), voter(true, 3000)]).await;
    assert_eq!(done.signals(), "START VOTED ABSTAINED VOTED TALLIED PUBLISH");
    let done = vote([voter(true, 1000), unreachable(), voter(false, 500)]).await;
    assert_eq!(done.signals(), "START VOTED VOTED ABSTAINED TALLIED ASK_A_PERSON");
    let done = vote([voter(false, 1000), unreachable(), babbling.clone()]).await;
    assert_eq!(done.signals(), "START ABSTAINED VOTED ABSTAINED TALLIED REJECT");
    assert_eq!(babbling.calls(), 2, "asked again once");
    let done = vote([unreachable(), unreachable(), unreachable()]).await;
    assert_eq!(
        done.signals(),
        "START ABSTAINED ABSTAINED ABSTAINED TALLIED ASK_A_PERSON"
    );
}
