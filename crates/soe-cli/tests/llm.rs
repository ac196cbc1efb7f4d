//! Workflows that ask LLMs: which one, what is shown, what it took.
#![allow(missing_docs, clippy::unwrap_used)]
#![cfg(unix)]

mod support;

use serde_json::json;
use support::Soe;

const REVIEW: &str = "
review:
  Draft:
    node_type: llm
    event_triggers: [START]
    prompt: 'Write on {{ context.topic }}'
    output_field: draft
    event_emissions: [{signal_name: DRAFTED}]
  Judge:
    node_type: llm
    event_triggers: [DRAFTED]
    prompt: 'Is this good? {{ context.draft }}'
    output_field: verdict
    event_emissions: [{signal_name: GOOD, condition: it is good}, {signal_name: BAD, condition: it is bad}]
";

const REPLIES: &str = "
- node: Draft
  output: \"Cats sleep. \\e[2J\"
  usage: {prompt_tokens: 120, completion_tokens: 4}
  pieces_of: 3
- node: Judge
  output: fine
  signals: [GOOD]
  usage: {prompt_tokens: 20, completion_tokens: 1}
";

const RUN: &[&str] = &["run", "w.yaml", "--set", "topic=cats", "--llm", "mock:replies.yaml"];

fn review() -> Soe {
    Soe::with(&[("w.yaml", REVIEW), ("replies.yaml", REPLIES)])
}

#[test]
fn a_mock_answers_and_the_summary_says_what_it_took() {
    let done = review().run(RUN).exits_with(0);
    assert_eq!(
        done.json(),
        json!({"topic": "cats", "draft": "Cats sleep. \u{1b}[2J", "verdict": "fine"})
    );
    let done = done
        .says("ask      Draft\n")
        .says("reply    Draft: 120 + 4 tokens")
        .says("signal   GOOD")
        .says("2 node runs, 2 LLM calls, 145 tokens, 0 tool calls")
        .says("LLMs took 140 tokens for prompts, 5 for replies\n")
        .says("  Draft: 1 call, 120 tokens for prompts, 4 for replies\n");
    // Nobody looks at a pipe.
    done.does_not_say("says ").does_not_say("\u{1b}");
}

#[test]
fn the_last_line_of_json_has_the_usage() {
    let lines = review().run(&[RUN, &["--json"]].concat()).exits_with(0).json_lines();
    let last = lines.last().unwrap();
    assert_eq!((&last["llm_calls"], &last["tokens"]), (&json!(2), &json!(145)));
    assert_eq!(
        last["usage"],
        json!({"prompt_tokens": 140, "completion_tokens": 5, "nodes": {
            "Draft": {"llm_calls": 1, "prompt_tokens": 120, "completion_tokens": 4},
            "Judge": {"llm_calls": 1, "prompt_tokens": 20, "completion_tokens": 1},
        }})
    );
    assert!(lines.iter().all(|line| line["event"] != "llm_text"));
    let quiet = review().run(&[RUN, &["--json", "-q"]].concat()).exits_with(0);
    assert_eq!(quiet.json_lines().len(), 1);
}

