//! Ctrl-C and its relatives.
#![allow(missing_docs, clippy::unwrap_used)]
#![cfg(unix)]

mod support;

use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use support::Soe;

const WORKFLOW: &str = "
w:
  Do:
    node_type: tool
    event_triggers: [START]
    tool_name: slow
    output_field: result
    event_emissions: [{signal_name: DONE}]
";

/// A tool that starts a process of its own and waits for it, until the file `release` is there.
const TOOLS: &str = "
tools:
  slow:
    type: command
    command: [sh, -c, 'if test -e release; then echo 1; exit; fi; sleep 300 & echo $! > child; wait']
";

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn ctrl_c_cancels_and_kills_what_runs() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let soe = Soe::with(&[("w.yaml", WORKFLOW), ("tools.yaml", TOOLS)]);
        let child = soe.command(&["run", "w.yaml"]).spawn().unwrap();
        let started = soe.wait_for_line("child");
        send(&child, signal);
        let done = support::wait(child).exits_with(code);
        done.says("interrupted: cancelling")
            .says("cancelled one run was stopped")
            .says("is cancelled");
        support::wait_for_death(&started);
    }
}

#[test]
fn json_ends_with_the_result_also_then() {
    let soe = Soe::with(&[("w.yaml", WORKFLOW), ("tools.yaml", TOOLS)]);
    let child = soe.command(&["run", "w.yaml", "--json"]).spawn().unwrap();
    soe.wait_for_line("child");
    send(&child, Signal::INT);
    let result = support::wait(child).exits_with(130).json_lines().pop().unwrap();
    assert_eq!(result["status"], "cancelled");
}

#[test]
fn a_stored_execution_can_be_gone_on_with_after_ctrl_c() {
    let soe = Soe::with(&[("w.yaml", WORKFLOW), ("tools.yaml", TOOLS)]);
    let child = soe
        .command(&["run", "w.yaml", "--store", "data", "--id", "r1"])
        .spawn()
        .unwrap();
    let started = soe.wait_for_line("child");
    send(&child, Signal::INT);
    let done = support::wait(child).exits_with(130).says("interrupted: stopping r1");
    done.says("is running")
        .says("soe resume r1 --store data --tools tools.yaml");
    support::wait_for_death(&started);
    let shown = soe
        .run(&["show", "r1", "--store", "data", "--json"])
        .exits_with(0)
        .json();
    assert_eq!(
        (&shown["status"], &shown["running"]),
        (&json!("running"), &json!(["Do"]))
    );

    std::fs::write(soe.path("release"), "").unwrap();
    let done = soe
        .run(&["signal", "r1", "GO_ON", "--store", "data", "--tools", "tools.yaml"])
        .exits_with(0);
    let done = done.says("note: it was left running");
    assert_eq!(done.json()["result"], 1);
    let shown = soe.run(&["show", "r1", "--store", "data", "--json"]).json();
    assert_eq!(shown["status"], "rested");
}

#[test]
fn also_a_quiet_command_says_how_to_go_on() {
    let soe = Soe::with(&[("w.yaml", WORKFLOW), ("tools.yaml", TOOLS)]);
    let child = soe
        .command(&["run", "w.yaml", "--store", "data", "--quiet"])
        .spawn()
        .unwrap();
    soe.wait_for_line("child");
    // Some programs send a signal to a process and to its group, so that it comes twice.
    send(&child, Signal::INT);
    std::thread::sleep(Duration::from_millis(20));
    send(&child, Signal::INT);
    let done = support::wait(child).exits_with(130);
    done.says("is running").says("To go on:\n  soe resume ");
}

#[test]
fn a_second_ctrl_c_ends_the_command_whatever_it_waits_for() {
    let text = format!(
        "{WORKFLOW}  Loop:\n    node_type: router\n    event_triggers: [START, AGAIN]\n    event_emissions: [{{signal_name: AGAIN}}]\n"
    );
    let soe = Soe::with(&[("w.yaml", &text), ("tools.yaml", TOOLS)]);
    // Nobody reads its events, so that it soon waits for its stdout.
    let mut child = soe.command(&["run", "w.yaml", "--json"]).spawn().unwrap();
    let stdout = child.stdout.take();
    let started = soe.wait_for_line("child");
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < support::PATIENCE);
        send(&child, Signal::INT);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(stdout);
    support::wait_for_death(&started);
}
