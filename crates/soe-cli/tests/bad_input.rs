//! Bad input on the command line: an error that says what is wrong, or it works.
#![allow(missing_docs, clippy::unwrap_used)]
#![cfg(unix)]

mod support;

use std::fs::File;
use std::io::Write;

use support::{Done, Soe, wait};

const ROUTER: &str =
    "flow: {Start: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: DONE}]}}";

/// One node that takes a moment.
const WORK: &str = "
flow:
  A: {node_type: tool, event_triggers: [START], tool_name: work, output_field: out, event_emissions: [{signal_name: DONE}]}
";

const TOOLS: &str = "
tools:
  work:
    type: command
    command: [sh, -c, 'sleep 0.05; echo 1']
";

fn context(soe: &Soe, content: &[u8], repeat: usize) {
    let mut file = File::create(soe.path("context.json")).unwrap();
    file.write_all(b"{\"x\": \"").unwrap();
    (0..repeat).for_each(|_| file.write_all(content).unwrap());
    file.write_all(b"\"}").unwrap();
}

#[test]
fn fifty_megabytes_of_context_are_taken_and_a_hundred_refused() {
    let soe = Soe::with(&[("w.yaml", ROUTER)]);
    let megabyte = vec![b'x'; 1 << 20];
    context(&soe, &megabyte, 50);
    let done = soe.run(&["run", "-q", "w.yaml", "--context", "@context.json"]);
    assert_eq!(
        (done.code, done.json()["x"].as_str().unwrap().len()),
        (Some(0), 50 << 20)
    );
    context(&soe, &megabyte, 100);
    soe.run(&["run", "-q", "w.yaml", "--context", "@context.json"])
        .exits_with(1)
        .says("exceeds the limit value_bytes of 67108864 bytes")
        .says("'x'");
}

#[test]
fn a_context_without_end() {
    let soe = Soe::with(&[("w.yaml", ROUTER)]);
    for text in [
        "[".repeat(100_000),
        format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)),
    ] {
        std::fs::write(soe.path("context.json"), format!("{{\"x\": {text}}}")).unwrap();
        soe.run(&["run", "w.yaml", "--context", "@context.json"])
            .exits_with(2)
            .says("recursion limit");
    }
    let text = format!("x={}{}", "[".repeat(10_000), "]".repeat(10_000));
    // No JSON that can be read, so it is text.
    soe.run(&["run", "-q", "w.yaml", "--set", &text])
        .exits_with(0)
        .says("[[[[");
}

#[test]
fn ids_that_lead_elsewhere() {
    let soe = Soe::with(&[("w.yaml", ROUTER)]);
    let long = "a".repeat(300);
    for id in ["../../x", "", &long, "größe", "a/b", ".."] {
        for arguments in [
            vec!["run", "w.yaml", "--store", "s", "--id", id],
            vec!["signal", id, "START", "--store", "s"],
            vec!["show", id, "--store", "s"],
        ] {
            soe.run(&arguments).exits_with(2).says("can't be an execution id");
        }
    }
    assert!(!soe.path("s").exists() && !soe.path("../../x").exists());
}

#[test]
fn a_command_that_prints_brackets_for_ever() {
    let shell = "tools: {work: {type: command, command: [sh, -c, 'yes [ | head -500000 | tr -d \"\\n\"']}}";
    let soe = Soe::with(&[("w.yaml", WORK), ("tools.yaml", shell)]);
    let done = soe.run(&["run", "-q", "w.yaml"]).exits_with(0).says("recursion limit");
    assert!(done.stdout.len() < 2_000, "{}", done.stdout.len());
}

#[test]
fn a_store_without_room_says_so_and_goes_on_when_there_is_room() {
    let soe = Soe::with(&[("w.yaml", ROUTER), ("folder", "")]);
    soe.run(&["run", "-q", "w.yaml", "--store", "folder"])
        .exits_with(1)
        .says("something else is in the place");

    soe.run(&["run", "-q", "w.yaml", "--store", "s", "--id", "one"])
        .exits_with(0);
    let before = soe.run(&["show", "one", "--store", "s", "--json"]).json();
    // Files of more than 4 KB can't be written.
    let limited = |arguments: &str| {
        let script = format!(
            "trap '' XFSZ; ulimit -f 8; exec {} {arguments}",
            env!("CARGO_BIN_EXE_soe")
        );
        let mut command = std::process::Command::new("sh");
        let output = command
            .args(["-c", &script])
            .current_dir(soe.path(""))
            .output()
            .unwrap();
        Done::from(output)
    };
    let many: String = (0..500).map(|i| format!("SIGNAL{i} ")).collect();
    limited(&format!("signal one {many} --store s"))
        .exits_with(1)
        .says("limits the size of files");
    assert_eq!(soe.run(&["show", "one", "--store", "s", "--json"]).json(), before);
    let done = soe.run(&["signal", "one", "START", "--store", "s", "-q"]).exits_with(0);
    assert!(!done.stdout.contains("SIGNAL1"));
}

#[test]
fn processes_share_a_store() {
    let soe = Soe::with(&[("w.yaml", WORK), ("tools.yaml", TOOLS)]);
    let spawn = |arguments: &[&str]| soe.command(arguments).spawn().unwrap();
    let ids: Vec<String> = (0..6).map(|i| format!("e{i}")).collect();
    let runs: Vec<_> = ids
        .iter()
        .map(|id| spawn(&["run", "-q", "w.yaml", "--store", "s", "--id", id]))
        .collect();
    runs.into_iter().for_each(|child| {
        wait(child).exits_with(0);
    });
    assert_eq!(soe.run(&["list", "--store", "s", "--json"]).json_lines().len(), 6);

    // Of those that start the same one, one does.
    let same: Vec<_> = (0..4)
        .map(|_| spawn(&["run", "-q", "w.yaml", "--store", "s", "--id", "same"]))
        .collect();
    let done: Vec<Done> = same.into_iter().map(wait).collect();
    assert_eq!(done.iter().filter(|done| done.code == Some(0)).count(), 1, "{done:#?}");
    for refused in done.into_iter().filter(|done| done.code != Some(0)) {
        refused.exits_with(1).says("of that id already");
    }
}

#[test]
fn processes_signal_the_same_execution() {
    let soe = Soe::with(&[("w.yaml", WORK), ("tools.yaml", TOOLS)]);
    soe.run(&["run", "-q", "w.yaml", "--store", "s", "--id", "one"])
        .exits_with(0);
    let signal = ["signal", "-q", "one", "START", "--store", "s", "--tools", "tools.yaml"];
    let children: Vec<_> = (0..4).map(|_| soe.command(&signal).spawn().unwrap()).collect();
    let done: Vec<Done> = children.into_iter().map(wait).collect();
    // Who loses the race says so; nobody overwrites anybody.
    for failed in done.iter().filter(|done| done.code != Some(0)) {
        assert_eq!(failed.code, Some(1), "{failed:#?}");
        assert!(
            failed.stderr.contains("another process") || failed.stderr.contains("version"),
            "{failed:#?}"
        );
    }
    // Whatever happened, the next one goes on with it.
    soe.run(&signal).exits_with(0);
    let shown = soe.run(&["show", "one", "--store", "s", "--json"]).exits_with(0).json();
    assert_eq!(shown["status"], "rested", "{shown}");
    let starts = shown["signals"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|signal| *signal == "START");
    let succeeded = done.iter().filter(|done| done.code == Some(0)).count();
    assert!(
        starts.count() >= 2 + succeeded,
        "a signal that was taken is lost: {done:#?} {shown}"
    );
}
