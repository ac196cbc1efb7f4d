//! Tools that are commands: what they get, what becomes of what they do.
#![allow(missing_docs, clippy::unwrap_used)]
#![cfg(unix)]

mod support;

use std::time::Instant;

use serde_json::{Value, json};
use support::{Done, Soe};

/// Runs one tool on the context field `arguments`. Its result is in the field `result`.
fn run_tool(tool: &str, arguments: &Value, options: &[&str]) -> (Soe, Done) {
    let workflow = "
w:
  Do:
    node_type: tool
    event_triggers: [START]
    tool_name: t
    context_parameter_field: arguments
    output_field: result
    event_emissions: [{signal_name: DONE}]
";
    let soe = Soe::with(&[
        ("w.yaml", workflow),
        ("tools.yaml", &format!("tools:\n  t:\n    type: command\n{tool}")),
        ("c.json", &json!({"arguments": arguments}).to_string()),
    ]);
    let done = soe.run(
        &[
            &["run", "w.yaml", "--context", "@c.json", "--json", "--id", "r1"],
            options,
        ]
        .concat(),
    );
    (soe, done)
}

fn outcome(tool: &str, arguments: Value) -> Value {
    let (_, done) = run_tool(tool, &arguments, &[]);
    done.exits_with(0).json_lines().pop().unwrap()
}

fn result(tool: &str, arguments: Value) -> Value {
    outcome(tool, arguments)["context"]["result"].clone()
}

#[track_caller]
fn error(tool: &str, arguments: Value) -> String {
    let outcome = outcome(tool, arguments);
    assert_ne!(outcome["errors"], 0, "{outcome}");
    outcome["context"]["result"].as_str().unwrap().to_owned()
}

#[test]
fn arguments_come_on_stdin_and_the_result_is_json() {
    let arguments = json!({"text": "größe\n'\"$(id)", "list": [1, null, {"a": 2.5}]});
    assert_eq!(result("    command: [cat]\n", arguments.clone()), arguments);
    assert_eq!(result("    command: [sh, -c, 'echo 42']\n", json!({})), 42);
    assert_eq!(
        result("    command: ['true']\n", json!({})),
        Value::Null,
        "no output is no value"
    );
    assert_eq!(
        result("    command: [cat]\n    stdin: none\n", json!({"a": 1})),
        Value::Null
    );
}

#[test]
fn placeholders_are_one_element_each_and_no_shell_sees_them() {
    let hostile = "a b; touch /tmp/x $(id) `id` \"'* {n}\n-rf";
    let command = "    command: [printf, '<%s>', '{text}', '--n={n}', 'x{{n}}']\n    output: text\n    stdin: none\n";
    let found = result(command, json!({"text": hostile, "n": [1, 2]}));
    assert_eq!(found, format!("<{hostile}><--n=[1,2]><x{{n}}>"));
}

#[test]
fn defaults_stand_in_and_parameters_are_checked() {
    let tool = "    command: [printf, '%s-%s', '{a}', '{b}']\n    output: text\n    parameters: {a: string, b: {type: integer, default: 7}}\n";
    assert_eq!(result(tool, json!({"a": "x"})), "x-7");
    assert_eq!(error(tool, json!({})), "Tool 't': missing required parameter: a");
    assert!(error(tool, json!({"a": 5, "c": 1})).contains("unexpected parameter: c"));
    let free = "    command: [echo, '{a}']\n";
    assert!(error(free, json!({})).contains("needs an argument 'a'"));
}

#[test]
fn commands_know_which_run_they_are() {
    let tool = "    command: [sh, -c, 'printf \"%s %s %s %s\" \"$SOE_EXECUTION_ID\" \"$SOE_RUN_ID\" \"$SOE_ATTEMPT\" \"$MINE\"']\n    \
                output: text\n    env: {MINE: 5, HOME: null}\n";
    assert_eq!(result(tool, json!({})), "r1 r1:1 1 5");
    assert_eq!(
        result(
            "    command: [sh, -c, 'echo ${HOME-none}']\n    output: text\n    env: {HOME: null}\n",
            json!({})
        ),
        "none"
    );
}

