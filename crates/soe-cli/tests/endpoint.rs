//! LLMs behind an endpoint: keys, recordings, calls that hang.
#![allow(missing_docs, clippy::unwrap_used)]
#![cfg(unix)]

mod support;

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use support::endpoint::{Asked, Endpoint};
use support::{Done, Soe};

const KEY: &str = "sk-a-very-secret-key";

const ASK: &str = "
w:
  Ask:
    node_type: llm
    event_triggers: [START]
    prompt: 'How long do {{ context.who }} sleep?'
    output_field: answer
    event_emissions: [{signal_name: ASKED}]
";

fn answer(_: &Asked) -> (u16, String) {
    (200, r#"{"answer": "14 hours"}"#.to_owned())
}

fn run(soe: &Soe, url: &str, options: &[&str], key: Option<&str>) -> Done {
    let all = [
        &["run", "w.yaml", "--set", "who=cats", "--base-url", url, "--model", "m"],
        options,
    ]
    .concat();
    let mut command = soe.command(&all);
    if let Some(key) = key {
        command.env("OPENAI_API_KEY", key);
    }
    command.output().unwrap().into()
}

#[test]
fn an_endpoint_is_asked_with_the_key_or_without() {
    let endpoint = Endpoint::answering(answer);
    let soe = Soe::with(&[("w.yaml", ASK)]);
    for (stream, key) in [("--no-stream", None), ("--stream", Some(KEY))] {
        let done = run(&soe, &endpoint.url, &["--llm", "openai", stream], key).exits_with(0);
        assert_eq!(done.json()["answer"], "14 hours");
        done.says("1 LLM call")
            .says("LLMs took 120 tokens for prompts, 4 for replies")
            .does_not_say(KEY);
    }
    let [plain, streamed] = &endpoint.asked()[..] else {
        panic!("{:?}", endpoint.asked())
    };
    assert_eq!((&plain.authorization, &plain.body["stream"]), (&None, &json!(null)));
    assert_eq!(streamed.authorization, Some(format!("Bearer {KEY}")));
    assert_eq!(
        (&streamed.body["stream"], &streamed.body["model"]),
        (&json!(true), &json!("m"))
    );
}

#[test]
fn a_key_that_is_missing_is_named_by_its_variable() {
    let soe = Soe::with(&[("w.yaml", ASK)]);
    let run = |options: &[&str]| soe.run(&[&["run", "w.yaml", "--llm", "openai", "--model", "m"], options].concat());
    let done = run(&[]).exits_with(1);
    done.says("the environment variable OPENAI_API_KEY")
        .says("it is not set")
        .says("--llm mock:FILE");
    run(&["--key-env", "MY_KEY"])
        .exits_with(1)
        .says("the environment variable MY_KEY")
        .does_not_say("START");
    run(&["--base-url", "http://127.0.0.1:1", "--key-env", "MY_KEY"])
        .exits_with(1)
        .says("the environment variable MY_KEY");
    run(&["--base-url", "localhost:1234"])
        .exits_with(1)
        .says("the base URL can't be used");
    let done = soe.run(&["run", "w.yaml", "--llm", "openai"]).exits_with(1);
    done.says("node 'Ask' names no model: add --model NAME, or a field `model`");
}

#[test]
fn a_key_is_shown_nowhere_even_if_the_endpoint_repeats_it() {
    for (key, options) in [("OPENAI_API_KEY", &[][..]), ("MY_KEY", &["--key-env", "MY_KEY"])] {
        let endpoint = Endpoint::answering(|asked| {
            let key = asked.authorization.clone().unwrap_or_default();
            (401, format!("the key is wrong: {key}"))
        });
        let soe = Soe::with(&[("w.yaml", ASK)]);
        for output in [
            &["-vvv"][..],
            &["-vvv", "--json"],
            &["-q"],
            &["-vvv", "--store", "s", "--id", "e"],
        ] {
            let all = [
                &[
                    "run",
                    "w.yaml",
                    "--llm",
                    "record:talk.jsonl",
                    "--model",
                    "m",
                    "--base-url",
                    &endpoint.url,
                ],
                options,
                output,
            ]
            .concat();
            let done: Done = soe.command(&all).env(key, KEY).output().unwrap().into();
            done.exits_with(1).says("401").says("[hidden]").does_not_say(KEY);
            let recorded = std::fs::read_to_string(soe.path("talk.jsonl")).unwrap();
            assert!(
                recorded.contains("unauthorized") && !recorded.contains(KEY),
                "{recorded}"
            );
        }
        let kept = std::process::Command::new("grep")
            .args(["-r", KEY])
            .arg(soe.path("s"))
            .status()
            .unwrap();
        assert_eq!(kept.code(), Some(1), "the key is in the store");
        assert!(
            endpoint
                .asked()
                .iter()
                .all(|asked| asked.authorization == Some(format!("Bearer {KEY}")))
        );
    }
}

#[test]
fn a_key_that_a_reply_repeats_is_hidden_too() {
    let endpoint = Endpoint::answering(|asked| {
        let key = asked.authorization.clone().unwrap_or_default();
        (200, json!({"answer": format!("you sent {key}!")}).to_string())
    });
    let soe = Soe::with(&[("w.yaml", ASK)]);
    for stream in ["--no-stream", "--stream"] {
        let options = ["--llm", "record:talk.jsonl", "-vvv", stream];
        let done = run(&soe, &endpoint.url, &options, Some(KEY))
            .exits_with(0)
            .does_not_say(KEY);
        assert_eq!(done.json()["answer"], "you sent Bearer [hidden]!");
        assert!(!std::fs::read_to_string(soe.path("talk.jsonl")).unwrap().contains(KEY));
    }
    let short = run(&soe, &endpoint.url, &["--llm", "openai"], Some("ollama")).exits_with(0);
    assert_eq!(short.json()["answer"], "you sent Bearer ollama!");
}

#[test]
fn a_recording_is_replayed_without_the_endpoint_and_fails_when_something_else_is_asked() {
    for stream in ["--no-stream", "--stream"] {
        let endpoint = Endpoint::answering(answer);
        let soe = Soe::with(&[("w.yaml", ASK)]);
        run(&soe, &endpoint.url, &["--llm", "record:talk.jsonl", stream], Some(KEY)).exits_with(0);
        assert_eq!(endpoint.asked().len(), 1);
        let replay = [
            "run",
            "w.yaml",
            "--set",
            "who=cats",
            "--llm",
            "replay:talk.jsonl",
            stream,
        ];
        let done = soe
            .run(&replay)
            .exits_with(0)
            .says("1 LLM call")
            .does_not_say("warning");
        assert_eq!(done.json()["answer"], "14 hours");

        std::fs::write(soe.path("w.yaml"), ASK.replace("How long", "How well")).unwrap();
        let done = soe.run(&replay).exits_with(1);
        done.says("error    Ask: the recording has no reply for the request of node 'Ask', stage llm\n")
            .says("failed   node 'Ask'\n")
            .says("\nerror: node 'Ask': the recording has no reply for the request of node 'Ask', stage llm ...\n")
            .says("the nearest exchange, number 1, differs in its text:")
            .says("How well do cats")
            .says("(- as recorded, + as asked)")
            .says("the recording talk.jsonl has more than was asked for: 1 exchange, the first of node 'Ask'");
        assert_eq!(endpoint.asked().len(), 1);
    }
}

#[test]
fn a_recording_replaces_nothing_but_a_recording() {
    let endpoint = Endpoint::answering(answer);
    let soe = Soe::with(&[("w.yaml", ASK), ("empty.jsonl", "")]);
    let record = |file: &str| run(&soe, &endpoint.url, &["--llm", &format!("record:{file}")], None);
    record("w.yaml")
        .exits_with(1)
        .says("w.yaml is there and is no recording")
        .does_not_say("START");
    assert_eq!(std::fs::read_to_string(soe.path("w.yaml")).unwrap(), ASK);
    record("empty.jsonl").exits_with(0);
    record("empty.jsonl").exits_with(0);
    let text = std::fs::read_to_string(soe.path("empty.jsonl")).unwrap();
    assert_eq!(text.lines().count(), 2);
    record("no/such/folder.jsonl")
        .exits_with(1)
        .says("the recording no/such/folder.jsonl can't be written");
    assert_eq!(endpoint.asked().len(), 2);
}

#[test]
fn a_command_that_goes_on_records_nothing_again() {
    let endpoint = Endpoint::answering(answer);
    let text =
        format!("{ASK}  More: {{node_type: router, event_triggers: [MORE], event_emissions: [{{signal_name: X}}]}}\n");
    let soe = Soe::with(&[("w.yaml", &text)]);
    let url = format!("{}?key=secret-query", endpoint.url);
    let done = run(
        &soe,
        &url,
        &["--llm", "record:talk.jsonl", "--store", "s", "--id", "e"],
        None,
    )
    .exits_with(0);
    done.says("soe signal e MORE --store s --llm openai --base-url ")
        .says("--model m\n")
        .does_not_say("secret-query");
}

/// Starts a command whose call hangs, and interrupts it then.
fn interrupted(soe: &Soe, options: &[&str]) -> Done {
    let endpoint = Endpoint::hanging();
    let url = &endpoint.url;
    let command = ["run", "w.yaml", "--llm", "openai", "--model", "m", "--base-url", url];
    let child = soe.command(&[&command, options].concat()).spawn().unwrap();
    let start = Instant::now();
    while endpoint.asked().is_empty() {
        assert!(start.elapsed() < support::PATIENCE, "nothing is asked");
        std::thread::sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    support::wait(child).exits_with(130).does_not_say("panicked")
}

#[test]
fn ctrl_c_ends_a_call_that_hangs() {
    let soe = Soe::with(&[("w.yaml", ASK), ("r.yaml", "- {node: Ask, output: 14 hours}")]);
    interrupted(&soe, &[]).says("ask      Ask").says("is cancelled");
    let last = interrupted(&soe, &["--json"]).json_lines().pop().unwrap();
    assert_eq!((&last["status"], &last["llm_calls"]), (&json!("cancelled"), &json!(1)));

    interrupted(&soe, &["--store", "s", "--id", "e"])
        .says("is running")
        .says("soe resume e --store s --llm openai --base-url ");
    let go_on = ["signal", "e", "GO", "--store", "s", "--llm", "mock:r.yaml"];
    let done = soe.run(&go_on).exits_with(0).says("note: it was left running");
    assert_eq!(done.json()["answer"], "14 hours");
}

#[test]
fn a_request_takes_no_longer_than_it_may() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", silent.local_addr().unwrap());
    let soe = Soe::with(&[("w.yaml", ASK)]);
    let done = run(&soe, &url, &["--llm", "openai", "--llm-timeout", "300ms"], None).exits_with(1);
    // The cause once, and where it was once more.
    done.says("error    Ask: http")
        .says("no complete reply within 300ms")
        .says("failed   node 'Ask'\n")
        .says("error: node 'Ask': http");
    let refused = run(&soe, &url, &["--llm", "openai", "--llm-timeout", "soon"], None).exits_with(2);
    refused.says("a duration such as 90s or 2m");
}
