//! What it costs to read replies, friendly and hostile ones. `cargo bench -p soe-core --bench replies`.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use serde_json::json;
use soe_core::config::FieldSchema;
use soe_core::llm::ReplyFormat;

const MB: usize = 1_000_000;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let any = format(json!("any"));
    let people = format(json!({"type": "list", "items": {"type": "object", "properties": {
        "name": "string", "age": "integer", "tags": {"type": "list", "items": "string"},
    }}}));
    let text = format(json!("string"));
    let object = object();
    let list = list();
    let fenced = format!("<think>{}</think>\nHere:\n```json\n{list}\n```\n", "so ".repeat(10_000));
    let cases = [
        ("object, 1 MB", &any, object, true),
        ("list of objects, 1 MB", &people, list.clone(), true),
        ("list of objects in a fence after thoughts, 1 MB", &people, fenced, true),
        (
            "objects of wrong types, 1 MB",
            &people,
            list.replace("36", "true"),
            false,
        ),
        ("unbalanced, 1 MB", &any, "{ so [ ".repeat(MB / 7), false),
        (
            "unbalanced strings, 1 MB",
            &any,
            "[\"a\", {\"b\" ".repeat(MB / 11),
            false,
        ),
        (
            "100,000 nested brackets",
            &any,
            "[".repeat(100_000) + &"]".repeat(100_000),
            false,
        ),
        ("100,000 unclosed brackets", &any, "[{".repeat(50_000), false),
        (
            "text with tags and fences, 8 MB",
            &text,
            "<think ``` { \" ".repeat(8 * MB / 15),
            true,
        ),
        ("text, 10 MB: too long", &text, "word ".repeat(2 * MB), false),
    ];
    for (name, format, reply, valid) in cases {
        assert_eq!(format.parse(&reply).is_ok(), valid, "{name}");
        criterion.bench_function(name, |b| b.iter(|| format.parse(black_box(&reply)).is_ok()));
    }
    criterion.final_summary();
}

fn format(definition: serde_json::Value) -> ReplyFormat {
    let schema = FieldSchema::from_definition("field", &definition.into()).unwrap();
    ReplyFormat::output(Some(&Arc::from("field")), Some(&schema), &[])
}

fn object() -> String {
    let entries = (0..10_000).map(|i| (format!("key {i}"), json!({"text": "x".repeat(60), "n": i})));
    serde_json::Value::Object(entries.collect()).to_string()
}

fn list() -> String {
    let person = json!({"name": "Ada Lovelace", "age": 36, "tags": ["a", "b"], "other": null});
    json!(vec![person; MB / 65]).to_string()
}
