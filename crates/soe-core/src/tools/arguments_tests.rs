use schemars::JsonSchema;
use serde_json::json;

use super::*;

fn problem(schema: &Value, arguments: &Value) -> String {
    let tool: Arc<str> = "t".into();
    let checker = ArgumentsChecker::compile(&tool, schema).unwrap();
    match checker.check(&tool, arguments) {
        Ok(()) => String::new(),
        Err(error) => error.to_string(),
    }
}

fn schema_of<T: JsonSchema>() -> Value {
    schemars::schema_for!(T).to_value()
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only the schema is of interest")]
struct Order {
    customer: Customer,
    items: Vec<Item>,
    #[schemars(range(min = 1, max = 9))]
    priority: u8,
    note: Option<String>,
    gift_for: Option<Customer>,
    speed: Option<Speed>,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only the schema is of interest")]
struct Customer {
    name: String,
    #[schemars(length(max = 3))]
    country: Option<String>,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only the schema is of interest")]
struct Item {
    sku: String,
    parts: Vec<Item>,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only the schema is of interest")]
enum Speed {
    /// In a week.
    Slow,
    /// Tomorrow.
    Fast,
}

fn order(change: impl FnOnce(&mut Value)) -> String {
    let mut order = json!({
        "customer": {"name": "Ada"},
        "items": [{"sku": "A", "parts": [{"sku": "B", "parts": []}]}],
        "priority": 3,
    });
    change(&mut order);
    problem(&schema_of::<Order>(), &order)
}

#[test]
fn what_fits_passes() {
    assert_eq!(order(|_| ()), "");
    assert_eq!(order(|o| o["note"] = Value::Null), "");
    assert_eq!(order(|o| o["gift_for"] = json!({"name": "Bob"})), "");
    assert_eq!(order(|o| o["speed"] = json!("Fast")), "");
}

#[test]
fn every_problem_is_listed_with_its_parameter() {
    let schema = schema_of::<Order>();
    assert_eq!(
        problem(&schema, &json!({"items": "none", "priority": "high", "colour": "red"})),
        "Tool 't': missing required parameter: customer; \
         parameter 'items': \"none\" is not of type \"array\"; \
         parameter 'priority': \"high\" is not of type \"integer\"; \
         unexpected parameter: colour (it takes: customer, items, priority, note, gift_for, speed)"
    );
}

#[test]
fn problems_inside_a_parameter_have_their_path() {
    assert_eq!(
        order(|o| o["items"][0]["parts"][0]["sku"] = json!(7)),
        "Tool 't': parameter 'items[0].parts[0].sku': 7 is not of type \"string\""
    );
    assert_eq!(
        order(|o| o["customer"] = json!({})),
        "Tool 't': missing required parameter: customer.name"
    );
    assert_eq!(
        order(|o| o["priority"] = json!(10)),
        "Tool 't': parameter 'priority': 10 is greater than the maximum of 9"
    );
}

#[test]
fn of_alternatives_the_one_that_was_meant_is_explained() {
    assert_eq!(
        order(|o| o["gift_for"] = json!({"name": "Bob", "country": "Austria"})),
        "Tool 't': parameter 'gift_for.country': \"Austria\" is longer than 3 characters"
    );
    let text = order(|o| o["gift_for"] = json!(5));
    assert!(
        text.starts_with("Tool 't': parameter 'gift_for': 5 fits none of: ("),
        "{text}"
    );
    assert!(text.contains("\"object\"") && text.contains("\"null\""), "{text}");
}

#[test]
fn alternatives_that_are_constants_are_listed() {
    let text = order(|o| o["speed"] = json!("fast"));
    assert!(text.contains("parameter 'speed'"), "{text}");
    assert!(text.contains("\"Slow\"") && text.contains("\"Fast\""), "{text}");
    assert_eq!(
        problem(&json!({"properties": {"x": {"enum": [1, 2]}}}), &json!({"x": 3})),
        "Tool 't': parameter 'x': 3 is not one of 1 or 2"
    );
}

#[test]
fn unexpected_arguments_are_left_to_the_schema_where_it_speaks_of_them() {
    let open = json!({"type": "object", "properties": {"x": {}}, "additionalProperties": true});
    assert_eq!(problem(&open, &json!({"y": 1})), "");
    let closed = json!({"type": "object", "additionalProperties": false});
    assert_eq!(problem(&closed, &json!({"y": 1})), "Tool 't': unexpected parameter: y");
    let closed = json!({"properties": {"x": {}}, "additionalProperties": false});
    assert_eq!(
        problem(&closed, &json!({"y": 1})),
        "Tool 't': unexpected parameter: y (it takes: x)"
    );
    let united = json!({"properties": {"x": {}}, "allOf": [{"properties": {"y": {}}}], "unevaluatedProperties": false});
    assert_eq!(problem(&united, &json!({"x": 1, "y": 1})), "");
    assert_eq!(problem(&united, &json!({"z": 1})), "Tool 't': unexpected parameter: z");
    let recursive = json!({"type": "object", "properties": {"inner": {"$ref": "#"}}});
    assert_eq!(problem(&recursive, &json!({"inner": {"other": 1}})), "");
    assert_ne!(problem(&recursive, &json!({"other": 1})), "");
}

#[test]
fn without_a_schema_everything_passes() {
    for arguments in [json!({}), json!({"x": [1]}), json!([1, 2]), json!("text"), Value::Null] {
        assert_eq!(problem(&json!({}), &arguments), "");
    }
}

#[test]
fn arguments_that_are_no_object_are_refused_by_an_object_schema() {
    assert_eq!(
        problem(&json!({"type": "object"}), &json!([1])),
        "Tool 't': the arguments: [1] is not of type \"object\""
    );
}

#[test]
fn a_text_stays_short_whatever_the_arguments_are() {
    let long = "x".repeat(1_000_000);
    let schema = json!({"properties": {"x": {"type": "integer"}}});
    assert!(problem(&schema, &json!({"x": long})).len() < 300);
    let items: Vec<Value> = (0..1000).map(|i| json!(i.to_string())).collect();
    let text = problem(&json!({"items": {"type": "integer"}}), &json!(items));
    assert!(text.ends_with("; and 980 more"), "{text}");
}

#[test]
fn what_is_no_schema_is_refused() {
    let tool: Arc<str> = "t".into();
    for schema in [
        json!({"type": "strin"}),
        json!(5),
        json!({"$ref": "https://example.com/x.json"}),
    ] {
        let error = ArgumentsChecker::compile(&tool, &schema).err().unwrap();
        assert!(std::error::Error::source(&error).is_some(), "{schema}");
    }
}
