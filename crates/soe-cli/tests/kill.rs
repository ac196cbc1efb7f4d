//! `kill -9` at random moments: nothing that was acknowledged is lost, and nothing happens twice.
#![allow(missing_docs, clippy::unwrap_used)]
#![cfg(unix)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::json;
use support::work::{Ending, RESUME, RUN, folder, outcome};
use support::{Done, Random, Soe};

/// How often processes are killed that run an execution, and that send a signal.
const KILLS: [usize; 2] = [170, 30];

#[test]
fn killed_at_any_moment_an_execution_ends_as_if_undisturbed() {
    let mut random = Random::seeded();
    let undisturbed = folder();
    let time = |id: &str| {
        let start = Instant::now();
        undisturbed.run(&[&RUN[..], &[id]].concat()).exits_with(0);
        start.elapsed().as_micros() as u64
    };
    // So that most processes are killed in the middle, on slow machines too. (The first run also reads the program.)
    let longest = time("warm").min(time("e")) / 3;
    let expected = outcome(&undisturbed, "e");

    let soe = folder();
    let mut phases: BTreeMap<String, usize> = BTreeMap::new();
    let (mut kills, mut execution, mut first) = (0, 0, true);
    while kills < KILLS[0] {
        let id = format!("e{execution}");
        let command = match (first, random.below(4)) {
            (true, _) => [&RUN[..], &[&id]].concat(),
            // Everything, one by its name, or by a signal that nothing listens to.
            (_, 0) => [&["resume", &id], &RESUME[1..]].concat(),
            (_, 1) => [&["signal", &id, "WAKE"], &RESUME[1..]].concat(),
            _ => RESUME.to_vec(),
        };
        let after = Duration::from_micros(random.below(longest));
        match killed_after(&soe, &command, after) {
            (done, false) => {
                done.exits_with(0);
                assert_eq!(without_wakes(outcome(&soe, &id)), expected.renamed(&id), "{id}");
                execution += 1;
                first = true;
            }
            (_, true) => {
                kills += 1;
                let phase = phase(&soe, &id);
                first = phase.is_none();
                *phases.entry(phase.unwrap_or("nothing".into())).or_default() += 1;
            }
        }
    }
    println(&format!(
        "{execution} executions ended; killed in the phases {phases:?}"
    ));
    soe.run(&RESUME).exits_with(0);
    if !first {
        let id = format!("e{execution}");
        assert_eq!(without_wakes(outcome(&soe, &id)), expected.renamed(&id));
    }
    assert!(
        soe.run(&RESUME).exits_with(0).stderr.is_empty(),
        "nothing is left to do"
    );
    for phase in ["loop", "children"] {
        assert!(phases.contains_key(phase), "{phases:?}");
    }
}

#[test]
fn signals_that_were_acknowledged_are_there_exactly_once() {
    const WAITING: &str =
        "w: {Heard: {node_type: router, event_triggers: [START, MORE], event_emissions: [{signal_name: HEARD}]}}";
    let mut random = Random::seeded();
    let soe = Soe::with(&[("w.yaml", WAITING)]);
    let start = Instant::now();
    soe.run(&["run", "w.yaml", "--store", "x.db", "--id", "e"])
        .exits_with(0);
    let longest = start.elapsed().as_micros() as u64;
    let (mut sent, mut acknowledged, mut kills) = (0, BTreeSet::new(), 0);
    while kills < KILLS[1] {
        let name = format!("S{sent}");
        let command = ["signal", "e", &name, "MORE", "--store", "x.db", "--json"];
        let (done, killed) = killed_after(&soe, &command, Duration::from_micros(random.below(longest)));
        kills += usize::from(killed);
        let said = done
            .stdout
            .lines()
            .any(|line| line.contains("signals_broadcast") && line.contains(&name));
        if said || done.code == Some(0) {
            acknowledged.insert(sent);
        }
        sent += 1;
    }
    let resumed = soe.run(&["resume", "e", "--store", "x.db", "--json"]).exits_with(0);
    let result = resumed.json_lines().pop().unwrap();
    let signals: Vec<&str> = result["signals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    let count = |name: &str| signals.iter().filter(|signal| **signal == name).count();
    for number in 0..sent {
        let times = count(&format!("S{number}"));
        let least = usize::from(acknowledged.contains(&number));
        assert!(
            (least..=1).contains(&times),
            "S{number} is there {times} times; acknowledged {acknowledged:?}"
        );
    }
    // Each batch that is there was heard once, as was the start.
    assert_eq!(count("HEARD"), count("MORE") + 1);
    println(&format!(
        "{sent} sent, {} acknowledged, {} there",
        acknowledged.len(),
        count("MORE")
    ));
}

/// Signals that were only sent to wake it are no part of what the workflow does.
fn without_wakes(mut ending: Ending) -> Ending {
    for shown in ending.executions.values_mut() {
        let signals = shown["signals"].as_array_mut().unwrap();
        signals.retain(|signal| signal != "WAKE");
    }
    ending
}

/// Where an execution was when its process was killed; `None` if it wasn't created yet.
fn phase(soe: &Soe, id: &str) -> Option<String> {
    let shown = soe.run(&["show", id, "--store", "x.db", "--json"]);
    if shown.code != Some(0) {
        assert!(
            shown.stderr.contains("no such execution") || shown.stderr.contains("no store"),
            "{shown:?}"
        );
        return None;
    }
    let shown = shown.json();
    let sent = |signal: &str| shown["signals"].as_array().unwrap().contains(&json!(signal));
    let phase = match () {
        () if shown["status"] == "rested" => "rested",
        () if sent("ALL_PARTS") => "last",
        () if sent("TOGETHER") => "children",
        () if sent("BRANCH") => "branches",
        () => "loop",
    };
    Some(phase.to_owned())
}

/// Runs a command and kills it. Gives what it wrote until then, and whether it was killed or had ended before.
fn killed_after(soe: &Soe, command: &[&str], after: Duration) -> (Done, bool) {
    let mut child = soe.command(command).spawn().unwrap();
    let start = Instant::now();
    while start.elapsed() < after && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    let done = Done::from(child.wait_with_output().unwrap());
    let killed = done.code.is_none();
    (done, killed)
}

#[expect(clippy::print_stderr, reason = "says what a failure was about")]
fn println(text: &str) {
    eprintln!("{text}");
}
