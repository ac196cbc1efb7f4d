//! `soe resume`, `soe cancel`, `soe events` and `soe list` on stores, as people and scripts see them.
#![allow(missing_docs, clippy::unwrap_used)]
#![cfg(unix)]

mod support;

use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::{Soe, wait};

/// A slow tool, in an execution of its own or in children.
const WORKFLOWS: &str = "
one:
  Do:
    node_type: tool
    event_triggers: [START]
    tool_name: slow
    output_field: result
    event_emissions: [{signal_name: DONE}]
many:
  Each:
    node_type: child
    event_triggers: [START]
    child_workflow_name: one
    child_initial_signals: [START]
    fan_out_field: items
    child_input_field: item
    signals_to_parent: [DONE]
loop:
  Again: {node_type: router, event_triggers: [START, AGAIN], event_emissions: [{signal_name: AGAIN}]}
quick:
  Rest: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: DONE}]}
";

/// Ends when the file `release` is there, and some day if nobody waits for it any more.
const TOOLS: &str = "
tools:
  slow:
    type: command
    stdin: none
    command: [sh, -c, 'echo begun >> begun; for i in $(seq 1500); do test -e release && break; sleep 0.02; done; echo 1']
";

const STORE: [&str; 2] = ["--store", "x.db"];

fn soe() -> Soe {
    Soe::with(&[("w.yaml", WORKFLOWS), ("tools.yaml", TOOLS)])
}

fn run(soe: &Soe, workflow: &str, id: &str) -> Child {
    let items = ["--set", "items=[1,2,3]"];
    let command = [&["run", "w.yaml", "-w", workflow, "--id", id], &STORE[..], &items].concat();
    // That others have begun says nothing.
    drop(std::fs::remove_file(soe.path("begun")));
    let child = soe.command(&command).spawn().unwrap();
    soe.wait_for_line("begun");
    child
}

/// Leaves it running, with nobody who runs it.
fn interrupted(soe: &Soe, workflow: &str, id: &str) {
    let child = run(soe, workflow, id);
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    wait(child);
}

fn on(soe: &Soe, command: &[&str]) -> support::Done {
    soe.run(&[command, &STORE].concat())
}

fn status(soe: &Soe, id: &str) -> Value {
    on(soe, &["show", id, "--json"]).exits_with(0).json()["status"].take()
}

#[test]
fn what_was_interrupted_is_taken_up() {
    let soe = soe();
    interrupted(&soe, "one", "a");
    interrupted(&soe, "many", "b");
    on(&soe, &["resume"])
        .exits_with(1)
        .says("nothing was taken up")
        .says("needs the tools slow: give the file that describes them with --tools");
    std::fs::write(soe.path("release"), "").unwrap();
    let done = on(&soe, &["resume", "--tools", "tools.yaml"]).exits_with(0);
    let done = done
        .says("a is rested: 1 node run")
        .says("b is rested: 4 node runs, 3 tool calls, 0 errors, 3 children");
    assert_eq!(done.stdout, "");
    let done = on(&soe, &["resume", "--tools", "tools.yaml"]).exits_with(0);
    done.says("nothing was left running");

    std::fs::remove_file(soe.path("release")).unwrap();
    interrupted(&soe, "one", "c");
    std::fs::write(soe.path("release"), "").unwrap();
    let done = on(&soe, &["resume", "--tools", "tools.yaml", "--json"]).exits_with(0);
    let lines = done.json_lines();
    assert_eq!(
        (lines.len(), &lines[0]["execution"], &lines[0]["status"]),
        (1, &json!("c"), &json!("rested"))
    );

    std::fs::remove_file(soe.path("release")).unwrap();
    interrupted(&soe, "one", "d");
    std::fs::write(soe.path("release"), "").unwrap();
    let done = on(&soe, &["resume", "d", "--tools", "tools.yaml"]).exits_with(0);
    assert_eq!(done.json()["result"], 1);
    on(&soe, &["resume", "d", "--tools", "tools.yaml"])
        .exits_with(0)
        .says("note: nothing is left to do: it is rested");
}

#[test]
fn resuming_is_interrupted_like_running() {
    let soe = soe();
    interrupted(&soe, "one", "a");
    std::fs::remove_file(soe.path("begun")).unwrap();
    let command = ["resume", "--tools", "tools.yaml", "--store", "x.db"];
    let child = soe.command(&command).spawn().unwrap();
    soe.wait_for_line("begun");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    wait(child)
        .exits_with(130)
        .says("1 execution stopped. To go on:\n  soe resume --store x.db --tools tools.yaml\n");
    assert_eq!(status(&soe, "a"), "running");
}

#[test]
fn one_that_has_failed_goes_on_under_another_limit() {
    let soe = soe();
    let command = ["run", "w.yaml", "-w", "loop", "--id", "a", "--limit", "broadcasts=10"];
    on(&soe, &command)
        .exits_with(1)
        .says("To run what failed again:\n  soe resume a --store x.db --tools tools.yaml\n");
    let resume = |options: &[&str]| on(&soe, &[&["resume", "a", "-q"], options].concat());
    resume(&["--limit", "broadcasts=20"]).exits_with(1).says("20");
    resume(&["--limit", "broadcast=20"])
        .exits_with(2)
        .says("there is no limit 'broadcast'");
    on(&soe, &["resume", "--limit", "broadcasts=20"])
        .exits_with(2)
        .says("<ID>");
    let signals = on(&soe, &["show", "a", "--json"]).json()["signals"]
        .as_array()
        .unwrap()
        .len();
    assert!((15..=25).contains(&signals), "{signals}");
}

