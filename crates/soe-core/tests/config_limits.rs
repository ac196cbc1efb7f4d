//! Hostile and large configurations: a clear error or a quick answer, never a crash.

// Helpers are no tests to clippy.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use soe_core::config::{Config, Registry, YamlErrorKind, parse_yaml};

/// Generous, since tests run unoptimised, beside each other and on busy machines: what grows with the square of the input
/// takes far longer.
const SOON: Duration = Duration::from_secs(120);

fn soon<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = run();
    let took = start.elapsed();
    println!("{what}: {took:?}");
    assert!(took < SOON, "{what} took {took:?}");
    result
}

fn error_of(text: &str) -> String {
    Config::from_yaml(text).unwrap_err().to_string()
}

#[test]
fn alias_bombs() {
    let mut doubling = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..40 {
        writeln!(doubling, "a{i}: &a{i} [*a{p}, *a{p}, *a{p}, *a{p}]", p = i - 1).unwrap();
    }
    assert!(soon("doubling lists", || error_of(&doubling)).contains("aliases counted in full"));

    let mut many = String::from("big: &big [");
    many.push_str(&"x,".repeat(1_000));
    many.push_str("]\nall: [");
    many.push_str(&"*big,".repeat(20_000));
    many.push(']');
    assert!(soon("many uses", || error_of(&many)).contains("aliases counted in full"));

    let mut text = format!("text: &text '{}'\nall: [", "x".repeat(1 << 20));
    text.push_str(&"*text,".repeat(20_000));
    text.push(']');
    assert!(soon("a long text", || error_of(&text)).contains("aliases counted in full"));

    let mut merges = String::from("m0: &m0 {a: 1, b: 2}\n");
    for i in 1..2_000 {
        writeln!(merges, "m{i}: &m{i} {{<<: *m{p}, k{i}: 1}}", p = i - 1).unwrap();
    }
    assert!(soon("a chain of merges", || error_of(&merges)).contains("aliases counted in full"));
}

#[test]
fn deep_nesting() {
    let cases = [
        ("flow lists", "[".repeat(10_000)),
        ("flow mappings", "{a: ".repeat(50_000)),
        ("lists on a line", "- ".repeat(10_000)),
        ("keys of keys", "? ".repeat(10_000)),
        (
            "block mappings",
            (0..10_000).fold(String::new(), |text, i| text + &" ".repeat(i.min(300)) + "a:\n"),
        ),
    ];
    for (what, text) in cases {
        let error = soon(what, || error_of(&text));
        assert!(error.contains("Invalid YAML"), "{what}: {error}");
    }
    let json = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(matches!(
        parse_yaml(&json).unwrap_err().kind(),
        YamlErrorKind::TooDeep(_)
    ));
}

#[test]
fn aliases_that_add_up_to_deep_nesting() {
    let mut text = String::from("a0: &a0 [x]\n");
    for i in 1..150 {
        let (open, close) = ("[".repeat(60), "]".repeat(60));
        writeln!(text, "a{i}: &a{i} {open}*a{}{close}", i - 1).unwrap();
    }
    assert!(matches!(
        parse_yaml(&text).unwrap_err().kind(),
        YamlErrorKind::TooDeep(_)
    ));
}

#[test]
fn values_that_are_too_deep() {
    let mut value = serde_json::json!(1);
    for _ in 0..500 {
        value = serde_json::json!([value]);
    }
    let error = Config::from_value(serde_json::json!({"main": value.clone()})).unwrap_err();
    assert_eq!(error.diagnostics()[0].code, "too-deep");
    assert!(Registry::from_document(soe_backends::Value::from(value)).is_err());
}

#[test]
fn texts_that_are_too_large() {
    let text = format!("main: '{}'", "x".repeat(17 << 20));
    assert!(matches!(
        parse_yaml(&text).unwrap_err().kind(),
        YamlErrorKind::TooLarge(_)
    ));
    let text = format!("main: {}", "x".repeat(8 << 20));
    soon("a scalar of 8 MB", || parse_yaml(&text)).unwrap();
    let lines = format!("main: |\n{}", "  x\n".repeat(500_000));
    soon("a block of 2 MB", || parse_yaml(&lines)).unwrap();
    let digits = format!("main: {}", "1".repeat(1 << 20));
    let error = soon("a number of 1 MB", || parse_yaml(&digits)).unwrap_err();
    assert!(matches!(error.kind(), YamlErrorKind::NonFiniteNumber(_)));
    let parts = format!("main: 1{}", ":1".repeat(500_000));
    let error = soon("base 60", || parse_yaml(&parts)).unwrap_err();
    assert!(matches!(error.kind(), YamlErrorKind::NonFiniteNumber(_)));
}

