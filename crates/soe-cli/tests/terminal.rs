//! What people see on a terminal.
#![allow(missing_docs, clippy::unwrap_used)]
#![cfg(target_os = "linux")]

mod support;

use std::fs::File;
use std::io::Read;
use std::process::Child;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use support::Soe;

const WORKFLOW: &str = "
w:
  Do:
    node_type: tool
    event_triggers: [START]
    tool_name: slow
    output_field: result
";

/// A tool that waits until somebody writes to the pipe `gate`.
const TOOLS: &str = "tools: {slow: {type: command, command: [cat, gate], stdin: none}}";

/// Starts a command on a terminal.
fn spawn(soe: &Soe, arguments: &[&str], env: &[(&str, &str)]) -> (Child, File) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let other_end = || File::options().read(true).write(true).open(&name).unwrap();
    let mut command = soe.command(arguments);
    command
        .envs(env.iter().copied())
        .stdout(other_end())
        .stderr(other_end());
    (command.spawn().unwrap(), terminal.into())
}

/// Reads what comes until `text` has come, or the end.
fn read_until(terminal: &mut File, text: Option<&str>) -> String {
    let mut seen = String::new();
    let mut chunk = [0; 1024];
    // The end of a terminal is an error.
    while let Ok(count @ 1..) = terminal.read(&mut chunk) {
        seen.push_str(&String::from_utf8_lossy(&chunk[..count]));
        if text.is_some_and(|text| seen.contains(text)) {
            return seen;
        }
    }
    assert!(text.is_none(), "{text:?} never comes: {seen}");
    seen
}

#[test]
fn colours_are_for_terminals_and_can_be_switched_off() {
    let soe = Soe::with(&[("w.yaml", "x: 1")]);
    let shown = |arguments: &[&str], env| {
        let (mut child, mut terminal) = spawn(&soe, &[&["validate", "w.yaml"], arguments].concat(), env);
        let shown = read_until(&mut terminal, None);
        assert_eq!(child.wait().unwrap().code(), Some(1), "{shown}");
        shown.contains('\u{1b}')
    };
    assert!(shown(&[], &[]));
    assert!(shown(&[], &[("NO_COLOR", "")]), "an empty NO_COLOR means nothing");
    assert!(!shown(&[], &[("NO_COLOR", "1")]));
    assert!(!shown(&[], &[("TERM", "dumb")]));
    assert!(!shown(&["--color", "never"], &[]));
    assert!(shown(&["--color", "always"], &[("NO_COLOR", "1")]));
}

#[test]
fn what_takes_long_is_shown_and_goes_away() {
    let soe = Soe::with(&[("w.yaml", WORKFLOW), ("tools.yaml", TOOLS)]);
    let made = std::process::Command::new("mkfifo")
        .arg(soe.path("gate"))
        .status()
        .unwrap();
    assert!(made.success());
    let (mut child, mut terminal) = spawn(&soe, &["run", "w.yaml"], &[("NO_COLOR", "1")]);
    read_until(&mut terminal, Some("running Do: slow ("));
    std::fs::write(soe.path("gate"), "5").unwrap();
    let rest = read_until(&mut terminal, Some("rested:"));
    assert!(rest.contains("\r\u{1b}[2K"), "{rest}");
    assert!(rest.contains("finished Do") && rest.contains("\"result\": 5"), "{rest}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_an_llm_says_is_shown_as_it_arrives_and_cannot_steer_the_terminal() {
    let workflow = "w: {Ask: {node_type: llm, event_triggers: [START], prompt: Hi, retries: 0}}";
    // The controls are raw in the reply, which is no JSON then.
    let replies = "- {node: Ask, text: \"first \\e[2J line\\nsecond \\e]0;title\\a line\", latency: 2s, pieces_of: 2}";
    let soe = Soe::with(&[("w.yaml", workflow), ("r.yaml", replies)]);
    let run = ["run", "w.yaml", "--llm", "mock:r.yaml"];
    let (mut child, mut terminal) = spawn(&soe, &run, &[("NO_COLOR", "1")]);
    let begun = read_until(&mut terminal, Some("Ask: first"));
    assert!(!begun.contains("says") && !begun.contains("line"), "{begun}");
    let shown = begun + &read_until(&mut terminal, Some("node run,"));
    child.wait().unwrap();
    assert!(shown.contains("says     Ask: first \\u{1b}[2J line\r\n"), "{shown}");
    assert!(
        shown.contains("says     Ask: second \\u{1b}]0;title\\u{7} line\r\n"),
        "{shown}"
    );
    assert!(
        !shown.contains("\u{1b}[2J") && !shown.contains("\u{1b}]") && !shown.contains('\u{7}'),
        "{shown}"
    );

    let (mut child, mut terminal) = spawn(&soe, &[&run[..], &["--no-stream"]].concat(), &[("NO_COLOR", "1")]);
    let shown = read_until(&mut terminal, Some("node run,"));
    child.wait().unwrap();
    assert!(!shown.contains("says"), "{shown}");
}