#[test]
fn what_another_process_runs_is_left_to_it() {
    let soe = soe();
    let child = run(&soe, "one", "a");
    on(&soe, &["resume"]).exits_with(0).says("note: a is left to process ");
    // What is asked of another process is taken by that one, and followed here until all rests.
    let signal = ["signal", "a", "X", "--tools", "tools.yaml", "--store", "x.db"];
    let signal = soe.command(&signal).spawn().unwrap();
    soe.wait_until(|| on(&soe, &["events", "a", "--json"]).stdout.contains("message_taken"));
    let follow = ["events", "a", "--follow", "--store", "x.db"];
    let follower = soe.command(&follow).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    std::fs::write(soe.path("release"), "").unwrap();
    wait(child).exits_with(0);
    wait(signal)
        .exits_with(0)
        .says("runs it and has taken the signals: it is followed")
        .says("a is rested");
    let shown = wait(follower).exits_with(0);
    assert!(
        shown.stdout.starts_with("    0.000  start    workflow one\n"),
        "{shown:?}"
    );
    assert!(
        shown.stdout.contains("signal   DONE") && shown.stdout.trim_end().ends_with("rested"),
        "{shown:?}"
    );
}

#[test]
fn a_cancelled_tree_is_cancelled_as_a_whole() {
    let soe = soe();
    interrupted(&soe, "many", "a");
    on(&soe, &["cancel", "a"]).exits_with(0).says("a is cancelled");
    let tree = on(&soe, &["list", "--tree", "a", "--json"]).exits_with(0).json_lines();
    assert_eq!(tree.len(), 4, "{tree:#?}");
    assert!(
        tree.iter().all(|execution| execution["status"] == "cancelled"),
        "{tree:#?}"
    );
    on(&soe, &["cancel", "a"]).exits_with(0).says("cancelled already");
    on(&soe, &["resume", "a", "--tools", "tools.yaml"])
        .exits_with(1)
        .says("execution a: it is cancelled");
}

#[test]
fn events_are_read_from_any_number_on() {
    let soe = soe();
    on(&soe, &["run", "w.yaml", "-w", "quick", "--id", "a", "-q"]).exits_with(0);
    let all = on(&soe, &["events", "a", "--json"]).exits_with(0).json_lines();
    let numbers: Vec<_> = all.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..all.len() as u64).collect::<Vec<_>>());
    assert!(all.iter().all(|event| event["execution"] == "a"));
    let rest = on(&soe, &["events", "a", "--json", "--from", "2", "--follow"]).exits_with(0);
    assert_eq!(rest.json_lines(), all[2..]);
    let lines = on(&soe, &["events", "a"]).exits_with(0).stdout;
    assert!(
        lines.contains("start    workflow quick") && lines.contains("rested"),
        "{lines}"
    );

    interrupted(&soe, "one", "b");
    on(&soe, &["events", "b", "--follow"])
        .exits_with(1)
        .says("call     Do: slow")
        .says("no process runs it: `soe resume` goes on with it");
}

#[test]
fn lists_are_cut_and_of_one_tree() {
    let soe = soe();
    std::fs::write(soe.path("release"), "").unwrap();
    for id in ["a", "b"] {
        let child = run(&soe, "many", id);
        wait(child).exits_with(0);
    }
    let ids = |options: &[&str]| -> Vec<String> {
        let lines = on(&soe, &[&["list", "--json"], options].concat())
            .exits_with(0)
            .json_lines();
        lines
            .iter()
            .map(|line| line["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(&[]), ["b", "a"]);
    assert_eq!(ids(&["--roots", "--limit", "1"]), ["b"]);
    assert_eq!(ids(&["--workflow", "many", "--since", "1h"]).len(), 2);
    assert_eq!(ids(&["--workflow", "one"]).len(), 0);
    on(&soe, &["list", "--since", "soon"])
        .exits_with(2)
        .says("a time such as");
    let shown = on(&soe, &["list"]).exits_with(0).stdout;
    assert!(shown.contains("many, 3 children"), "{shown}");
    let tree = ids(&["--tree", "a"]);
    assert!(tree.len() == 4 && tree.iter().all(|id| id.starts_with('a')), "{tree:?}");
    assert_eq!(ids(&["--tree", "a", "--limit", "1"]).len(), 1);
    on(&soe, &["list", "--limit", "0"]).exits_with(2).says("from 1 on");
}

#[test]
fn what_is_not_there_is_said() {
    let soe = soe();
    let commands = [&["resume"][..], &["resume", "a"], &["cancel", "a"], &["events", "a"]];
    for command in commands {
        on(&soe, command).exits_with(1).says("there is no store in x.db");
    }
    on(&soe, &["run", "w.yaml", "-w", "quick", "--id", "b", "-q"]).exits_with(0);
    for command in &commands[1..] {
        on(&soe, command)
            .exits_with(1)
            .says("execution a: there is no such execution");
    }
    let refused = on(&soe, &["resume", "a", "--json"])
        .exits_with(1)
        .json_lines()
        .pop()
        .unwrap();
    assert_eq!(
        (&refused["execution"], &refused["status"]),
        (&json!("a"), &json!("error"))
    );
}
