use serde_json::{Value as Json, json};

use super::load::load;
use super::*;

/// Documents on which we differ from PyYAML on purpose, or because the parser follows YAML 1.2's grammar.
const DIFFERENCES: &[(&str, &str)] = &[
    ("on: push", KEY),
    ("yes: 1", KEY),
    ("NO: norway", KEY),
    ("true: 1", KEY),
    ("null: 1", KEY),
    ("~: x", KEY),
    ("1: a", KEY),
    ("1.5: a", KEY),
    ("true: a", KEY),
    ("null: a", KEY),
    ("0x10: a", KEY),
    ("? \n: a", KEY),
    ("1: a\n1: b", KEY),
    ("a: {1: x, '1': y}", KEY),
    ("2024-01-02: x", KEY),
    ("2024-01-02: a", KEY),
    (
        "a: 123456789012345678901234567890",
        "an integer beyond 64 bits becomes a float",
    ),
    ("a: 2024-01-02", DATE),
    ("a: 2024-01-02T03:04:05Z", DATE),
    ("a: 2024-01-02 03:04:05", DATE),
    ("a: 2001-12-14t21:59:43.10-05:00", DATE),
    ("a: 2024-13-45", DATE),
    ("a: !!timestamp 2024-01-02", DATE),
    ("d: &d\n  <<: *d", "a value that contains itself is an error"),
    (
        "a: &x 1\nb: &x 2\nc: *x",
        "an anchor can be set again, as YAML 1.2 says",
    ),
    (
        "a: \"\\ud83c\\udf89\"",
        "the parser joins no surrogate pairs; JSON text is read as JSON",
    ),
    ("a: [1,\t2]", TAB),
    ("\ta: 1", TAB),
    ("a: 1\t# c", TAB),
    ("- a\n-\tb", TAB),
    ("{\n\ta: 1\n}", TAB),
    ("a: x\u{2028}y", "U+2028 ends no line, as YAML 1.2 says"),
    ("a: \u{85}b", "U+0085 ends no line, as YAML 1.2 says"),
    ("é: &é 1\nb: *é", "anchors may have any letters, as YAML 1.2 says"),
    ("...", "a text without a document is empty"),
    ("%YAML 2.0\n---\na: 1", "the version directive is not looked at"),
    (": a", "a key may be empty, as YAML 1.2 says"),
    ("a: !!binary aGk=", "JSON has no bytes"),
    ("a: !!omap [x: 1]", "not supported: an error instead of another meaning"),
    (
        "a: !!pairs [x: 1]",
        "not supported: an error instead of another meaning",
    ),
];

const KEY: &str = "a key is the text as it is written";
const DATE: &str = "a date is the text as it is written";
const TAB: &str = "a tab may separate where it doesn't indent, as YAML 1.2 says";

/// A document in the notation of the table: `s` text, `b` boolean, `i` integer, `f` float, `n` null, `m`, `l`.
fn notation(tree: &Tree) -> Json {
    match &tree.content {
        Content::Null => json!({"n": 0}),
        Content::Bool(value) => json!({"b": value}),
        Content::Int(value) => json!({"i": value.to_string()}),
        Content::UInt(value) => json!({"i": value.to_string()}),
        Content::Float(value) => json!({"f": python_float(*value)}),
        Content::Text(text) => json!({"s": text.as_ref()}),
        Content::List(items) => json!({"l": items.iter().map(notation).collect::<Vec<_>>()}),
        Content::Map(map) => {
            let entries = map.iter().map(|(k, e)| json!([{"s": k.as_ref()}, notation(&e.value)]));
            json!({"m": entries.collect::<Vec<_>>()})
        }
    }
}

fn python_float(value: f64) -> String {
    if value.is_nan() {
        "nan".into()
    } else {
        format!("{value:?}")
    }
}

#[test]
fn agrees_with_pyyaml() {
    let cases: Vec<Json> = serde_json::from_str(include_str!("../../../tests/data/yaml.json")).unwrap();
    let mut agreed = 0;
    let mut unexpected = Vec::new();
    for case in &cases {
        let text = case["yaml"].as_str().unwrap();
        let ours = load(text, &YamlLimits::default());
        let agrees = match (&ours, case["error"].is_null()) {
            (Ok(document), true) => {
                let ours = document.as_ref().map_or(json!({"n": 0}), |d| notation(&d.root));
                ours == case["expected"]
            }
            (Err(_), false) => true,
            _ => false,
        };
        agreed += usize::from(agrees);
        let listed = DIFFERENCES.iter().any(|(known, _)| *known == text);
        if agrees == listed {
            unexpected.push(format!(
                "{text:?}: {:?}, PyYAML: {} {}",
                ours.map(|d| d.map(|d| notation(&d.root))),
                case["expected"],
                case["error"]
            ));
        }
    }
    println!("{agreed} of {} documents as PyYAML reads them", cases.len());
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
}

#[test]
fn lines_of_literal_blocks() {
    let cases = [
        ("a: |\n  x\n", Some(2)),
        ("a: |\n\n  x\n", Some(2)),
        ("a:   |2\n\n\n      x\n", Some(2)),
        ("b: 1\na: &x |\n\n  x\n", Some(3)),
        ("a: !!str |  # c\n  x\n", Some(2)),
        ("a: >\n  x\n", None),
        ("a: x", None),
    ];
    for (text, line) in cases {
        let root = load(text, &YamlLimits::default()).unwrap().unwrap().root;
        assert_eq!(root.as_map().unwrap()["a"].value.text_line, line, "{text:?}");
    }
}

#[test]
fn everything_has_a_position() {
    let text = "first:\n  - {key: value, é: [1, two]}\n";
    let root = load(text, &YamlLimits::default()).unwrap().unwrap().root;
    let at = |line, column| Some(Position { line, column });
    let first = &root.as_map().unwrap()["first"];
    assert_eq!(first.key_position, at(1, 1));
    let Content::List(items) = &first.value.content else {
        panic!("a list")
    };
    let map = items[0].as_map().unwrap();
    assert_eq!((items[0].position, map["key"].value.position), (at(2, 5), at(2, 11)));
    let Content::List(items) = &map["é"].value.content else {
        panic!("a list")
    };
    assert_eq!((map["é"].key_position, items[1].position), (at(2, 18), at(2, 25)));
}
