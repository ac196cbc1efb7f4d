use super::*;

fn adapted_to(schema: Json, mut json: Json) -> Json {
    adapt(&mut json, &schema);
    json
}

#[test]
fn arguments_are_adapted_where_nothing_is_lost() {
    let schema = json!({"properties": {
        "i": {"type": "integer"}, "n": {"type": "number"}, "b": {"type": "boolean"}, "s": {"type": "string"},
        "either": {"type": ["string", "integer"]}, "maybe": {"type": ["null", "integer"]},
        "list": {"type": "array", "items": {"properties": {"i": {"type": "integer"}}}},
        "free": {}, "all": true,
    }});
    let arguments = json!({
        "i": "5", "n": "1.5", "b": "False", "s": "5", "either": "5", "maybe": "6",
        "list": [{"i": 2.0}, {"i": "x"}, 3], "free": "5", "all": "5", "other": "5",
    });
    let expected = json!({
        "i": 5, "n": 1.5, "b": false, "s": "5", "either": "5", "maybe": 6,
        "list": [{"i": 2}, {"i": "x"}, 3], "free": "5", "all": "5", "other": "5",
    });
    assert_eq!(adapted_to(schema, arguments), expected);
}

#[test]
fn what_would_lose_something_stays() {
    let integer = json!({"type": "integer"});
    for json in [
        json!(5.5),
        json!(true),
        json!("5.5"),
        json!(""),
        json!("five"),
        json!(1e300),
        json!(null),
    ] {
        assert_eq!(adapted_to(integer.clone(), json.clone()), json);
    }
    let boolean = json!({"type": "boolean"});
    for json in [json!(1), json!("yes"), json!("1"), json!(" true ")] {
        assert_eq!(adapted_to(boolean.clone(), json.clone()), json);
    }
}

#[test]
fn numbers_that_no_float_can_be_stay_integers() {
    let number = |json: Json| Scalar::of_json(&json).and_then(Scalar::number);
    assert_eq!(number(json!(5)), Some(Value::Float(5.0)));
    assert_eq!(
        number(json!("9007199254740993")),
        Some(Value::Int(9_007_199_254_740_993))
    );
    assert_eq!(number(json!(u64::MAX)), Some(Value::UInt(u64::MAX)));
    assert_eq!(number(json!(i64::MIN)), Some(Value::Int(i64::MIN)));
    assert!(number(json!(-0.0)).is_some_and(|zero| zero.as_f64().is_some_and(f64::is_sign_negative)));
    for text in ["nan", "inf", "-infinity", "1e400", "", "0x1p3", "1_0"] {
        assert_eq!(number(json!(text)), None, "{text}");
    }
}

#[test]
fn the_levels_of_json_are_counted() {
    assert!(!nests_deeper(&json!([{"a": [1]}]), 3));
    assert!(nests_deeper(&json!([{"a": [1]}]), 2));
    assert!(!nests_deeper(&json!(1), 0));
}