#[test]
fn what_llms_say_is_shown_line_by_line_when_it_is_wanted() {
    let done = review().run(&[RUN, &["--stream"]].concat()).exits_with(0);
    assert_eq!(done.json()["verdict"], "fine");
    let lines: Vec<&str> = done.stderr.lines().map(|line| line.get(11..).unwrap_or(line)).collect();
    let at = |text: &str| {
        lines
            .iter()
            .position(|line| *line == text)
            .unwrap_or_else(|| panic!("{text}: {lines:#?}"))
    };
    let said = at(r#"says     Draft: {"draft":"Cats sleep. \u001b[2J"}"#);
    assert!(
        at("ask      Draft") < said && said < at("reply    Draft: 120 + 4 tokens"),
        "{lines:#?}"
    );
    assert!(!done.stderr.contains('\u{1b}'));

    let lines = review()
        .run(&[RUN, &["--stream", "--json"]].concat())
        .exits_with(0)
        .json_lines();
    let pieces = lines
        .iter()
        .filter(|line| line["event"] == "llm_text" && line["data"]["node_name"] == "Draft");
    let text: String = pieces.map(|piece| piece["data"]["text"].as_str().unwrap()).collect();
    assert_eq!(text, r#"{"draft":"Cats sleep. \u001b[2J"}"#);
    review().run(&[RUN, &["--stream", "--quiet"]].concat()).exits_with(2);
    review()
        .run(&[RUN, &["--stream", "--no-stream"]].concat())
        .exits_with(0)
        .does_not_say("says ");
}

#[test]
fn nodes_that_speak_at_the_same_time_have_lines_of_their_own() {
    let node = |name: &str| format!("  {name}: {{node_type: llm, event_triggers: [START], prompt: {name}}}\n");
    let rule = |name: &str, word: &str| {
        let text = vec![word; 60].join(" ");
        format!("- {{node: {name}, text: '{{\"output\": \"{text}\"}}', latency: 300ms, pieces_of: 2}}\n")
    };
    let workflow = format!("w:\n{}{}", node("A"), node("B"));
    let soe = Soe::with(&[
        ("w.yaml", &workflow),
        ("r.yaml", &(rule("A", "alpha") + &rule("B", "beta"))),
    ]);
    let done = soe
        .run(&["run", "w.yaml", "--llm", "mock:r.yaml", "--stream"])
        .exits_with(0);
    let said: Vec<&str> = done
        .stderr
        .lines()
        .filter_map(|line| line.split_once("says     "))
        .map(|(_, text)| text)
        .collect();
    assert!(said.len() > 8, "{said:#?}");
    for line in &said {
        let words = if line.starts_with("A: ") {
            ("alpha", "beta")
        } else {
            ("beta", "alpha")
        };
        assert!(
            line.contains(words.0) && !line.contains(words.1) && line.len() <= 60,
            "{line}"
        );
    }
    let first_b = said.iter().position(|line| line.starts_with("B: ")).unwrap();
    assert!(
        said[first_b..].iter().any(|line| line.starts_with("A: ")),
        "not interleaved: {said:#?}"
    );
}

#[test]
fn nothing_runs_without_the_llms_that_nodes_ask() {
    let named = format!("{REVIEW}  Other: {{node_type: llm, event_triggers: [GOOD], prompt: Hi, llm: fast}}\n");
    let soe = Soe::with(&[("w.yaml", &named), ("replies.yaml", REPLIES)]);
    let done = soe.run(&["run", "w.yaml", "--store", "s"]).exits_with(1);
    let done = done
        .says("nodes 'Draft', 'Judge' ask an LLM, and there is none: add --llm openai, or --llm mock:FILE")
        .says("node 'Other' asks the LLM 'fast', and there is none of that name: add --llm fast=openai");
    done.does_not_say("START");
    let line = soe
        .run(&["run", "w.yaml", "--json"])
        .exits_with(1)
        .json_lines()
        .pop()
        .unwrap();
    assert!(line["error"].as_str().unwrap().contains("--llm mock:FILE"), "{line}");
    soe.run(RUN)
        .exits_with(1)
        .says("node 'Other' asks the LLM 'fast'")
        .does_not_say("'Draft'");
    let run = [RUN, &["--llm", "quick=mock:replies.yaml"]].concat();
    soe.run(&run).exits_with(1).says("(there are: quick)");

    std::fs::write(soe.path("fast.yaml"), "- {node: Other, output: ok}").unwrap();
    let run = [RUN, &["--llm", "fast=mock:fast.yaml"]].concat();
    soe.run(&run).exits_with(0).says("3 LLM calls");
}

#[test]
fn a_file_that_is_missing_or_wrong_is_said_before_anything_runs() {
    let bad = "- node: Draft\n  outputt: x\n- node: Judge\n  latency: soon\n  output: 1\n";
    let soe = Soe::with(&[("w.yaml", REVIEW), ("bad.yaml", bad), ("talk.jsonl", "{\"a\": 1}\n")]);
    let run = |llm: &str| {
        soe.run(&["run", "w.yaml", "--llm", llm])
            .exits_with(1)
            .does_not_say("START")
    };
    run("mock:no.yaml").says("error: the script of the mock LLM: no.yaml can't be read: No such file");
    run("mock:bad.yaml")
        .says("error[invalid-mock]: rule 1: unknown key 'outputt'")
        .says("bad.yaml:2:3")
        .says("did you mean 'output'?")
        .says("bad.yaml:4:");
    run("replay:no.jsonl").says("the recording no.jsonl can't be read: No such file");
    run("replay:talk.jsonl").says("talk.jsonl: this is no recording of an LLM");
    let done = soe
        .run(&["run", "w.yaml", "--json", "--llm", "mock:bad.yaml"])
        .exits_with(1);
    let line = done.json_lines().pop().unwrap();
    assert_eq!(
        (&line["status"], &line["diagnostics"][0]["line"]),
        (&json!("refused"), &json!(2))
    );
}

#[test]
fn a_wrong_option_is_code_2_and_says_what_is_possible() {
    let soe = review();
    let run = |options: &[&str]| soe.run(&[&["run", "w.yaml"], options].concat()).exits_with(2);
    run(&["--llm", "foo"]).says("`openai`, `mock:FILE`, `record:FILE` or `replay:FILE` is expected");
    run(&["--llm", "mock"]).says("a file is missing: `mock:FILE`");
    run(&["--llm", "openai", "--llm", "mock:replies.yaml"]).says("--llm is given twice without a name");
    run(&["--llm", "a=openai", "--llm", "a=openai"]).says("--llm names 'a' twice");
    run(&["--llm", "record:x", "--llm", "a=record:x"]).says("uses the file x twice");
    run(&["--llm", "mock:replies.yaml", "--model", "m"]).says("--model is for `--llm openai`");
    run(&["--native-tools"]).says("--native-tools is for `--llm openai`");
    // A key where its variable should be named isn't repeated.
    run(&["--llm", "openai", "--key-env", "sk-1234"])
        .says("--key-env takes the name of an environment variable")
        .does_not_say("sk-1234");
}

#[test]
fn an_execution_goes_on_with_the_llms_that_are_named_again() {
    let workflow = format!("{REVIEW}  Publish: {{node_type: llm, event_triggers: [APPROVED], prompt: Go}}\n");
    let replies =
        format!("{REPLIES}- {{node: Publish, output: done, usage: {{prompt_tokens: 7, completion_tokens: 1}}}}\n");
    let soe = Soe::with(&[("w.yaml", &workflow), ("replies.yaml", &replies)]);
    let done = soe.run(&[RUN, &["--store", "s", "--id", "r1"]].concat()).exits_with(0);
    done.says("soe signal r1 APPROVED --store s --llm mock:replies.yaml\n");
    let signal = &["signal", "r1", "APPROVED", "--store", "s"][..];
    soe.run(signal)
        .exits_with(1)
        .says("nodes 'Draft', 'Judge', 'Publish' ask an LLM");
    let done = soe
        .run(&[signal, &["--llm", "mock:replies.yaml"]].concat())
        .exits_with(0);
    done.says("ask      Publish")
        .says("3 LLM calls")
        .says("LLMs took 147 tokens for prompts, 6 for replies");
    soe.run(&["show", "r1", "--store", "s"])
        .exits_with(0)
        .says("3 of LLMs (153 tokens)");
}

#[test]
fn a_limit_that_is_reached_is_named() {
    for (limit, message) in [
        (
            "llm_calls=1",
            "limit llm_calls exceeded: all 1 requests to LLMs were made",
        ),
        (
            "tokens=100",
            "limit tokens exceeded: 124 tokens were used, 100 are allowed",
        ),
    ] {
        let done = review().run(&[RUN, &["--limit", limit]].concat()).exits_with(1);
        let done = done.says("ask      Draft").says(&format!("error    Judge: {message}"));
        done.says("is failed: 2 node runs, 1 LLM call")
            .does_not_say("ask      Judge");
        let last = review()
            .run(&[RUN, &["--json", "--limit", limit]].concat())
            .exits_with(1)
            .json_lines()
            .pop()
            .unwrap();
        assert_eq!(last["failure"]["limit"], limit.split('=').next().unwrap(), "{last}");
    }
}

#[test]
fn an_agent_and_its_tools_are_shown() {
    let workflow = "
w:
  Researcher:
    node_type: agent
    event_triggers: [START]
    prompt: How long do cats sleep?
    tools: [search]
    output_field: answer
";
    let tools = "
tools:
  search: {type: command, command: [echo, 'about {query}'], parameters: {query: string}, stdin: none, output: text}
";
    let replies = "
- node: Researcher
  replies:
    - {call_tool: search, arguments: {query: cats}}
    - finish: true
    - output: 14 hours
";
    let soe = Soe::with(&[("w.yaml", workflow), ("tools.yaml", tools), ("r.yaml", replies)]);
    let done = soe.run(&["run", "w.yaml", "--llm", "mock:r.yaml"]).exits_with(0);
    assert_eq!(done.json()["answer"], "14 hours");
    done.says("run      Researcher (agent)")
        .says("tools    Researcher: search")
        .says("ask      Researcher (router)")
        .says("ask      Researcher (parameter, request 2)")
        .says("call     Researcher: search {\"query\":\"cats\"}")
        .says("result   Researcher: search: about cats")
        .says("4 LLM calls, 1 tool call");
}

#[test]
fn what_a_script_has_for_nobody_is_said_when_all_is_over() {
    let soe = review();
    soe.run(RUN).exits_with(0).does_not_say("warning");
    std::fs::write(
        soe.path("replies.yaml"),
        format!("{REPLIES}- node: Nobody\n  output: x\n"),
    )
    .unwrap();
    soe.run(RUN)
        .exits_with(0)
        .says("warning: the script replies.yaml: rule 3, ")
        .says("never used");
    let waiting = format!("{REVIEW}  Later: {{node_type: llm, event_triggers: [GO], prompt: p}}\n");
    std::fs::write(soe.path("w.yaml"), waiting).unwrap();
    soe.run(RUN).exits_with(0).says("sends GO").does_not_say("warning");
}

#[test]
fn an_llm_can_have_a_colon_in_its_name() {
    let named = |name: &str| REVIEW.replace("prompt: 'Write", &format!("llm: \"{name}\"\n    prompt: 'Write"));
    let soe = Soe::with(&[("w.yaml", &named("llama3:8b")), ("replies.yaml", REPLIES)]);
    soe.run(RUN).exits_with(1).says("add --llm llama3:8b=openai");
    let both = [RUN, &["--llm", "llama3:8b=mock:replies.yaml"]].concat();
    soe.run(&both).exits_with(0).says("2 LLM calls");
    std::fs::write(soe.path("w.yaml"), named("mock:a")).unwrap();
    soe.run(RUN)
        .exits_with(1)
        .says("no --llm can give one of that name: choose a name without '='");
}