#[test]
fn ten_thousand_nodes_in_a_chain() {
    let mut text = String::from("main:\n");
    for i in 0..10_000 {
        writeln!(
            text,
            "  node{i}:\n    node_type: llm\n    event_triggers: [S{i}]\n    prompt: '{{{{ context.f{i} }}}}'"
        )
        .unwrap();
        writeln!(
            text,
            "    output_field: f{}\n    event_emissions: [{{signal_name: S{}}}]",
            i + 1,
            i + 1
        )
        .unwrap();
    }
    let config = soon("a chain", || Config::from_yaml(&text)).unwrap();
    assert_eq!(config.workflow("main").unwrap().nodes.len(), 10_000);
    assert!(config.warnings().is_empty());
}

#[test]
fn ten_thousand_nodes_on_one_signal() {
    let mut text = String::from("main:\n");
    for i in 0..10_000 {
        writeln!(
            text,
            "  node{i}:\n    node_type: router\n    event_triggers: [START, AGAIN]"
        )
        .unwrap();
        writeln!(
            text,
            "    event_emissions: [{{signal_name: AGAIN}}, {{signal_name: OUT{i}}}]"
        )
        .unwrap();
    }
    let config = soon("one signal", || Config::from_yaml(&text)).unwrap();
    assert_eq!(config.warnings().len(), 1, "{:?}", config.warnings());
}

#[test]
fn ten_thousand_joins() {
    let mut text = String::from("main:\n");
    for i in 0..10_000 {
        writeln!(
            text,
            "  node{i}:\n    node_type: tool\n    tool_name: t\n    output_field: f{i}"
        )
        .unwrap();
        writeln!(
            text,
            "    event_triggers: [START, S{i}]\n    event_emissions:\n      - signal_name: S{}",
            i + 1
        )
        .unwrap();
        writeln!(
            text,
            "        condition: '{{{{ context.f{} | history | length == 2 }}}}'",
            i / 2
        )
        .unwrap();
    }
    let config = soon("joins", || Config::from_yaml(&text)).unwrap();
    assert!(config.warnings().iter().any(|w| w.code == "joins-not-checked"));
}

#[test]
fn a_hundred_thousand_emissions() {
    let mut text =
        String::from("main:\n  node:\n    node_type: router\n    event_triggers: [START]\n    event_emissions:\n");
    for i in 0..100_000 {
        let condition = if i % 10 == 0 { "{{ context.x }}" } else { "" };
        writeln!(text, "      - {{signal_name: S{i}, condition: '{condition}'}}").unwrap();
    }
    let config = soon("emissions", || Config::from_yaml(&text)).unwrap();
    assert_eq!(config.workflow("main").unwrap().nodes["node"].emissions.len(), 100_000);
}

#[test]
fn problems_are_listed_up_to_a_limit() {
    let mut text =
        String::from("main:\n  node:\n    node_type: router\n    event_triggers: [START]\n    event_emissions:\n");
    for _ in 0..50_000 {
        text.push_str("      - {signal: A, condition: 5}\n");
    }
    let error = soon("problems", || Config::from_yaml(&text)).unwrap_err();
    assert_eq!(error.diagnostics().len(), 2_001);
    assert!(
        error.to_string().ends_with("148000 more problems are not listed"),
        "{}",
        error.diagnostics()[2_000]
    );
}

#[test]
fn unknown_names_by_the_thousand() {
    let mut text = String::from("main:\n");
    for i in 0..5_000 {
        writeln!(
            text,
            "  node{i}:\n    node_type: child\n    event_triggers: [TRIGGER{i}]\n    child_workflow_name: workflow{i}x"
        )
        .unwrap();
        writeln!(text, "    child_initial_signals: [START]\n    unknown_field{i}: 1").unwrap();
    }
    for i in 0..5_000 {
        writeln!(
            text,
            "workflow{i}: {{n: {{node_type: llm, event_triggers: [START], prompt: p}}}}"
        )
        .unwrap();
    }
    soon("unknown names", || Config::from_yaml(&text)).unwrap_err();
}

/// What takes minutes if it is compared pairwise.
const MANY: usize = 200_000;

