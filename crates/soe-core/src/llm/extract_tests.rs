use serde_json::{Value as Json, json};

use super::*;

fn found(reply: &str) -> Option<Json> {
    find(reply).json.ok()
}

#[test]
fn control_characters_are_escaped_inside_of_strings_only() {
    assert_eq!(with_escaped_controls("{\n\"a\": \"b\"\n}"), None);
    assert_eq!(
        with_escaped_controls("[\n\"a\nb\\\"\t\"\n]").unwrap(),
        "[\n\"a\\u000ab\\\"\\u0009\"\n]"
    );
    assert_eq!(with_escaped_controls("\"a\\\nb\"").unwrap(), "\"a\\u000ab\"");
    assert_eq!(with_escaped_controls("\"é\u{1}日\"").unwrap(), "\"é\\u0001日\"");
}

#[test]
fn a_part_of_something_broken_is_not_taken_for_the_whole() {
    for reply in [
        r#"{"a": {"b": 1}"#,
        r#"[{"a": 1}, {"a": 2}"#,
        r#"{"a": {"b": 1}, oops}"#,
        r#"{'a': {"b": 1}"#,
        "```json\n[{\"a\": 1}, {\"a\":\n```",
    ] {
        assert_eq!(found(reply), None, "{reply}");
    }
}

#[test]
fn so_many_places_are_looked_at() {
    let after = |broken: usize| found(&format!("{}{{\"a\": 1}}", "{x} ".repeat(broken)));
    assert_eq!(after(MAX_CANDIDATES - 1), Some(json!({"a": 1})));
    assert_eq!(after(MAX_CANDIDATES), None);
    let fences = format!("{}{{\"a\": 1}}", "```\n{x}\n```\n".repeat(MAX_CANDIDATES));
    assert_eq!(found(&fences), None);
}

#[test]
fn tags_are_found_in_whatever_case_and_next_to_what_is_no_ascii() {
    assert_eq!(find_tag("é<é<Think>", OPEN), Some(5));
    assert_eq!(find_tag("<thin", OPEN), None);
    assert_eq!(find_tag("<think", OPEN), None);
    assert_eq!(find::<Json>("é<think>x</think>é").text, "éé");
    assert!(matches!(find::<Json>("<think>é").json, Err(NoJson::OnlyThoughts)));
}

#[test]
fn a_reply_without_thoughts_is_not_copied() {
    assert!(matches!(find::<Json>(" plain ").text, Cow::Borrowed("plain")));
    assert!(matches!(
        find::<Json>("<think>x</think> {\"a\": 1}").text,
        Cow::Borrowed("{\"a\": 1}")
    ));
}
