//! `soe validate`, as people and scripts see it.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use support::Soe;

const GOOD: &str = "
hello:
  Greet:
    node_type: router
    event_triggers: [START]
    event_emissions:
      - signal_name: DONE
";

const WITH_TOOL: &str = "
work:
  Do:
    node_type: tool
    event_triggers: [START]
    tool_name: fetch
";

const TOOLS: &str = "tools: {fetch: {type: command, command: ['true'], failure_signal: LOST}}";

#[test]
fn a_good_file_is_valid() {
    let soe = Soe::with(&[("w.yaml", GOOD)]);
    let done = soe.run(&["validate", "w.yaml"]).exits_with(0);
    assert_eq!(
        (done.stdout.as_str(), done.stderr.as_str()),
        ("valid: no problems in 1 file\n", "")
    );
}

#[test]
fn problems_are_shown_with_their_line() {
    let text = "hello:\n  Greet:\n    node_type: rooter\n    event_triggers: [START]\n";
    let soe = Soe::with(&[("w.yaml", text), ("good.yaml", GOOD)]);
    let done = soe.run(&["validate", "w.yaml", "good.yaml"]).exits_with(1);
    let done = done
        .says("error[unknown-node-type]")
        .says("w.yaml:3:16")
        .says("3 |     node_type: rooter");
    done.says("^^^^^^")
        .says("did you mean 'router'")
        .says("invalid: 1 error")
        .does_not_say("\u{1b}");
}

#[test]
fn what_is_no_yaml_is_one_problem() {
    let soe = Soe::with(&[("w.yaml", "a: [1\nb: {")]);
    soe.run(&["validate", "w.yaml"])
        .exits_with(1)
        .says("error[invalid-yaml]");
    let soe = Soe::with(&[]);
    soe.run(&["validate", "w.yaml"])
        .exits_with(1)
        .says("error: w.yaml can't be read: No such file");
    soe.run(&["validate"]).exits_with(2).says("Usage");
}

#[test]
fn stdin_is_a_file_too() {
    let soe = Soe::with(&[]);
    soe.run_with_stdin(&["validate", "-"], GOOD).exits_with(0);
    soe.run_with_stdin(&["validate", "-"], "x: 1")
        .exits_with(1)
        .says("<stdin>:1:");
}

#[test]
fn json_has_all_that_is_known() {
    let soe = Soe::with(&[("w.yaml", "hello: {Greet: {node_type: router, event_trigger: [A]}}")]);
    let report = soe.run(&["validate", "w.yaml", "--json"]).exits_with(1).json();
    assert_eq!(report["files"][0]["file"], "w.yaml");
    let diagnostics = report["files"][0]["diagnostics"].as_array().unwrap();
    let count = |severity| diagnostics.iter().filter(|d| d["severity"] == severity).count();
    assert_eq!(
        (report["errors"].as_u64().unwrap(), report["warnings"].as_u64().unwrap()),
        (2, 1)
    );
    assert_eq!((count("error"), count("warning")), (2, 1));
    let misspelled = diagnostics.iter().find(|d| d["code"] == "misspelled-field").unwrap();
    assert_eq!(
        (&misspelled["workflow"], &misspelled["node"], &misspelled["line"]),
        (&"hello".into(), &"Greet".into(), &1.into())
    );
}

#[test]
fn warnings_fail_only_when_asked() {
    let soe = Soe::with(&[("w.yaml", &GOOD.replace("START", "BEGIN"))]);
    soe.run(&["validate", "w.yaml", "--signal", "START"])
        .exits_with(0)
        .says("warning[unsent-trigger]");
    soe.run(&["validate", "w.yaml", "--signal", "START", "--strict"])
        .exits_with(1)
        .says("valid: ");
    soe.run(&["validate", "w.yaml", "--strict"]).exits_with(0);
}

