//! What conditions and prompts cost, beside the same in the engine as it comes. `cargo bench -p soe-core --bench templates`.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;
use minijinja::Environment;
use soe_backends::{Context, Value};
use soe_core::template::{Scope, Template};

const CASES: [(&str, &str); 7] = [
    ("compare", "{{ context.score > 0.8 }}"),
    (
        "and",
        "{{ context.status == 'ok' and context.count >= 3 and context.flag }}",
    ),
    ("accumulated", "{{ context.results | accumulated | length >= 3 }}"),
    (
        "join",
        "{{ context.results | accumulated | length == context.items | accumulated | length }}",
    ),
    (
        "signals",
        "{{ 'A_DONE' in context.__operational__.signals and 'B_DONE' in context.__operational__.signals }}",
    ),
    (
        "select",
        "{{ context.votes | selectattr('vote', 'equalto', 'yes') | list | length >= 2 }}",
    ),
    (
        "prompt",
        "Hello {{ context.user }}.\n{% for v in context.votes %}{{ loop.index }}: {{ v.vote }}\n{% endfor %}{{ context.status | upper }}",
    ),
];

/// Conditions of the commonest shapes, which are evaluated without the template engine.
const PLAIN: [(&str, &str); 10] = [
    ("truth", "context.flag"),
    ("compare", "context.score >= 0.8"),
    ("and", "context.status == 'ok' and context.count >= 3 and context.flag"),
    ("result", "result.kind == 'a'"),
    ("length", "context.results | accumulated | length >= 3"),
    (
        "join",
        "context.results | accumulated | length == context.items | accumulated | length",
    ),
    (
        "signals",
        "'A_DONE' in context.__operational__.signals and 'B_DONE' in context.__operational__.signals",
    ),
    ("count", "context.__operational__.signals.count('DONE') == 100000"),
    (
        "select",
        "context.__operational__.signals | select('equalto', 'DONE') | list | length == 100000",
    ),
    ("runs", "context.__operational__.nodes.get('worker', 0) >= 2"),
];

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    passes(&mut criterion);
    plain(&mut criterion);
    compile(&mut criterion);
    stock_engine(&mut criterion);
    criterion.final_summary();
}

/// A context whose history `results` has 10,000 values, of which 1.3 MB are text.
fn context() -> Context {
    let mut context = Context::default();
    let mut set = |name: &str, value: serde_json::Value| context.append(&name.into(), Value::from(value));
    set("score", 0.9.into());
    set("status", "ok".into());
    set("count", 5.into());
    set("flag", true.into());
    set("user", "Ada".into());
    set("items", serde_json::json!(["a", "b", "c"]));
    set(
        "votes",
        serde_json::json!([{"vote": "yes"}, {"vote": "no"}, {"vote": "yes"}]),
    );
    for id in 0..10_000 {
        set("results", serde_json::json!({"id": id, "text": "x".repeat(100)}));
    }
    for signal in ["START", "A_DONE", "B_DONE"] {
        context.operational.signals.push(signal.into());
    }
    context
}

fn passes(criterion: &mut Criterion) {
    let scope = Scope::new(&context());
    for (name, source) in CASES {
        let template = Template::compile(source).unwrap();
        let id = format!("passes/{name}");
        criterion.bench_function(&id, |b| b.iter(|| template.passes(black_box(&scope)).unwrap()));
    }
}

/// The same conditions as they are, and in a form that the engine has to evaluate.
fn plain(criterion: &mut Criterion) {
    let mut context = context();
    for _ in 0..100_000 {
        context.operational.signals.push("DONE".into());
    }
    *context.operational.nodes.entry(&"worker".into()) = 2;
    let scope = Scope::new(&context).with_result(Value::from(serde_json::json!({"kind": "a"})));
    for (name, condition) in PLAIN {
        for (how, source) in [
            ("plain", format!("{{{{ {condition} }}}}")),
            ("engine", format!("{{{{ ({condition}) if true }}}}")),
        ] {
            let template = Template::compile(&source).unwrap();
            let id = format!("{how}/{name}");
            criterion.bench_function(&id, |b| b.iter(|| template.passes(black_box(&scope)).unwrap()));
        }
    }
}

fn compile(criterion: &mut Criterion) {
    for (name, source) in CASES {
        let id = format!("compile/{name}");
        criterion.bench_function(&id, |b| b.iter(|| Template::compile(black_box(source)).unwrap()));
    }
}

/// The engine alone, on values converted beforehand.
fn stock_engine(criterion: &mut Criterion) {
    let mut env = Environment::new();
    env.set_fuel(Some(1_000_000));
    for (name, source) in &CASES[..2] {
        let template = env.template_from_str(source).unwrap();
        let data = serde_json::json!({"context": {"score": 0.9, "status": "ok", "count": 5, "flag": true}});
        let data = minijinja::Value::from(minijinja::value::Serde(data));
        let id = format!("stock engine/{name}");
        criterion.bench_function(&id, |b| b.iter(|| template.render(black_box(data.clone())).unwrap()));
    }
}
