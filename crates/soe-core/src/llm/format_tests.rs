use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Table {
    formats: IndexMap<String, Described>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    field: Option<Arc<str>>,
    schema: Option<Json>,
    #[serde(default)]
    choices: Vec<(Arc<str>, Option<Arc<str>>)>,
    #[serde(default)]
    router: bool,
    tool: Option<Json>,
}

/// A reply, and the value or the beginning of the error that it gives; with the reason where the Python package gives
/// another.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    format: String,
    reply: String,
    ok: Option<Json>,
    error: Option<String>,
    #[serde(rename = "differs")]
    _differs: Option<String>,
}

impl Described {
    fn format(&self) -> ReplyFormat {
        if self.router {
            return ReplyFormat::router();
        }
        if let Some(schema) = &self.tool {
            return ReplyFormat::arguments(Arc::new(ToolSpec::new("tool", "", schema.clone()).unwrap()));
        }
        let schema = self.schema.as_ref().map(|schema| field_schema(schema.clone()));
        ReplyFormat::output(self.field.as_ref(), schema.as_ref(), &self.choices)
    }
}

fn field_schema(definition: Json) -> FieldSchema {
    FieldSchema::from_definition("field", &definition.into()).unwrap()
}

fn table() -> (IndexMap<String, ReplyFormat>, Vec<Case>) {
    let table: Table = serde_json::from_str(include_str!("../../tests/replies/cases.json")).unwrap();
    let formats = table.formats.iter().map(|(name, f)| (name.clone(), f.format()));
    (formats.collect(), table.cases)
}

fn described(parsed: Parsed) -> Json {
    match parsed {
        Parsed::Output { value, signals } => json!({"value": value.to_json(), "signals": signals}),
        Parsed::CallTool { name } => json!({"action": "call_tool", "tool_name": name}),
        Parsed::Finish => json!({"action": "finish"}),
        Parsed::Arguments(arguments) => arguments,
    }
}

#[test]
fn replies_say_what_the_table_says() {
    let (formats, cases) = table();
    let mut wrong = Vec::new();
    for Case {
        format,
        reply,
        ok,
        error,
        ..
    } in &cases
    {
        // As text: the order of properties counts, and 5 is not 5.0.
        let found = formats[format].parse(reply).map(|parsed| described(parsed).to_string());
        let found = found.map_err(|error| error.to_string());
        let ok = ok.as_ref().map(Json::to_string);
        let as_expected = match (&found, ok, error) {
            (Ok(found), Some(ok), None) => *found == ok,
            (Err(found), None, Some(error)) => found.starts_with(error.as_str()),
            _ => false,
        };
        if !as_expected {
            wrong.push(format!("{format} {reply:?}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases.len() > 300);
}

#[test]
fn what_matches_the_schema_that_is_told_is_a_valid_reply() {
    let (formats, cases) = table();
    for (name, format) in &formats {
        let validator = jsonschema::validator_for(format.schema()).unwrap();
        for case in cases.iter().filter(|case| case.format == *name) {
            let Ok(json) = serde_json::from_str::<Json>(&case.reply) else {
                continue;
            };
            // JSON Schema as it is told knows no limits of integers, no tool that must be named, and no closed parameters.
            let needs_more = name == "router" || name == "tool" || json.as_f64().is_some_and(|number| number > 9e15);
            if validator.is_valid(&json) && !needs_more {
                assert!(format.parse(&case.reply).is_ok(), "{name} {}", case.reply);
            }
        }
    }
}

#[test]
fn schemas_are_what_the_llm_needs_to_know() {
    let schema = field_schema(json!({
        "type": "object",
        "description": "somebody",
        "properties": {
            "name": {"type": "text", "description": "in full"},
            "tags": {"type": "list", "items": "int"},
            "role": {"type": "string", "default": "guest"},
            "note": {"type": "any", "required": false},
        },
    }));
    let person = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "in full"},
            "tags": {"type": "array", "items": {"type": "integer"}},
            "role": {"type": "string", "default": "guest"},
            "note": {},
        },
        "required": ["name", "tags"],
        "description": "somebody",
    });
    let field = Arc::from("person");
    let choices = [("A".into(), Some("it is good".into())), ("B".into(), None)];
    let schema_of = |field, schema, choices| ReplyFormat::output(field, schema, choices).schema().as_ref().clone();
    assert_eq!(schema_of(Some(&field), Some(&schema), &[]), person);
    let selected = json!({
        "type": "array",
        "items": {"type": "string", "enum": ["A", "B"]},
        "default": [],
        "description": "Every signal whose description fits the outcome: none, one or several.\n- A: it is good\n- B",
    });
    let wrapped = json!({
        "type": "object",
        "properties": {"person": person, "selected_signals": selected},
        "required": ["person"],
    });
    assert_eq!(schema_of(Some(&field), Some(&schema), &choices), wrapped);
    let unknown = json!({"type": "object", "properties": {"person": {}}, "required": ["person"]});
    assert_eq!(schema_of(Some(&field), None, &[]), unknown);
    let output = json!({"type": "object", "properties": {"output": {"type": "string"}}, "required": ["output"]});
    assert_eq!(schema_of(None, None, &[]), output);
}