#[test]
fn two_hundred_thousand_triggers() {
    let triggers: Vec<String> = (0..MANY).map(|i| format!("S{i}")).collect();
    let triggers = triggers.join(", ");
    // The second node names each twice.
    let text = format!(
        "main:\n  a: {{node_type: router, event_triggers: [{triggers}], event_emissions: [{{signal_name: DONE}}]}}\n  \
         b: {{node_type: router, event_triggers: [{triggers}, {triggers}], event_emissions: [{{signal_name: END}}]}}\n"
    );
    let config = soon("triggers", || Config::from_yaml(&text)).unwrap();
    let workflow = config.workflow("main").unwrap();
    assert_eq!(workflow.nodes["b"].triggers.len(), 2 * MANY);
    let names = |signals: &[Arc<str>]| -> Vec<Arc<str>> {
        workflow
            .listeners(signals)
            .iter()
            .map(|node| node.name.clone())
            .collect()
    };
    assert_eq!(names(&["S7".into()]), ["a".into(), "b".into()]);
    // A batch of all of them: each node once, in the order of the file.
    let all: Vec<Arc<str>> = (0..MANY).rev().map(|i| format!("S{i}").into()).collect();
    assert_eq!(soon("a batch", || names(&all)), ["a".into(), "b".into()]);
    assert!(names(&["X".into(), "Y".into()]).is_empty());
}

#[test]
fn many_writers_of_what_a_join_counts() {
    let mut text = String::from("main:\n");
    for i in 0..20_000 {
        writeln!(
            text,
            "  w{i}: {{node_type: tool, tool_name: t, output_field: f, event_triggers: [START], event_emissions: [{{signal_name: D{i}}}]}}"
        )
        .unwrap();
    }
    let signals: Vec<String> = (0..20_000).map(|i| format!("D{i}")).collect();
    writeln!(
        text,
        "  join: {{node_type: router, event_triggers: [{}], event_emissions: [{{signal_name: END, condition: '{{{{ context.f | accumulated | length == 20000 }}}}'}}]}}",
        signals.join(", ")
    )
    .unwrap();
    let config = soon("writers", || Config::from_yaml(&text)).unwrap();
    assert!(config.warnings().is_empty(), "{:?}", config.warnings());
}

#[test]
fn a_condition_about_twenty_thousand_signals() {
    // Text outside of tags isn't limited as code is, but looked through all the same.
    let asked: String = (0..20_000)
        .map(|i| format!(" 'S{i}' in context.__operational__.signals and"))
        .collect();
    let text = format!(
        "main:\n  a: {{node_type: router, event_triggers: [START], event_emissions: [{{signal_name: A, condition: \"{{{{ true }}}}{asked}\"}}]}}\n"
    );
    soon("asked signals", || Config::from_yaml(&text)).unwrap();
}

#[test]
fn long_names_that_resemble_each_other() {
    let mut text = String::from("main:\n");
    for i in 0..400 {
        let long = "x".repeat(4_000);
        writeln!(
            text,
            "  n{i}: {{node_type: router, event_triggers: [IN_{long}_{i}], event_emissions: [{{signal_name: OUT_{long}_{i}}}]}}"
        )
        .unwrap();
    }
    soon("long names", || Config::from_yaml(&text)).unwrap();
}

#[test]
fn references_to_many_entries() {
    let mut text = String::from("workflows:\n  main:\n");
    for i in 0..10_000 {
        writeln!(
            text,
            "    n{i}: {{node_type: llm, event_triggers: [START], prompt: p, identity: someone_{i}, output_field: o{i}}}"
        )
        .unwrap();
    }
    text.push_str("identities:\n");
    (0..10_000).for_each(|i| writeln!(text, "  person_{i}: You are person {i}.").unwrap());
    text.push_str("context_schema:\n");
    (0..10_000).for_each(|i| writeln!(text, "  field_{i}: string").unwrap());
    soon("references", || Config::from_yaml(&text)).unwrap();
}

#[test]
fn random_bytes_never_panic() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let pieces = [
        "a", ":", " ", "\n", "- ", "[", "]", "{", "}", "&x ", "*x", "|", ">", "'", "\"", "#", "!!int ", "<<: ", "? ",
        "1", ".", "\t", "%", "é", "---\n", ",",
    ];
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..24 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.push_str(pieces[(state % pieces.len() as u64) as usize]);
        }
        let _ = parse_yaml(&text);
        let _ = Config::from_yaml(&text);
    }
}
