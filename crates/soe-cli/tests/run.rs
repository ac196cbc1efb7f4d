//! `soe run`, `soe signal`, `soe show` and `soe list`, as people and scripts see them.
#![allow(missing_docs, clippy::unwrap_used)]
#![cfg(unix)]

mod support;

use serde_json::json;
use support::Soe;

const APPROVAL: &str = "
review:
  Draft:
    node_type: tool
    event_triggers: [START]
    tool_name: draft
    parameters: {topic: '{{ context.topic }}'}
    output_field: draft
    event_emissions:
      - signal_name: DRAFTED
        condition: '{{ result.words > 1 }}'
  Publish:
    node_type: tool
    event_triggers: [APPROVED]
    tool_name: publish
    context_parameter_field: draft
    output_field: published
";

const TOOLS: &str = r#"
tools:
  draft:
    type: command
    command: [sh, -c, 'printf "{\"text\": \"on %s\", \"words\": 2}" "$1"', sh, '{topic}']
    parameters: {topic: string}
    stdin: none
  publish:
    type: command
    command: [tr, a-z, A-Z]
    output: text
"#;

fn approval() -> Soe {
    Soe::with(&[("w.yaml", APPROVAL), ("tools.yaml", TOOLS)])
}

const TWO: &str = "
one: {A: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: X}]}}
two: {B: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: Y}]}}
";

#[test]
fn a_run_shows_what_happens_and_ends_with_the_context() {
    let done = approval().run(&["run", "w.yaml", "--set", "topic=cats"]).exits_with(0);
    assert_eq!(
        done.json(),
        json!({"topic": "cats", "draft": {"text": "on cats", "words": 2}})
    );
    let done = done
        .says("signal   START")
        .says("call     Draft: draft")
        .says("finished Draft after");
    let done = done.says("context  draft").says("signal   DRAFTED").says("rested");
    done.says("Nothing in the workflow sends APPROVED. With --store")
        .does_not_say("\u{1b}");
}

#[test]
fn quiet_is_the_context_alone() {
    let done = approval()
        .run(&["run", "w.yaml", "-q", "--set", "topic=cats"])
        .exits_with(0);
    assert_eq!(done.json()["draft"]["words"], 2);
    assert_eq!(done.stderr, "");
}

#[test]
fn json_is_events_and_then_the_result() {
    let done = approval()
        .run(&["run", "w.yaml", "--json", "--id", "r1", "--set", "topic=cats"])
        .exits_with(0);
    let lines = done.json_lines();
    let (result, events) = lines.split_last().unwrap();
    for (i, event) in events.iter().enumerate() {
        assert_eq!((&event["seq"], &event["execution"]), (&json!(i), &json!("r1")));
        assert!(
            event["event"].is_string() && event["time"].is_string() && event["data"].is_object(),
            "{event}"
        );
    }
    assert_eq!(events[0]["event"], "orchestration_start");
    assert_eq!(events.last().unwrap()["event"], "execution_rested");
    assert_eq!(
        (&result["execution"], &result["status"]),
        (&json!("r1"), &json!("rested"))
    );
    assert_eq!(result["signals"], json!(["START", "DRAFTED"]));
    assert_eq!(result["waits_for"], json!(["APPROVED"]));
    assert_eq!(result["context"]["draft"]["text"], "on cats");
    assert_eq!((&result["tool_calls"], &result["failure"]), (&json!(1), &json!(null)));
    assert_eq!(done.stderr, "");
}

#[test]
fn another_process_goes_on_with_a_stored_execution() {
    let soe = approval();
    let done = soe
        .run(&["run", "w.yaml", "--store", "data", "--id", "r1", "--set", "topic=cats"])
        .exits_with(0);
    done.says("To go on:\n  soe signal r1 APPROVED --store data --tools tools.yaml\n");
    let command = ["signal", "r1", "APPROVED", "--store", "data", "--tools", "tools.yaml"];
    let done = soe
        .run(&command)
        .exits_with(0)
        .says("signal   APPROVED")
        .says("call     Publish: publish");
    let done = done.does_not_say("START");
    assert_eq!(done.json()["published"], "{\"TEXT\":\"ON CATS\",\"WORDS\":2}");

    let shown = soe
        .run(&["show", "r1", "--store", "data", "--json"])
        .exits_with(0)
        .json();
    assert_eq!(
        (&shown["status"], &shown["workflow"]),
        (&json!("rested"), &json!("review"))
    );
    assert_eq!(shown["signals"], json!(["START", "DRAFTED", "APPROVED"]));
    let history = soe
        .run(&["show", "r1", "--store", "data", "--json", "--history"])
        .json();
    assert_eq!(history["context"]["topic"], json!(["cats"]));
    soe.run(&["show", "r1", "--store", "data"])
        .exits_with(0)
        .says("status     rested")
        .says("\"topic\": \"cats\"");
}

