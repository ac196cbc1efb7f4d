//! Filters for HTML and URLs.

use minijinja::State;
use minijinja::value::Value;

use super::Filter;
use crate::template::html;
use crate::template::python::Result;
use crate::template::python::args::bind;
use crate::template::python::kinds::{error_about, is_dict, is_scalar, is_text, type_error, type_name};
use crate::template::python::meter::Meter;
use crate::template::python::objects::{DictView, ViewKind, entries};
use crate::template::python::sequence::items;
use crate::template::python::text::str_of;

pub(super) const FILTERS: &[(&str, Filter)] = &[
    ("escape", escape),
    ("e", escape),
    ("forceescape", forceescape),
    ("safe", safe),
    ("striptags", striptags),
    ("urlencode", urlencode),
    ("urlize", urlize),
    ("xmlattr", xmlattr),
];

fn escape(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    if value.is_safe() {
        bind("escape", &[], args)?;
        return Ok(value.clone());
    }
    forceescape(state, value, args)
}

fn forceescape(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    bind("escape", &[], args)?;
    let text = str_of(value, &*state)?;
    state.text(text.len() * 2)?;
    Ok(Value::from_safe_string(html::escape(&text)))
}

fn safe(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    bind("safe", &[], args)?;
    Ok(Value::from_safe_string(str_of(value, &*state)?.into_owned()))
}

fn striptags(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    bind("striptags", &[], args)?;
    let text = str_of(value, &*state)?;
    state.text(text.len() * 2)?;
    let text = without(&without(&text, "<!--", "-->"), "<", ">");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = if text.contains('&') { minijinja_contrib::filters::striptags(text) } else { text };
    Ok(Value::from(text))
}

/// `text` without everything from an `open` to the next `close`.
fn without(text: &str, open: &str, close: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(open) {
        let Some(length) = rest[start..].find(close) else {
            break;
        };
        kept.push_str(&rest[..start]);
        rest = &rest[start + length + close.len()..];
    }
    kept + rest
}

fn urlencode(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    bind("urlencode", &[], args)?;
    if value.is_undefined() {
        return Ok(Value::from(""));
    }
    if is_text(value) || is_scalar(value) {
        let text = str_of(value, &*state)?;
        state.text(text.len() * 3)?;
        return Ok(Value::from(quoted(&text, false)));
    }
    let all = if is_dict(value) {
        let view = DictView {
            dict: value.clone(),
            kind: ViewKind::Items,
        };
        view.items()
    } else {
        items(value, &*state)?
    };
    let mut pairs = Vec::new();
    for pair in all {
        let [key, item] = &items(&pair, &*state)?[..] else {
            return Err(type_error("not enough values to unpack (expected 2)"));
        };
        let (key, item) = (quoted(&str_of(key, &*state)?, true), quoted(&str_of(item, &*state)?, true));
        state.text(key.len() + item.len())?;
        pairs.push(format!("{key}={item}"));
    }
    Ok(Value::from(pairs.join("&")))
}

/// Percent-encodes; in a query a space is a plus, and a slash is encoded.
fn quoted(text: &str, in_query: bool) -> String {
    let mut quoted = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => quoted.push(char::from(byte)),
            b'/' if !in_query => quoted.push('/'),
            b' ' if in_query => quoted.push('+'),
            byte => quoted.push_str(&format!("%{byte:02X}")),
        }
    }
    quoted
}

fn urlize(_: &mut State<'_, '_>, _: &Value, _: &[Value]) -> Result<Value> {
    Err(type_error("the filter 'urlize' is not available: write the link out"))
}

fn xmlattr(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    let args = bind("xmlattr", &["autospace"], args)?;
    if !is_dict(value) {
        return Err(error_about(value, || format!("'{}' object has no attribute 'items'", type_name(value))));
    }
    let mut attributes = Vec::new();
    for (key, item) in entries(value).filter(|(_, item)| !item.is_none() && !item.is_undefined()) {
        let (key, item) = (str_of(&key, &*state)?, str_of(&item, &*state)?);
        if key.contains(|c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>' | '=' | '\x0b')) {
            return Err(type_error(format!("Invalid character in attribute name: '{key}'")));
        }
        state.text(key.len() + item.len())?;
        attributes.push(format!("{}=\"{}\"", html::escape(&key), html::escape(&item)));
    }
    let space = args.get(0).is_none_or(Value::is_true) && !attributes.is_empty();
    let text = attributes.join(" ");
    Ok(Value::from(if space { format!(" {text}") } else { text }))
}