#[test]
fn a_field_that_is_called_like_the_selection_is_the_selection() {
    let field = Arc::from(SELECTED);
    let format = ReplyFormat::output(Some(&field), None, &[("A".into(), None), ("B".into(), None)]);
    let expected = Parsed::Output {
        value: json!(["B"]).into(),
        signals: vec!["B".into()],
    };
    assert_eq!(format.parse(r#"{"selected_signals": ["B"]}"#), Ok(expected));
}

#[test]
fn a_schema_in_place_of_a_value_is_called_that() {
    let (formats, _) = table();
    for name in ["output", "field", "person", "router", "tool", "choice", "integer"] {
        let error = formats[name].parse(&formats[name].schema().to_string()).unwrap_err();
        assert!(error.to_string().starts_with("this is a schema"), "{name}: {error}");
    }
}

#[test]
fn errors_stay_short() {
    let format = |schema| ReplyFormat::output(Some(&"x".into()), Some(&field_schema(schema)), &[]);
    let integers = format(json!({"type": "list", "items": "integer"}));
    let error = integers.parse(&json!(vec!["no"; 1000]).to_string()).unwrap_err();
    let InvalidReply::Mismatch(problems) = &error else {
        panic!("{error}");
    };
    assert_eq!((problems.shown.len(), problems.more), (20, 980));
    let text = error.to_string();
    assert!(
        text.starts_with("[0]: should be an integer, not \"no\"\n[1]: "),
        "{text}"
    );
    assert!(text.ends_with("\nand 980 more"), "{text}");

    let long = "é".repeat(100_000);
    let error = format(json!("integer")).parse(&json!(long).to_string()).unwrap_err();
    assert!(error.to_string().len() < 300, "{error}");
    let error = ReplyFormat::output(None, None, &[]).parse(&json!({"output": {long: 1}}).to_string());
    assert!(error.unwrap_err().to_string().len() < 500);
}

#[test]
fn problems_have_the_path_to_them() {
    let schema = json!({"type": "list", "items": {"type": "object", "properties": {"a": {"type": "object", "properties": {
        "b": {"type": "list", "items": "boolean"},
    }}}}});
    let format = ReplyFormat::output(Some(&"x".into()), Some(&field_schema(schema.clone())), &[]);
    let reply = r#"[{"a": {"b": [true, 1]}}, {"a": {}}, []]"#;
    let expected =
        "[0].a.b[1]: should be true or false, not 1\n[1].a.b: is missing\n[2]: should be an object, not a list";
    assert_eq!(format.parse(reply).unwrap_err().to_string(), expected);

    let format = ReplyFormat::output(Some(&"x".into()), Some(&field_schema(schema)), &[("A".into(), None)]);
    let error = format
        .parse(r#"{"x": [{"a": 1}], "selected_signals": ["A\n"]}"#)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "selected_signals[0]: \"A\\n\" is none of the signals 'A'\nx[0].a: should be an object, not 1"
    );
}

#[test]
fn nesting_and_length_have_limits() {
    let format = ReplyFormat::output(Some(&"x".into()), Some(&field_schema(json!("any"))), &[]);
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(format.parse(&nested(Value::MAX_DEPTH)).is_ok());
    for levels in [Value::MAX_DEPTH + 1, 127, 128, 100_000] {
        let error = format.parse(&nested(levels)).unwrap_err().to_string();
        assert!(error.contains("nested"), "{levels}: {error}");
    }
    let tool = ToolSpec::new("tool", "", json!({})).unwrap();
    assert!(ReplyFormat::arguments(Arc::new(tool)).parse(&nested(101)).is_err());
    for brackets in ["[", "{", "[{", "{\"a\":", "{ a "] {
        assert!(format.parse(&brackets.repeat(100_000)).is_err());
    }
    let long = " ".repeat(MAX_REPLY_BYTES + 1);
    assert_eq!(format.parse(&long), Err(InvalidReply::TooLong { bytes: long.len() }));
    assert_eq!(format.parse(&long[1..]), Err(InvalidReply::Empty));
}

#[test]
fn no_text_makes_it_panic() {
    const PIECES: [&str; 30] = [
        "{",
        "}",
        "[",
        "]",
        "\"",
        "\\",
        "\n",
        "\u{0}",
        ":",
        ",",
        "1",
        "-",
        "1e999",
        "null",
        "true",
        "é",
        "😀",
        "```",
        "```json",
        "json",
        "<think>",
        "</think>",
        "<THINK>",
        "<",
        "{\"output\": \"x\"}",
        "\"selected_signals\": ",
        " ",
        "\u{feff}",
        "\\ud800",
        "</thinK",
    ];
    let (formats, _) = table();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for _ in 0..4_000 {
        let text: String = (0..next(24)).map(|_| PIECES[next(PIECES.len())]).collect();
        for format in formats.values() {
            let _ = format.parse(&text).map_err(|error| error.to_string());
        }
    }
}
