//! `soe history`, `soe show --at`, `soe fork` and `soe gc`, as people and scripts see them.
#![allow(missing_docs, clippy::unwrap_used)]
#![cfg(unix)]

mod support;

use serde_json::json;
use support::Soe;

const FLOW: &str = "
flow:
  Price: {node_type: tool, event_triggers: [START], tool_name: price, parameters: {amount: '{{ context.amount }}'}, output_field: price, event_emissions: [{signal_name: PRICED}]}
  Offer: {node_type: llm, event_triggers: [PRICED], prompt: 'Offer for {{ context.price }}', output_field: offer, event_emissions: [{signal_name: DONE}]}
";

const TOOLS: &str = "
tools:
  price:
    type: command
    command: [printf, 'EUR %s', '{amount}']
    parameters: {amount: integer}
    stdin: none
    output: text
";

const REPLIES: &str = "
rules:
  - node: Offer
    prompt_contains: '7'
    replies: [{output: expensive}]
  - node: Offer
    replies: [{output: cheap}]
";

const ENGINE: [&str; 6] = ["--store", "s.db", "--tools", "tools.yaml", "--llm", "mock:replies.yaml"];

fn soe() -> Soe {
    let soe = Soe::with(&[("w.yaml", FLOW), ("tools.yaml", TOOLS), ("replies.yaml", REPLIES)]);
    let run = ["run", "w.yaml", "--id", "one", "--set", "amount=3", "-q"];
    soe.run(&[&run[..], &ENGINE].concat()).exits_with(0);
    soe
}

