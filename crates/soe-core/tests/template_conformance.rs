//! Measures how far templates agree with Python's Jinja2 on a table of what Jinja2 3.1.6 gives, and holds the agreement down.
//!
//! The cases that differ are listed in `data/template_differences.txt`, one per line, with the reason of their group. A case that
//! begins or ceases to differ fails the test; `SOE_UPDATE_DIFFERENCES=1` rewrites the list.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::Value as Json;
use soe_backends::{Context, Value};
use soe_core::template::{Scope, Template, TemplateError};

const SIGNALS: f64 = 99.0;
const OUTPUTS: f64 = 98.0;

/// What one case came to.
struct Outcome {
    class: String,
    template: String,
    output: bool,
    /// `None`: the case is no condition.
    signal: Option<bool>,
    validation: bool,
    line: String,
}

#[test]
fn templates_agree_with_jinja2() {
    let table: Json = serde_json::from_str(&std::fs::read_to_string(data("templates.json")).unwrap()).unwrap();
    let cases = table["cases"].as_array().unwrap();
    let outcomes: Vec<Outcome> = cases.iter().map(|case| run(&table["contexts"], case)).collect();
    report(&outcomes);

    let share = |agree: &dyn Fn(&Outcome) -> Option<bool>| {
        let answers: Vec<bool> = outcomes.iter().filter_map(agree).collect();
        100.0 * answers.iter().filter(|agrees| **agrees).count() as f64 / answers.len() as f64
    };
    let signals = share(&|outcome| outcome.signal);
    let outputs = share(&|outcome| Some(outcome.output));
    let validation = share(&|outcome| Some(outcome.validation));
    println!("signals {signals:.2} %, outputs {outputs:.2} %, validation {validation:.2} %, cases {}", outcomes.len());
    let mut found = String::new();
    for outcome in outcomes.iter().filter(|o| !o.output || o.signal == Some(false) || !o.validation) {
        writeln!(found, "{}", outcome.line).unwrap();
    }
    let listed = data("template_differences.txt");
    if std::env::var_os("SOE_UPDATE_DIFFERENCES").is_some() {
        std::fs::write(&listed, &found).unwrap();
    }
    let known = std::fs::read_to_string(&listed).unwrap_or_default();
    assert!(signals >= SIGNALS, "signals agree in {signals:.2} % of the cases only");
    assert!(outputs >= OUTPUTS, "outputs agree in {outputs:.2} % of the cases only");
    assert!(known == found, "the differing cases changed:\n{}", changes(&known, &found));
}

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn run(contexts: &Json, case: &Json) -> Outcome {
    let source = case["template"].as_str().unwrap();
    let scope = scope(contexts, case);
    let compiled = Template::compile(source);
    let rendered = compiled.as_ref().map_err(describe).and_then(|t| t.render(&scope).map_err(|e| describe(&e)));
    let passes = compiled.as_ref().is_ok_and(|template| template.passes(&scope).unwrap_or(false));
    if let Ok(template) = &compiled {
        // Conditions take short cuts; they must not lead elsewhere.
        assert_eq!(passes, rendered.as_ref().is_ok_and(|text| is_passing(text)), "{}", template.source());
    }
    let expected = case["expected"].as_str();
    let mut signal = case.get("signal").and_then(Json::as_bool);
    if !source.contains("{{") {
        // The reference takes a condition without '{{' for plain text, which passes; here it is a condition like any other.
        signal = signal.map(|_| expected.is_some_and(is_passing));
    }
    let refused = case["validation_error"].as_str();
    let mut line = format!("{} | {} | {:?}", case["class"].as_str().unwrap(), case["context"], source);
    if let Some(result) = case.get("result") {
        write!(line, " | result {result}").unwrap();
    }
    let rendered = rendered.as_ref();
    write!(line, " | jinja {:?} | here {:?}", expected.or(refused).unwrap_or("error"), rendered).unwrap();
    Outcome {
        class: case["class"].as_str().unwrap().to_owned(),
        template: source.to_owned(),
        output: match expected {
            Some(expected) => rendered.is_ok_and(|text| text == expected),
            None => rendered.is_err(),
        },
        signal: signal.map(|signal| signal == passes),
        validation: refused.is_some() == compiled.is_err(),
        line,
    }
}

fn is_passing(text: &str) -> bool {
    !matches!(text.trim().to_lowercase().as_str(), "" | "false" | "0" | "none")
}

fn describe(error: &TemplateError) -> String {
    error.to_string()
}

fn scope(contexts: &Json, case: &Json) -> Scope {
    let mut context = Context::default();
    for (name, value) in contexts[case["context"].as_u64().unwrap() as usize].as_object().unwrap() {
        let only = vec![value.clone()];
        let history = case.get("history").and_then(|h| h.get(name)).and_then(Json::as_array).unwrap_or(&only);
        for value in history {
            context.append(&name.as_str().into(), Value::from(value));
        }
    }
    let scope = Scope::new(&context);
    match case.get("result") {
        Some(result) => scope.with_result(Value::from(result)),
        None => scope,
    }
}

fn report(outcomes: &[Outcome]) {
    let mut classes: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    for outcome in outcomes {
        let counts = classes.entry(&outcome.class).or_default();
        counts[0] += 1;
        counts[1] += usize::from(!outcome.output);
        counts[2] += usize::from(outcome.signal == Some(false));
        counts[3] += usize::from(!outcome.validation);
        assert!(!outcome.template.is_empty() || outcome.class == "stmt.misc" || outcome.class.starts_with("print"));
    }
    println!("{:24}{:>8}{:>10}{:>10}{:>12}", "class", "cases", "outputs", "signals", "validation");
    for (class, [cases, outputs, signals, validation]) in classes {
        println!("{class:24}{cases:>8}{outputs:>10}{signals:>10}{validation:>12}");
    }
}

fn changes(known: &str, found: &str) -> String {
    let mut text = String::new();
    for line in found.lines().filter(|line| !known.lines().any(|other| other == *line)) {
        writeln!(text, "+ {line}").unwrap();
    }
    for line in known.lines().filter(|line| !found.lines().any(|other| other == *line)) {
        writeln!(text, "- {line}").unwrap();
    }
    text
}
