//! The examples that the `soe` command runs.

use std::fs;

use serde_json::Value;

use super::support::{examples, soe, stdout};

/// The result of a run: the last line of what `--json` prints.
fn run(example: &str, arguments: &[&str]) -> Value {
    let workflow = examples().join(example).join("workflow.yaml");
    let mut all = vec!["run", workflow.to_str().unwrap(), "--json", "--quiet"];
    all.extend(arguments);
    let printed = stdout(soe(), &all);
    serde_json::from_str(printed.trim_end().lines().last().unwrap()).unwrap()
}

/// How often each of `signals` was broadcast.
fn count<const N: usize>(result: &Value, signals: [&str; N]) -> [usize; N] {
    let all = result["signals"].as_array().unwrap();
    signals.map(|signal| all.iter().filter(|sent| *sent == signal).count())
}

#[test]
fn the_log_is_triaged() {
    let result = run("01-log-triage", &[]);
    assert_eq!(result["status"], "rested");
    assert_eq!(result["context"]["traffic"]["requests"], 166);
    let report = "16 of 166 requests failed (9.6 %). Worst is /api/checkout: 14 times from 09/Mar/2026:10:10:00 to \
                  09/Mar/2026:10:20:19. 203.0.113.77 failed to log in 26 times.";
    assert_eq!(result["context"]["report"], report);
    let once = [
        "TRAFFIC_COUNTED",
        "ERRORS_COUNTED",
        "LOGINS_COUNTED",
        "COUNTED",
        "TOO_MANY_ERRORS",
        "ALERT",
    ];
    assert_eq!(count(&result, once), [1; 6]);
    assert_eq!(result["tool_calls"], 5);
}

#[test]
fn with_a_higher_limit_there_is_no_closer_look() {
    let result = run("01-log-triage", &["--set", "max_percent=20"]);
    let report = "16 of 166 requests failed (9.6 %). 203.0.113.77 failed to log in 26 times.";
    assert_eq!(result["context"]["report"], report);
    assert_eq!(
        count(&result, ["ERRORS_WITHIN_LIMIT", "EVIDENCE_FOUND", "ALERT"]),
        [1, 0, 1]
    );
}

#[test]
fn another_log_is_read_whatever_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("odd \"name\".log");
    let hostile = r#"192.0.2.1"}; - - [09/Mar/2026:10:00:00 +0000] "GET /\"},{"a":" HTTP/1.1" 500 1 "-" "x""#;
    fs::write(&log, format!("{hostile}\nnot a log line\n\n")).unwrap();
    let result = run("01-log-triage", &["--set", &format!("log={}", log.display())]);
    assert_eq!(
        result["context"]["report"]
            .as_str()
            .unwrap()
            .split(" Worst")
            .next()
            .unwrap(),
        "1 of 3 requests failed (33.3 %)."
    );
    assert_eq!(count(&result, ["ALERT"]), [1]);

    fs::write(&log, "").unwrap();
    let result = run("01-log-triage", &["--set", &format!("log={}", log.display())]);
    assert_eq!(result["context"]["report"], "0 of 0 requests failed (0.0 %).");
    assert_eq!(count(&result, ["ALL_CLEAR"]), [1]);

    let result = run("01-log-triage", &["--set", "log=missing.log"]);
    assert_eq!(count(&result, ["TRIAGE_FAILED", "COUNTED"]), [3, 0]);
}

#[test]
fn an_expense_waits_for_a_signal_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().to_str().unwrap();
    let set = ["--set", "amount=250", "--set", "purpose=chair", "--store", store];
    let waiting = run("05-human-approval", &set);
    assert_eq!(
        waiting["context"]["notified"],
        "asked: Please decide on 250 euros for chair"
    );
    assert_eq!(waiting["context"]["payment"], Value::Null);

    let id = waiting["execution"].as_str().unwrap();
    let tools = examples().join("05-human-approval/tools.yaml");
    let signal = [
        "signal",
        id,
        "APPROVED",
        "--store",
        store,
        "--tools",
        tools.to_str().unwrap(),
        "--json",
        "--quiet",
    ];
    for _ in 0..2 {
        let printed = stdout(soe(), &signal);
        let result: Value = serde_json::from_str(printed.trim_end().lines().last().unwrap()).unwrap();
        assert_eq!(result["context"]["payment"], format!("250 euros, reference {id}:2"));
        assert_eq!(count(&result, ["PAID"]), [1]);
    }
}

#[test]
fn workflows_and_tools_are_valid_for_the_command_line() {
    for example in ["01-log-triage", "05-human-approval"] {
        let files = ["workflow.yaml", "tools.yaml"].map(|file| examples().join(example).join(file));
        let mut all = vec![
            "validate", "--strict", "--signal", "START", "--signal", "APPROVED", "--signal", "REJECTED",
        ];
        all.extend(files.iter().map(|file| file.to_str().unwrap()));
        stdout(soe(), &all);
    }
}
