//! A disk without room: the command says so, nothing that it has said is lost, and it goes on when there is room.
#![allow(missing_docs, clippy::unwrap_used)]
#![cfg(unix)]

mod support;

use std::process::Command;

use support::work::{RESUME, RUN, folder, outcome};
use support::{Done, Soe};

/// Runs a command that can't write files beyond so many blocks.
fn limited(soe: &Soe, blocks: u64, arguments: &[&str]) -> Done {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_soe")]).args(arguments);
    Done::from(command.current_dir(soe.path("")).output().unwrap())
}

#[test]
fn an_execution_that_the_disk_stopped_goes_on_when_there_is_room() {
    let undisturbed = folder();
    undisturbed.run(&[&RUN[..], &["e"]].concat()).exits_with(0);
    let expected = outcome(&undisturbed, "e");

    let soe = folder();
    let (mut stopped, mut known) = (0, Vec::new());
    let run: Vec<&str> = RUN.iter().filter(|word| **word != "-q").copied().collect();
    for blocks in [200, 400, 800, 1600] {
        // The first that finds room for it creates the execution.
        let created = soe.run(&["show", "e", "--store", "x.db"]).code == Some(0);
        let command = match created {
            true => ["resume", "e", "--json"].iter().chain(&RESUME[2..]).copied().collect(),
            false => [&run[..], &["e", "--json"]].concat(),
        };
        let done = limited(&soe, blocks, &command).exits_with(1);
        let mut lines = done.json_lines();
        let last = lines.pop().unwrap();
        let error = last["error"].as_str().unwrap();
        assert!(
            error.contains("x.db") && error.contains("a limit on the size of files"),
            "{error}"
        );
        stopped += usize::from(!lines.is_empty());
        known.extend(lines);
    }
    assert!(stopped >= 2, "it came nowhere");
    let stored = soe
        .run(&["events", "e", "--store", "x.db", "--json"])
        .exits_with(0)
        .json_lines();
    for event in &known {
        assert_eq!(stored[event["seq"].as_u64().unwrap() as usize], *event);
    }
    soe.run(&RESUME).exits_with(0).says("e is rested");
    assert_eq!(outcome(&soe, "e"), expected);
}

#[test]
fn how_to_go_on_is_said() {
    let soe = folder();
    let run: Vec<&str> = RUN.iter().filter(|word| **word != "-q").copied().collect();
    limited(&soe, 800, &[&run[..], &["e"]].concat())
        .exits_with(1)
        .says("When the store works again:\n  soe resume e --store x.db --tools tools.yaml\n")
        .says("error: execution e: the store failed: ");
}