#[test]
fn commands_run_in_the_folder_of_the_tools_file() {
    let soe = Soe::with(&[]);
    std::fs::create_dir(soe.path("project")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(soe.path("project").join(name), text).unwrap();
    write(
        "w.yaml",
        "w: {Do: {node_type: tool, event_triggers: [START], tool_name: t, output_field: r}}",
    );
    write(
        "tools.yaml",
        "tools: {t: {type: command, command: [./tool.sh], output: text}}",
    );
    write("tool.sh", "#!/bin/sh\nbasename \"$PWD\"\n");
    let script = soe.path("project").join("tool.sh");
    let done = soe.run(&["run", "project/w.yaml", "-q"]).exits_with(0);
    assert!(
        done.json()["r"]
            .as_str()
            .unwrap()
            .contains("'./tool.sh' could not be started"),
        "{done:?}"
    );
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(
        soe.run(&["run", "project/w.yaml", "-q"]).exits_with(0).json()["r"],
        "project"
    );
}

#[test]
fn a_failure_says_how_and_in_the_programs_own_words() {
    let tool = "    command: [sh, -c, 'echo out; echo no such customer >&2; exit 3']\n";
    assert_eq!(
        error(tool, json!({})),
        "tool 't': 'sh' exited with code 3: no such customer"
    );
    assert_eq!(
        error("    command: [sh, -c, 'echo out; exit 1']\n", json!({})),
        "tool 't': 'sh' exited with code 1: out"
    );
    assert_eq!(
        error("    command: [sh, -c, 'kill -9 $$']\n", json!({})),
        "tool 't': 'sh' was killed by signal 9"
    );
    let missing = error("    command: [no-such-program, x]\n    retries: 5\n", json!({}));
    assert_eq!(
        missing,
        "tool 't': the program 'no-such-program' was not found in the PATH"
    );
    assert_eq!(
        error("    command: [./gone]\n", json!({})),
        "tool 't': the program './gone' was not found"
    );
    assert!(error("    command: ['true']\n    cwd: gone\n", json!({})).contains("gone doesn't exist"));
}

#[test]
fn garbage_is_an_error_with_an_excerpt() {
    let garbage = error("    command: [sh, -c, 'echo hello there']\n", json!({}));
    assert!(
        garbage.starts_with("tool 't': 'sh' printed no JSON (expected value at line 1 column 1): hello there"),
        "{garbage}"
    );
    assert!(garbage.contains("output: text"));
    let long = error("    command: [sh, -c, 'yes x | head -5000']\n", json!({}));
    assert!(long.len() < 500, "{long}");
    assert!(error("    command: [printf, '\\377\\376']\n", json!({})).contains("no UTF-8"));
    assert!(error("    command: [sh, -c, 'echo {} {}']\n", json!({})).contains("trailing characters"));
}

#[test]
fn output_is_bounded() {
    let error = error("    command: ['yes']\n    max_output: 100000\n", json!({}));
    assert_eq!(
        error,
        "tool 't': 'yes' wrote more than 100000 bytes, which is its max_output; it was killed"
    );
    let chatty = "    command: [sh, -c, 'yes warning | head -200000 >&2; echo 1']\n    max_output: 1000\n";
    assert_eq!(
        result(chatty, json!({})),
        1,
        "stderr has no limit: only its end is kept"
    );
}

#[test]
fn large_input_and_output_do_not_block_each_other() {
    let text = "x".repeat(4_000_000);
    assert_eq!(
        result("    command: [cat]\n", json!({"text": text}))["text"]
            .as_str()
            .unwrap()
            .len(),
        4_000_000
    );
    assert_eq!(
        result("    command: [sh, -c, 'exec <&-; echo 1']\n", json!({"text": text})),
        1,
        "it needn't be read"
    );
    let too_long = error("    command: [echo, '{text}']\n", json!({"text": text}));
    assert!(too_long.contains("could not be started"), "{too_long}");
}

#[test]
fn time_that_is_up_kills_all_that_was_started() {
    let tool =
        "    command: [sh, -c, 'sleep 300 & echo $! > child; wait']\n    timeout: 0.5\n    failure_signal: SLOW\n";
    let start = Instant::now();
    let (soe, done) = run_tool(tool, &json!({}), &[]);
    let outcome = done.exits_with(0).json_lines().pop().unwrap();
    assert!(start.elapsed() < support::PATIENCE);
    assert_eq!(outcome["signals"], json!(["START", "SLOW"]));
    assert!(
        outcome["context"]["result"].as_str().unwrap().contains("500ms"),
        "{outcome}"
    );
    support::wait_for_death(&soe.wait_for_line("child"));
}

#[test]
fn attempts_are_counted_and_shown() {
    let tool = "    command: [sh, -c, 'test $SOE_ATTEMPT = 3 || exit 9; echo $SOE_ATTEMPT']\n    retries: 2\n";
    let outcome = outcome(tool, json!({}));
    assert_eq!(
        (&outcome["context"]["result"], &outcome["errors"]),
        (&json!(3), &json!(2))
    );
    assert_eq!(outcome["signals"], json!(["START", "DONE"]));
    let soe = Soe::with(&[
        (
            "w.yaml",
            "w: {Do: {node_type: tool, event_triggers: [START], tool_name: t}}",
        ),
        ("tools.yaml", &format!("tools:\n  t:\n    type: command\n{tool}")),
    ]);
    let done = soe.run(&["run", "w.yaml"]).exits_with(0);
    done.says("error    Do: tool 't': 'sh' exited with code 9; trying again, attempt 2")
        .says("attempt 3");
}

#[test]
fn a_whole_history_can_be_the_argument() {
    let tool = "    command: [cat]\n    process_accumulated: true\n";
    assert_eq!(result(tool, json!([1, 2])), json!([[1, 2]]));
}

#[test]
fn what_a_tool_prints_cannot_steer_the_terminal() {
    let soe = Soe::with(&[
        (
            "w.yaml",
            "w: {Do: {node_type: tool, event_triggers: [START], tool_name: t, output_field: r}}",
        ),
        (
            "tools.yaml",
            "tools: {t: {type: command, output: text, command: [printf, 'a\\033[2Jb\\302\\233c']}}",
        ),
    ]);
    let done = soe
        .run(&["run", "w.yaml"])
        .exits_with(0)
        .does_not_say("\u{1b}")
        .does_not_say("\u{9b}");
    assert_eq!(done.json()["r"], "a\u{1b}[2Jb\u{9b}c");
}
