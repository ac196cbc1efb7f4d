//! The programs that run to their end.

use super::support::stdout;

#[test]
fn orders_end_in_four_ways() {
    let printed = stdout(env!("CARGO_BIN_EXE_02-order-processing"), &[]);
    let expected = [
        "Ada: ORDER_SHIPPED (1 x teapot on the way to Ada; failed attempts: 0)",
        r#"Ben: ORDER_REJECTED (["the quantity is zero"]; failed attempts: 0)"#,
        "Cleo: OUT_OF_STOCK (only 3 left; failed attempts: 0)",
        "Dan (flaky bank): ORDER_SHIPPED (6 x cup on the way to Dan (flaky bank); failed attempts: 2)",
        "Eve (no money): ORDER_CANCELLED (card declined: insufficient funds; failed attempts: 1)",
        "left: 4 teapots, 34 cups",
    ];
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn parallel_tools_are_joined_once() {
    let printed = stdout(env!("CARGO_BIN_EXE_03-parallel-join"), &[]);
    for insurer in ["Alpha", "Beta", "Gamma", "Delta"] {
        assert_eq!(
            printed.matches(&format!(r#"quote: {{"insurer":"{insurer}""#)).count(),
            1,
            "{printed}"
        );
    }
    for line in [
        r#"choice: {"insurer":"Beta","cents":47500}"#,
        "AllQuotes ran 4 times",
        "Both ran 2 times",
        "Choose ran 1 time",
    ] {
        assert!(
            printed.lines().any(|printed| printed == line),
            "{line} is not in\n{printed}"
        );
    }
    let signals = printed.lines().find_map(|line| line.strip_prefix("signals: ")).unwrap();
    for (signal, times) in [
        ("QUOTED", 4),
        ("ALL_QUOTED", 1),
        ("RISK_ASSESSED", 1),
        ("READY", 1),
        ("OFFER_MADE", 1),
    ] {
        assert_eq!(
            signals.split(' ').filter(|name| *name == signal).count(),
            times,
            "{signals}"
        );
    }
    // One call after the other would sleep for 1700 ms; the slowest alone sleeps for 400.
    let elapsed = printed.lines().find_map(|line| line.strip_prefix("elapsed: ")).unwrap();
    let millis: u64 = elapsed.split(' ').next().unwrap().parse().unwrap();
    assert!((400..1700).contains(&millis), "{millis} ms");
}

#[test]
fn the_loop_ends_with_the_job_or_with_the_guard() {
    let printed = stdout(env!("CARGO_BIN_EXE_04-guarded-loop"), &[]);
    assert_eq!(
        printed,
        "monthly: finished after 3 polls\nhuge: gave up after 5 polls\n"
    );
}

#[test]
fn votes_decide() {
    let printed = stdout(env!("CARGO_BIN_EXE_07-custom-node"), &[]);
    let expected = "PUBLISH: {\"in_favour\":3,\"votes\":3}\nBACK_TO_AUTHOR: {\"in_favour\":0,\"votes\":3}\n";
    assert_eq!(printed, expected);
}

/// The id and what is said about it, in the last line.
fn last_line(printed: &str) -> (&str, &str) {
    printed.trim_end().lines().last().unwrap().split_once(": ").unwrap()
}

#[test]
fn an_approval_comes_from_another_process_and_counts_once() {
    const PROGRAM: &str = env!("CARGO_BIN_EXE_05-human-approval");
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();

    let printed = stdout(PROGRAM, &["start", dir, "250", "a new chair"]);
    assert!(
        printed.starts_with("to the manager: Please decide on 250 euros for a new chair ["),
        "{printed}"
    );
    let (id, state) = last_line(&printed);
    assert_eq!(state, "waits for a decision");

    let paid = stdout(PROGRAM, &["approve", dir, id]);
    let (same, state) = last_line(&paid);
    assert_eq!(same, id);
    assert!(state.starts_with("paid (250 euros, reference "), "{state}");
    // Neither a second click nor the other button changes anything.
    assert_eq!(stdout(PROGRAM, &["approve", dir, id]), paid);
    assert_eq!(stdout(PROGRAM, &["reject", dir, id]), paid);
}

#[test]
fn an_expense_can_be_rejected_and_a_small_one_is_paid_at_once() {
    const PROGRAM: &str = env!("CARGO_BIN_EXE_05-human-approval");
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();

    let printed = stdout(PROGRAM, &["start", dir, "20", "tea"]);
    assert!(
        last_line(&printed).1.starts_with("paid (20 euros, reference "),
        "{printed}"
    );

    let printed = stdout(PROGRAM, &["start", dir, "5000", "a boat"]);
    let id = last_line(&printed).0;
    assert_eq!(last_line(&stdout(PROGRAM, &["reject", dir, id])).1, "rejected");
    assert_eq!(last_line(&stdout(PROGRAM, &["approve", dir, id])).1, "rejected");
}
