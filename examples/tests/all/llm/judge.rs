//! 15 A judge.

use std::time::Duration;

use serde_json::json;
use soe_core::llm::LlmErrorKind;
use soe_core::runtime::Engine;
use soe_core::testing::{MockLlm, any, node};

use super::{Done, has_line, is_mocked, run};
use crate::support::stdout;

const PROGRAM: &str = env!("CARGO_BIN_EXE_15-judge");

/// A writer that answers after so many seconds, and revises.
fn writer(name: &str, seconds: u64) -> MockLlm {
    let llm = MockLlm::new();
    llm.on(node("Revise")).text(format!("{name} revised"));
    llm.on(any()).text(name).after(Duration::from_secs(seconds));
    llm
}

fn failing() -> MockLlm {
    let llm = MockLlm::new();
    llm.on(any()).error(LlmErrorKind::Refused, "no slogans");
    llm
}

/// A judge with these verdicts: the number of the best, and its score.
fn judge(verdicts: &[(i64, i64)]) -> MockLlm {
    let llm = MockLlm::new();
    for (best, score) in verdicts {
        let verdict = json!({"best": best, "score": score, "advice": "shorter"});
        llm.on(node("Judge")).output(verdict).once();
    }
    llm
}

async fn contest([a, b, c]: [MockLlm; 3], judge: &MockLlm, max_rounds: u32) -> Done {
    let builder = Engine::builder().named_llm("a", a).named_llm("b", b).named_llm("c", c);
    let workflow = include_str!("../../../15-judge/workflow.yaml");
    let fields = json!({"product": "tea", "words": 5, "good": 8, "max_rounds": max_rounds});
    let done = run(builder.named_llm("judge", judge.clone()), workflow, fields).await;
    done.result.as_ref().unwrap();
    done
}

/// What follows the first three answers, which may come in any order.
fn after_writing(done: &Done) -> String {
    assert_eq!(done.runs("AllWritten"), 3);
    done.signals().split(' ').skip(4).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_program_accepts_the_second_revision_or_ends_before_it() {
    let printed = stdout(PROGRAM, &[]);
    is_mocked(&printed);
    has_line(&printed, "accepted: One coffee, and your brakes work again.");
    has_line(
        &printed,
        "8 requests to the LLM, 876 tokens, 0 tool calls, 0 failed attempts",
    );

    let printed = stdout(PROGRAM, &["--max-rounds", "2"]);
    assert!(
        printed.contains("JUDGED OUT_OF_ROUNDS\nthe best so far, not accepted: "),
        "{printed}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_judge_is_asked_once_when_the_last_has_written() {
    for [a, b, c] in [[1, 2, 3], [3, 2, 1], [2, 2, 2], [1, 1, 9], [0, 0, 0]] {
        let judge = judge(&[(2, 8)]);
        let done = contest([writer("A", a), writer("B", b), writer("C", c)], &judge, 3).await;
        assert_eq!(after_writing(&done), "JUDGE JUDGED ACCEPTED");
        let asked = &judge.requests_of("Judge")[0].text;
        assert!(
            ["A", "B", "C"]
                .iter()
                .all(|slogan| asked.contains(&format!(". {slogan}"))),
            "{asked}"
        );
        assert_eq!((judge.calls(), done.runs("Judge")), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn revisions_are_bounded_and_judged_beside_all_others() {
    let judge = judge(&[(1, 5), (4, 6), (1, 5), (5, 9)]);
    let writers = || [writer("A", 1), writer("B", 2), writer("C", 3)];
    let done = contest(writers(), &judge, 3).await;
    assert_eq!(
        after_writing(&done),
        "JUDGE JUDGED REVISE REVISED JUDGED REVISE REVISED JUDGED OUT_OF_ROUNDS"
    );
    assert_eq!((judge.calls(), done.runs("Revise")), (3, 2));
    assert_eq!(done.context.history("slogans").unwrap().len(), 5);
    assert!(judge.requests_of("Judge")[2].text.contains("5. A revised"));
}

#[tokio::test(start_paused = true)]
async fn who_writes_nothing_holds_nobody_up() {
    let done = contest([failing(), writer("B", 1), failing()], &judge(&[(1, 9)]), 3).await;
    assert_eq!(after_writing(&done), "JUDGE JUDGED ACCEPTED");
    assert_eq!(done.times("NOT_WRITTEN"), 2);

    let unasked = judge(&[]);
    let done = contest([failing(), failing(), failing()], &unasked, 3).await;
    assert_eq!((after_writing(&done).as_str(), unasked.calls()), ("NOTHING_WRITTEN", 0));
}

#[tokio::test(start_paused = true)]
async fn a_number_that_no_slogan_has_costs_a_round() {
    let writers = || [writer("A", 1), writer("B", 2), writer("C", 3)];
    let done = contest(writers(), &judge(&[(7, 9), (0, 9), (3, 9)]), 3).await;
    assert_eq!(
        after_writing(&done),
        "JUDGE MISJUDGED JUDGE MISJUDGED JUDGE JUDGED ACCEPTED"
    );
    let done = contest(writers(), &judge(&[(7, 9), (-1, 9)]), 2).await;
    assert_eq!(after_writing(&done), "JUDGE MISJUDGED JUDGE MISJUDGED NO_WINNER");
}