#[test]
fn nodes_that_ask_llms_are_valid_and_the_tools_of_agents_are_checked() {
    let text = "
talk:
  Ask: {node_type: llm, event_triggers: [START], prompt: Hi, event_emissions: [{signal_name: ASKED}]}
  Look:
    node_type: agent
    event_triggers: [ASKED]
    prompt: Look
    tools: [fetch, serch]
";
    let tools = "tools: {fetch: {type: command, command: [cat]}, search: {type: command, command: [cat]}}";
    let soe = Soe::with(&[("w.yaml", text), ("my.tools.yaml", tools)]);
    soe.run(&["validate", "w.yaml", "--strict"]).exits_with(0);
    for command in ["validate", "run"] {
        let done = soe.run(&[command, "w.yaml", "--tools", "my.tools.yaml"]).exits_with(1);
        done.says("error[unknown-tool]: Tool 'serch' not found")
            .says("w.yaml:8:")
            .says("did you mean 'search'?");
    }
}

#[test]
fn tools_are_checked_where_there_is_a_tools_file() {
    let soe = Soe::with(&[("w.yaml", WITH_TOOL), ("other.tools.yaml", "tools: {}")]);
    soe.run(&["validate", "w.yaml"]).exits_with(0);
    soe.run(&["validate", "w.yaml", "--tools", "other.tools.yaml"])
        .exits_with(1)
        .says("error[unknown-tool]");
    let soe = Soe::with(&[("w.yaml", WITH_TOOL), ("tools.yaml", TOOLS)]);
    soe.run(&["validate", "w.yaml"])
        .exits_with(0)
        .says("1 file and tools.yaml beside it");
    let text = format!(
        "{WITH_TOOL}  Lost:\n    node_type: router\n    event_triggers: [LOST]\n    event_emissions: [{{signal_name: X}}]\n"
    );
    let soe = Soe::with(&[("w.yaml", &text), ("tools.yaml", TOOLS)]);
    soe.run(&["validate", "w.yaml", "--signal", "START"])
        .exits_with(0)
        .does_not_say("unsent");
}

#[test]
fn tools_files_are_files_to_check() {
    let soe = Soe::with(&[("tools.yaml", "tools:\n  fetch:\n    type: command\n    comand: [x]\n")]);
    let done = soe.run(&["validate", "tools.yaml"]).exits_with(1);
    done.says("tools.yaml:4:5")
        .says("did you mean 'command'?")
        .says("'command' is missing");
    let soe = Soe::with(&[("tools.yaml", TOOLS)]);
    soe.run(&["validate", "tools.yaml"]).exits_with(0);
}

#[test]
fn a_tools_file_under_another_name_is_one_problem() {
    let workflow = "tools: {A: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: X}]}}";
    let soe = Soe::with(&[("mytools.yaml", TOOLS), ("w.yaml", workflow)]);
    let done = soe.run(&["validate", "mytools.yaml"]).exits_with(1);
    done.says("this looks like a tools file: name it tools.yaml or *.tools.yaml, or pass it with --tools")
        .says("mytools.yaml:1:1")
        .says("invalid: 1 error in 1 file");
    soe.run(&["run", "mytools.yaml"])
        .exits_with(1)
        .says("error: mytools.yaml: this looks like a tools file");
    soe.run(&["validate", "w.yaml"]).exits_with(0);
}

#[test]
fn colours_come_when_asked_and_never_into_a_pipe() {
    let soe = Soe::with(&[("w.yaml", "x: 1")]);
    soe.run(&["validate", "w.yaml"]).does_not_say("\u{1b}");
    soe.run(&["validate", "w.yaml", "--color", "always"]).says("\u{1b}[");
    let no_color = soe
        .command(&["validate", "w.yaml"])
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    assert!(!no_color.stdout.contains(&0x1b));
    soe.run(&["validate", "w.yaml", "--color", "never"])
        .does_not_say("\u{1b}");
    soe.run(&["validate", "w.yaml", "--color", "sometimes"]).exits_with(2);
}
