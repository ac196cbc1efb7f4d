//! What servers say about errors, in a form that people can read.
//!
//! Texts are clipped last, by [`clipped`]: secrets have to be hidden in the whole text, or a part of one could be left.

use serde_json::Value;

/// The longest message that is shown, in characters.
const LONGEST: usize = 500;

/// The message of an error's body: the one in its JSON, its text, or what kind of page it is.
pub(crate) fn of_body(body: &[u8], content_type: &str) -> String {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    if let Ok(value) = serde_json::from_str::<Value>(text)
        && let Some(message) = of_error(value.get("error").unwrap_or(&value))
    {
        return message;
    }
    if is_html(text, content_type) {
        return of_html(text);
    }
    if text.is_empty() {
        "no message".to_owned()
    } else {
        one_line(text)
    }
}

/// The message of an error object, or of whatever a server puts in its place.
pub(crate) fn of_error(error: &Value) -> Option<String> {
    if let Value::String(text) = error {
        return Some(one_line(text));
    }
    let message = ["message", "detail", "error", "error_description"]
        .iter()
        .find_map(|field| match error.get(*field)? {
            Value::String(text) if !text.trim().is_empty() => Some(one_line(text)),
            Value::Null | Value::String(_) => None,
            other => Some(one_line(&other.to_string())),
        })?;
    match error.get("code") {
        Some(Value::String(code)) if !message.contains(code.as_str()) => {
            Some(format!("{message} (code: {})", one_line(code)))
        }
        _ => Some(message),
    }
}

/// The text, not too long.
pub(crate) fn clipped(text: String) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// The text in one line.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for word in text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
    {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

pub(crate) fn is_html(text: &str, content_type: &str) -> bool {
    let start: String = text
        .trim_start()
        .chars()
        .take(14)
        .collect::<String>()
        .to_ascii_lowercase();
    content_type.contains("html") || start.starts_with("<!doctype html") || start.starts_with("<html")
}

/// A page's title says what it is; the rest is for browsers.
pub(crate) fn of_html(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let title = lower.find("<title").and_then(|start| {
        let start = start + lower[start..].find('>')? + 1;
        let end = start + lower[start..].find("</title")?;
        Some(one_line(&text[start..end]))
    });
    match title.filter(|title| !title.is_empty()) {
        Some(title) => format!("an HTML page titled '{title}'"),
        None => "an HTML page".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_where_servers_put_them() {
        for (body, message) in [
            (
                r#"{"error": {"message": "bad key", "code": "invalid_api_key"}}"#,
                "bad key (code: invalid_api_key)",
            ),
            (r#"{"error": {"message": "bad key", "code": null}}"#, "bad key"),
            (r#"{"error": "model not found"}"#, "model not found"),
            (r#"{"detail": "Not Found"}"#, "Not Found"),
            (
                r#"{"detail": [{"loc": ["body"], "msg": "missing"}]}"#,
                r#"[{"loc":["body"],"msg":"missing"}]"#,
            ),
            (r#"{"message": "no route"}"#, "no route"),
            (r#"{"code": 1}"#, r#"{"code": 1}"#),
            ("  upstream\n  connect\u{7} error ", "upstream connect error"),
            ("", "no message"),
            (
                "<html><head><title>502\nBad Gateway</title>",
                "an HTML page titled '502 Bad Gateway'",
            ),
            ("<!DOCTYPE html><p>", "an HTML page"),
        ] {
            assert_eq!(of_body(body.as_bytes(), ""), message);
        }
        assert_eq!(of_body(b"whatever", "text/html; charset=utf-8"), "an HTML page");
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let cut = clipped("ä".repeat(1_000));
        assert_eq!(cut.chars().count(), LONGEST + 3);
    }
}