/// The version in which a run of a node began.
fn version_of(soe: &Soe, text: &str) -> String {
    let lines = soe.run(&["history", "one", "--store", "s.db"]).exits_with(0).stdout;
    let line = lines
        .lines()
        .find(|line| line.contains(text))
        .unwrap_or_else(|| panic!("{text} is not in\n{lines}"));
    line.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn history_says_what_each_commit_has_changed() {
    let soe = soe();
    let done = soe.run(&["history", "one", "--store", "s.db"]).exits_with(0);
    let done = done.says("created with workflow flow; running; signal START; Price (run 1) begins");
    let done = done.says("Price (run 1) ends; price = \"EUR 3\"; signal PRICED; Offer (run 2) begins");
    let lines = done.says("rested").stdout.lines().count();
    let documents = soe
        .run(&["history", "one", "--store", "s.db", "--json"])
        .exits_with(0)
        .json_lines();
    assert_eq!(documents.len(), lines);
    assert_eq!(documents[0]["version"], 1);
    assert!(documents[0]["changes"][0]["created"].is_object() && documents[0]["events"].is_array());
    let part = [
        "history", "one", "--store", "s.db", "--json", "--from", "2", "--limit", "1",
    ];
    let part = soe.run(&part).exits_with(0).json_lines();
    assert_eq!(part, documents[1..2]);
}

#[test]
fn an_execution_is_shown_as_it_was() {
    let soe = soe();
    let version = version_of(&soe, "Offer (run 2) begins");
    let shown = soe
        .run(&["show", "one", "--store", "s.db", "--at", &version, "--json"])
        .exits_with(0)
        .json();
    assert_eq!(
        (shown["status"].as_str(), &shown["running"]),
        (Some("running"), &json!(["Offer"]))
    );
    assert_eq!(shown["version"].to_string(), version);
    assert_eq!(shown["context"], json!({"amount": 3, "price": "EUR 3"}));
    assert_eq!(shown["children"], json!([]));
    soe.run(&["show", "one", "--store", "s.db"])
        .exits_with(0)
        .says("cheap")
        .says("version");
}

#[test]
fn a_fork_goes_on_with_another_context() {
    let soe = soe();
    let version = version_of(&soe, "Offer (run 2) begins");
    let fork = ["fork", "one", "--at", &version, "--id", "two", "--set", "price=EUR 7"];
    let done = soe.run(&[&fork[..], &ENGINE].concat()).exits_with(0);
    assert_eq!(
        done.json(),
        json!({"amount": 3, "price": "EUR 7", "offer": "expensive"})
    );
    done.says(&format!("of one at version {version}"));
    let shown = soe
        .run(&["show", "two", "--store", "s.db", "--history", "--json"])
        .exits_with(0)
        .json();
    assert_eq!(shown["context"]["price"], json!(["EUR 3", "EUR 7"]));
    soe.run(&["history", "two", "--store", "s.db"])
        .says(&format!("forked from one at version {version}"));
    // From the beginning, and from the end.
    let first = ["fork", "one", "--at", "1", "--context", r#"{"note": "x"}"#, "--json"];
    let last = soe.run(&[&first[..], &ENGINE].concat()).exits_with(0).json_lines();
    assert_eq!(last.last().unwrap()["context"]["offer"], "cheap");
    let now = soe
        .run(&[&["fork", "one", "--field", "extra=1", "-q"][..], &ENGINE].concat())
        .exits_with(0);
    assert_eq!(now.json()["extra"], 1);
    assert_eq!(soe.run(&["list", "--store", "s.db", "--json"]).json_lines().len(), 4);
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_started() {
    let soe = soe();
    let fork = |more: &[&str]| soe.run(&[&["fork", "one"], more, &ENGINE].concat());
    fork(&["--at", "99"])
        .exits_with(1)
        .says("it has no version 99; its versions are 1 to");
    fork(&["--id", "one"])
        .exits_with(1)
        .says("there is an execution of that id already: one");
    fork(&["--set", "__x=1"]).exits_with(1).says("reserved");
    fork(&["--limit", "nothing=1"])
        .exits_with(2)
        .says("there is no limit 'nothing'");
    fork(&["--context", "[1]"]).exits_with(2).says("must be a JSON object");
    fork(&["--at", "x"]).exits_with(2);
    soe.run(&["fork", "one", "--store", "s.db"])
        .exits_with(1)
        .says("needs the tools price");
    soe.run(&["fork", "nobody", "--store", "s.db"])
        .exits_with(1)
        .says("there is no such execution");
    soe.run(&["history", "nobody", "--store", "s.db"])
        .exits_with(1)
        .says("there is no such execution");
    soe.run(&["history", "one", "--store", "other.db"])
        .exits_with(1)
        .says("there is no store in other.db");
    soe.run(&["show", "one", "--store", "s.db", "--at", "0"])
        .exits_with(1)
        .says("no version 0");
    let refused = soe.run(&[&["fork", "one", "--at", "99", "--json"][..], &ENGINE].concat());
    assert!(
        refused.exits_with(1).json_lines()[0]["error"]
            .as_str()
            .unwrap()
            .contains("versions are 1 to")
    );
    assert_eq!(soe.run(&["list", "--store", "s.db", "--json"]).json_lines().len(), 1);
}

#[test]
fn a_folder_keeps_the_present_only_and_says_so() {
    let soe = Soe::with(&[("w.yaml", FLOW), ("tools.yaml", TOOLS), ("replies.yaml", REPLIES)]);
    let engine = ["--store", "data", "--tools", "tools.yaml", "--llm", "mock:replies.yaml"];
    let run = ["run", "w.yaml", "--id", "one", "--set", "amount=3", "-q"];
    soe.run(&[&run[..], &engine].concat()).exits_with(0);
    for command in [
        vec!["history", "one", "--store", "data"],
        vec!["show", "one", "--store", "data", "--at", "1"],
        [&["fork", "one", "--at", "1"][..], &engine].concat(),
    ] {
        let done = soe.run(&command).exits_with(1);
        done.says("the store doesn't keep earlier versions")
            .says("SQLite keeps every version");
    }
    soe.run(&[&["fork", "one", "-q"][..], &engine].concat())
        .exits_with(0)
        .says("cheap");
}

#[test]
fn gc_deletes_what_has_failed_and_with_rested_what_rests() {
    let soe = soe();
    let run = [
        "run", "w.yaml", "--id", "failed", "--set", "amount=3", "-q", "--limit", "runs=1",
    ];
    soe.run(&[&run[..], &ENGINE].concat()).exits_with(1);
    let gc = |more: &[&str]| soe.run(&[&["gc", "--store", "s.db"], more].concat());
    gc(&["--older-than", "1h"])
        .exits_with(0)
        .says("0 trees with 0 executions deleted");
    let dry = gc(&["--older-than", "0s", "--dry-run"]).exits_with(0);
    dry.says("failed").says("1 tree with 1 execution would be deleted");
    let found = gc(&["--older-than", "0s", "--rested", "--dry-run", "--json"])
        .exits_with(0)
        .json();
    assert_eq!(
        (&found["trees"], found["roots"].as_array().unwrap().len()),
        (&json!(2), 2)
    );
    gc(&["--older-than", "0s"])
        .exits_with(0)
        .says("1 tree with 1 execution deleted");
    soe.run(&["show", "one", "--store", "s.db"]).exits_with(0);
    let deleted = gc(&["--older-than", "0s", "--rested", "--json"]).exits_with(0).json();
    assert_eq!(deleted, json!({"trees": 1, "executions": 1, "kept": [], "errors": []}));
    assert!(soe.run(&["list", "--store", "s.db"]).exits_with(0).stdout.is_empty());
    gc(&[]).exits_with(2).says("--older-than");
    gc(&["--older-than", "old"]).exits_with(2).says("an age such as 7d");
    soe.run(&["gc", "--store", "nowhere", "--older-than", "1d"])
        .exits_with(1)
        .says("there is no store");
}
