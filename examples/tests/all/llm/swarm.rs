//! 19 A swarm of twelve votes.

use std::time::Duration;

use serde_json::{Value, json};
use soe_core::llm::LlmErrorKind;
use soe_core::runtime::Engine;
use soe_core::testing::{MockLlm, node};
use tokio::time::Instant;

use super::{Done, has_line, is_mocked, run};
use crate::support::stdout;

const PROGRAM: &str = env!("CARGO_BIN_EXE_19-swarm-vote");

/// The ballots, one a voter: true, false, or none, who can't vote. Voter `n` takes `latency(n)` milliseconds.
fn swarm(ballots: &[Option<bool>], latency: impl Fn(u64) -> u64) -> MockLlm {
    let llm = MockLlm::new();
    for (number, ballot) in (0..).zip(ballots) {
        let rule = llm.on(node("Vote").prompt_contains(format!("You are voter-{number} in")));
        match ballot {
            Some(yes) => rule.output(json!({"yes": yes, "reason": format!("reason {number}")})),
            None => rule.error(LlmErrorKind::Timeout, "no answer"),
        }
        .after(Duration::from_millis(latency(number)));
    }
    llm
}

async fn decide(llm: &MockLlm, voters: usize) -> Done {
    let workflow = include_str!("../../../19-swarm-vote/workflow.yaml");
    let voters: Vec<Value> = (0..voters)
        .map(|number| json!({"who": format!("voter-{number}"), "view": "any"}))
        .collect();
    let fields = json!({"proposal": "Tea for all.", "voters": voters});
    let done = run(Engine::builder().llm(llm.clone()), workflow, fields).await;
    done.result.as_ref().unwrap();
    done
}

/// `yes` votes for it, `no` votes against it, and the others of twelve can't vote.
fn ballots(yes: usize, no: usize) -> Vec<Option<bool>> {
    let all = [vec![Some(true); yes], vec![Some(false); no], vec![None; 12 - yes - no]];
    all.concat()
}

#[test]
fn the_program_counts_twelve_and_breaks_a_tie_of_ten() {
    let printed = stdout(PROGRAM, &[]);
    is_mocked(&printed);
    has_line(&printed, "Tally was evaluated 12 times, Decide 1 time");
    let votes = |prefix: &str| printed.lines().filter(|line| line.starts_with(prefix)).count();
    assert_eq!([votes("for: "), votes("against: ")], [7, 5], "{printed}");
    let signals = format!("signals: START {}TALLIED ADOPTED", "VOTED ".repeat(12));
    has_line(&printed, &signals);
    assert!(printed.contains("12 requests, 1020 tokens"), "{printed}");

    let printed = stdout(PROGRAM, &["--voters", "10"]);
    has_line(&printed, "Tally was evaluated 10 times, Decide 1 time");
    let signals = format!("signals: START {}TALLIED TIE REJECTED", "VOTED ".repeat(10));
    has_line(&printed, &signals);
    has_line(
        &printed,
        "the chair is against it: With the town divided, everything stays as it is.",
    );
}

#[tokio::test(start_paused = true)]
async fn the_majority_decides_whatever_the_order() {
    let orders: [fn(u64) -> u64; 4] = [|_| 500, |n| n * 100, |n| 1200 - n * 100, |n| (n * 7 % 12) * 50];
    for latency in orders {
        for (yes, no, outcome) in [
            (12, 0, "ADOPTED"),
            (7, 5, "ADOPTED"),
            (5, 7, "REJECTED"),
            (1, 0, "ADOPTED"),
            (3, 4, "REJECTED"),
        ] {
            let began = Instant::now();
            let llm = swarm(&ballots(yes, no), latency);
            let done = decide(&llm, 12).await;
            let case = format!("{yes}:{no} {}", done.signals());
            assert_eq!(
                [done.times("VOTED"), done.times("ABSTAINED")],
                [yes + no, 12 - yes - no],
                "{case}"
            );
            assert_eq!(
                [done.times("TALLIED"), done.times(outcome), done.times("TIE")],
                [1, 1, 0],
                "{case}"
            );
            assert_eq!(
                [done.runs("Tally"), done.runs("Decide"), done.runs("Chair")],
                [12, 1, 0],
                "{case}"
            );
            assert_eq!(
                (llm.calls(), done.context.operational.tree.children),
                (12, 12),
                "{case}"
            );
            // All at the same time: as long as the slowest.
            let slowest = (0..12).map(latency).max().unwrap();
            assert_eq!(began.elapsed().as_millis() / 50, u128::from(slowest) / 50, "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_tie_goes_to_the_chair_who_reads_all_reasons() {
    for (yes, outcome) in [(true, "ADOPTED"), (false, "REJECTED")] {
        for (side, voters) in [(6, 12), (5, 12), (0, 12), (0, 0)] {
            let llm = swarm(&ballots(side, side), |_| 100);
            llm.on(node("Chair")).output(json!({"yes": yes, "reason": "so be it"}));
            let done = decide(&llm, voters).await;
            let end = format!("TALLIED TIE {outcome}");
            assert!(done.signals().ends_with(&end), "{}", done.signals());
            assert_eq!([done.times("TALLIED"), done.times("TIE")], [1, 1]);
            let asked = &llm.requests_of("Chair")[0].text;
            let reasons = [
                asked.matches("For it: reason").count(),
                asked.matches("Against it: reason").count(),
            ];
            assert_eq!(reasons, [side, side], "{asked}");
        }
    }
    let silent = swarm(&ballots(6, 6), |_| 100);
    silent.on(node("Chair")).error(LlmErrorKind::Refused, "no");
    assert!(decide(&silent, 12).await.signals().ends_with("TALLIED TIE UNDECIDED"));
}

#[tokio::test(start_paused = true)]
async fn no_voter_knows_how_the_others_vote() {
    let llm = swarm(&ballots(6, 5), |number| number * 100);
    decide(&llm, 12).await;
    for request in llm.requests_of("Vote") {
        assert!(!request.text.contains("reason 0"), "{}", request.text);
    }
}