#[test]
fn an_execution_in_a_database_is_gone_on_with() {
    let soe = approval();
    for store in ["data.db", "sqlite:data"] {
        let mut command = vec!["run", "w.yaml", "--store", store, "--id", "r1", "--set", "topic=cats"];
        let done = soe.run(&command).exits_with(0);
        done.says(&format!("soe signal r1 APPROVED --store {store} --tools tools.yaml\n"));
        soe.run(&command)
            .exits_with(1)
            .says("there is an execution of that id already: r1");
        command = vec!["signal", "r1", "APPROVED", "--store", store, "--tools", "tools.yaml"];
        let done = soe.run(&command).exits_with(0).says("signal   APPROVED");
        assert_eq!(done.json()["published"], "{\"TEXT\":\"ON CATS\",\"WORDS\":2}");
        soe.run(&["list", "--store", store]).exits_with(0).says("rested");
        soe.run(&["show", "r1", "--store", store])
            .exits_with(0)
            .says("status     rested");
    }
    soe.run(&["list", "--store", "dada.db"])
        .exits_with(1)
        .says("there is no store in dada.db");
}

#[test]
fn stored_executions_are_listed() {
    let soe = Soe::with(&[("w.yaml", TWO)]);
    for id in ["first", "second"] {
        soe.run(&["run", "w.yaml", "-w", "one", "--store", "data", "--id", id])
            .exits_with(0);
    }
    let listed = soe
        .run(&["list", "--store", "data", "--json"])
        .exits_with(0)
        .json_lines();
    let ids: Vec<_> = listed.iter().map(|line| line["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["second", "first"]);
    let lines = soe
        .run(&["list", "--store", "data"])
        .exits_with(0)
        .says("STATUS")
        .says("rested");
    assert_eq!(lines.stdout.lines().count(), 3);
    let none = soe
        .run(&["list", "--store", "data", "--status", "failed"])
        .exits_with(0);
    assert_eq!(none.stdout, "");
    soe.run(&["list", "--store", "data", "--status", "sleeping"])
        .exits_with(2);
}

#[test]
fn what_is_not_there_is_an_error() {
    let soe = Soe::with(&[("w.yaml", TWO), ("tool.yaml", APPROVAL), ("my.tools.yaml", TOOLS)]);
    soe.run(&["run", "no.yaml"])
        .exits_with(1)
        .says("error: no.yaml can't be read");
    soe.run(&["run", "w.yaml"])
        .exits_with(1)
        .says("several workflows")
        .says("--workflow")
        .says("one, two");
    soe.run(&["run", "w.yaml", "-w", "tow"])
        .exits_with(1)
        .says("there is no workflow 'tow' in the file; there are: one, two");
    soe.run(&["run", "w.yaml", "-w", "two"]).exits_with(0).says("Y");
    soe.run(&["run", "tool.yaml"])
        .exits_with(1)
        .says("error[unknown-tool]")
        .says("tool.yaml:6");
    soe.run(&["run", "my.tools.yaml"])
        .exits_with(1)
        .says("my.tools.yaml is a tools file by its name");
    soe.run(&["run", "w.yaml", "--tools", "no.yaml"])
        .exits_with(1)
        .says("the tools file: no.yaml can't be read");
    for command in [&["show", "r1"][..], &["list"], &["signal", "r1", "GO"]] {
        let command = [command, &["--store", "nowhere"]].concat();
        soe.run(&command).exits_with(1).says("there is no store in nowhere");
        assert!(!soe.path("nowhere").exists());
    }
    soe.run(&["run", "w.yaml", "-w", "one", "--store", "data", "--id", "r1"])
        .exits_with(0);
    soe.run(&["show", "r2", "--store", "data"])
        .exits_with(1)
        .says("execution r2: there is no such execution");
    soe.run(&["signal", "r2", "GO", "--store", "data"])
        .exits_with(1)
        .says("there is no such execution");
    soe.run(&["run", "w.yaml", "-w", "one", "--store", "data", "--id", "r1"])
        .exits_with(1)
        .says("of that id already");
}

#[test]
fn a_stored_execution_is_gone_on_with_only_if_its_tools_are_there() {
    let soe = approval();
    soe.run(&["run", "w.yaml", "--store", "data", "--id", "r1", "--set", "topic=cats"])
        .exits_with(0);
    let done = soe.run(&["signal", "r1", "APPROVED", "--store", "data"]).exits_with(1);
    done.says("needs the tools draft, publish").says("--tools");
    let shown = soe.run(&["show", "r1", "--store", "data", "--json"]).json();
    assert_eq!(shown["signals"], json!(["START", "DRAFTED"]), "nothing was sent");
}

#[test]
fn errors_are_json_too() {
    let soe = Soe::with(&[("w.yaml", TWO), ("bad.yaml", "hello: {Greet: {node_type: rooter}}")]);
    let line = soe
        .run(&["run", "bad.yaml", "--json"])
        .exits_with(1)
        .json_lines()
        .pop()
        .unwrap();
    assert_eq!((&line["status"], &line["execution"]), (&json!("refused"), &json!(null)));
    assert_eq!(line["diagnostics"][0]["workflow"], "hello");
    let text = "hello: {Greet: {node_type: greeter, event_triggers: [START]}}";
    let done = Soe::with(&[("w.yaml", text)])
        .run(&["run", "w.yaml", "--json"])
        .exits_with(1);
    let line = done.json_lines().pop().unwrap();
    let error = line["error"].as_str().unwrap();
    assert_eq!(error.matches("can't run on this engine").count(), 1, "{error}");
    let line = soe
        .run(&["run", "w.yaml", "--json"])
        .exits_with(1)
        .json_lines()
        .pop()
        .unwrap();
    assert!(line["error"].as_str().unwrap().contains("several workflows"));
}

#[test]
fn a_usage_error_is_code_2() {
    let soe = Soe::with(&[("w.yaml", TWO)]);
    let run = |arguments: &[&str]| soe.run(&[&["run", "w.yaml", "-w", "one"], arguments].concat());
    run(&["--context", "[1]"])
        .exits_with(2)
        .says("--context must be a JSON object");
    run(&["--context", "{"]).exits_with(2).says("--context is no JSON");
    run(&["--limit", "rums=5"])
        .exits_with(2)
        .says("there is no limit 'rums'; there are broadcasts, runs");
    run(&["--limit", "runs=many"])
        .exits_with(2)
        .says("must be a number, not 'many'");
    run(&["--limit", "active_time=x"]).exits_with(2).says("a duration");
    run(&["--set", "topic"]).exits_with(2);
    run(&["--signal", ""]).exits_with(2).says("a signal has a name");
    run(&["--id", "../x"]).exits_with(2).says("can't be an execution id");
    run(&["--schedule", "random"]).exits_with(2);
    soe.run_with_stdin(&["run", "-", "--context", "@-"], TWO).exits_with(2);
}

#[test]
fn the_context_comes_from_the_command_line_a_file_or_stdin() {
    let soe = Soe::with(&[("w.yaml", TWO), ("c.json", r#"{"a": 1, "b": [2]}"#)]);
    let run = |arguments: &[&str], input: &str| {
        let command = [&["run", "w.yaml", "-w", "one", "-q"], arguments].concat();
        soe.run_with_stdin(&command, input).exits_with(0).json()
    };
    assert_eq!(run(&["-c", r#"{"a": 5}"#], ""), json!({"a": 5}));
    assert_eq!(
        run(&["-c", "@c.json", "--set", "a=text", "--set", "c={\"d\": null}"], ""),
        json!({"a": "text", "b": [2], "c": {"d": null}})
    );
    assert_eq!(run(&["-c", "@-"], "{\"x\": \"größe\"}"), json!({"x": "größe"}));
    soe.run(&["run", "w.yaml", "-w", "one", "--set", "__x=1"])
        .exits_with(1)
        .says("reserved");
}

#[test]
fn a_workflow_that_listens_to_nothing_it_gets_is_pointed_out() {
    let soe = Soe::with(&[("w.yaml", TWO)]);
    let done = soe
        .run(&["run", "w.yaml", "-w", "one", "-s", "GO", "-s", "ON"])
        .exits_with(0);
    done.says("warning: no node of workflow 'one' listens to GO, ON; they listen to START")
        .says("signal   GO, ON")
        .says("Nothing in the workflow sends START. With --store");
    let text = "
one:
  A: {node_type: router, event_triggers: [A, B, C], event_emissions: [{signal_name: X}]}
";
    Soe::with(&[("w.yaml", text)])
        .run(&["run", "w.yaml"])
        .exits_with(0)
        .says("Nothing in the workflow sends A, B or C. With --store");
    let done = Soe::with(&[("w.yaml", text)])
        .run(&["run", "w.yaml", "-s", "B"])
        .exits_with(0);
    done.says("It also listens to A or C.\n")
        .does_not_say("Nothing in the workflow sends");
}

#[test]
fn a_signal_that_a_resting_execution_does_not_listen_to_is_pointed_out() {
    let soe = approval();
    soe.run(&["run", "w.yaml", "--store", "data", "--id", "r1", "--set", "topic=cats"])
        .exits_with(0);
    let signal = |name| {
        let command = ["signal", "r1", name, "--store", "data", "--tools", "tools.yaml"];
        soe.run(&command).exits_with(0)
    };
    signal("APROVED").says("warning: no node of workflow 'review' listens to APROVED; they listen to START, APPROVED");
    signal("APPROVED").does_not_say("warning");
}

#[test]
fn a_failed_execution_is_exit_code_1() {
    let text = "loop: {A: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: START}]}}";
    let soe = Soe::with(&[("w.yaml", text)]);
    let done = soe.run(&["run", "w.yaml", "--limit", "runs=50", "-q"]).exits_with(1);
    done.says("error: ").says("runs");
    let lines = soe
        .run(&[
            "run",
            "w.yaml",
            "--limit",
            "runs=50",
            "--json",
            "--schedule",
            "depth-first",
        ])
        .exits_with(1)
        .json_lines();
    let result = lines.last().unwrap();
    assert_eq!(
        (&result["status"], &result["failure"]["limit"]),
        (&json!("failed"), &json!("runs"))
    );
}

#[test]
fn nobody_reading_stdout_is_no_failure() {
    let soe = Soe::with(&[("w.yaml", TWO)]);
    let mut child = soe.command(&["run", "w.yaml", "-w", "one", "--json"]).spawn().unwrap();
    drop(child.stdout.take());
    support::wait(child).exits_with(0);
}

#[test]
fn a_run_inherits_what_another_had() {
    let soe = approval();
    soe.run(&["run", "w.yaml", "--store", "data", "--id", "r1", "--set", "topic=cats"])
        .exits_with(0);
    let run = |more: &[&str]| soe.run(&[&["run", "--store", "data", "--tools", "tools.yaml"], more].concat());
    let done = run(&[
        "--inherit-config",
        "r1",
        "--inherit-context",
        "r1",
        "--set",
        "topic=dogs",
        "--id",
        "r2",
    ]);
    let done = done.exits_with(0).says("inherit  configuration of r1");
    let done = done.says("inherit  context of r1").says("appended to: topic");
    assert_eq!(done.json()["draft"]["text"], "on dogs");
    let shown = soe
        .run(&["show", "r2", "--store", "data", "--json", "--history"])
        .json();
    assert_eq!(shown["context"]["topic"], json!(["cats", "dogs"]));
    assert_eq!(shown["context"]["draft"].as_array().unwrap().len(), 2);
    assert_eq!(shown["signals"], json!(["START", "DRAFTED"]));

    // Another file, with the context only; and a workflow by its name.
    std::fs::write(soe.path("two.yaml"), TWO).unwrap();
    run(&["two.yaml", "-w", "one", "--inherit-context", "r1", "--id", "r3"]).exits_with(0);
    run(&["--inherit-config", "r3", "-w", "two", "-q"]).exits_with(0);
    // Without one, it is that which the other ran.
    run(&["--inherit-config", "r3"])
        .exits_with(0)
        .says("start    workflow one");
}

#[test]
fn what_cannot_be_inherited_is_said() {
    let soe = approval();
    soe.run(&["run", "w.yaml", "--store", "data", "--id", "r1", "--set", "topic=cats"])
        .exits_with(0);
    soe.run(&["run"])
        .exits_with(2)
        .says("a workflow file or --inherit-config is needed");
    soe.run(&["run", "--inherit-config", "r1"])
        .exits_with(2)
        .says("--store");
    for (option, what) in [("--inherit-config", "configuration"), ("--inherit-context", "context")] {
        let run =
            |store: &str, more: &[&str]| soe.run(&[&["run", "w.yaml", "--store", store, option, "r9"], more].concat());
        run("data", &[]).exits_with(1).says(&format!(
            "the {what} can't be inherited: execution r9: there is no such execution"
        ));
        let line = run("data", &["--json"]).exits_with(1).json_lines().pop().unwrap();
        assert_eq!(line["status"], "refused");
        run("nowhere", &[]).exits_with(1).says("there is no store in nowhere");
        assert!(!soe.path("nowhere").exists());
    }
    soe.run(&["run", "--store", "data", "--inherit-config", "r1"])
        .exits_with(1)
        .says("needs the tools draft, publish");
    soe.run(&["run", "--store", "data", "--inherit-config", "r1", "-w", "no"])
        .exits_with(1)
        .says("there is no workflow 'no' in execution r1; there are: review");
    soe.run(&["run", "w.yaml", "--id", "x.1.0"])
        .exits_with(1)
        .says("ends like the id of a child");
}
