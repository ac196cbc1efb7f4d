//! Filters on texts.

use minijinja::State;
use minijinja::value::{Kwargs, Value};

use super::Filter;
use crate::template::error::limit_error;
use crate::template::limits::MAX_WIDTH;
use crate::template::python::Result;
use crate::template::python::args::{bind, split};
use crate::template::python::digits::is_space;
use crate::template::python::kinds::{error_about, int, is_text, type_error, type_name};
use crate::template::python::meter::Meter;
use crate::template::python::objects::{dict, tuple};
use crate::template::python::printf::printf;
use crate::template::python::sequence::length;
use crate::template::python::text::str_of;

pub(super) const FILTERS: &[(&str, Filter)] = &[
    ("capitalize", |state, value, args| {
        convert("capitalize", capitalize, state, value, args)
    }),
    ("title", |state, value, args| {
        convert("title", title, state, value, args)
    }),
    ("upper", |state, value, args| {
        convert("upper", str::to_uppercase, state, value, args)
    }),
    ("lower", |state, value, args| {
        convert("lower", str::to_lowercase, state, value, args)
    }),
    ("string", string),
    ("center", center_filter),
    ("trim", trim),
    ("truncate", truncate),
    ("replace", replace_filter),
    ("indent", indent),
    ("format", format),
    ("wordcount", wordcount),
];

fn convert(
    name: &str,
    convert: fn(&str) -> String,
    state: &mut State<'_, '_>,
    value: &Value,
    args: &[Value],
) -> Result<Value> {
    bind(name, &[], args)?;
    let text = str_of(value, &*state)?;
    state.text(text.len())?;
    Ok(like(value, convert(&text)))
}

/// `text`, marked as safe for HTML if `value` is.
fn like(value: &Value, text: String) -> Value {
    if value.is_safe() {
        Value::from_safe_string(text)
    } else {
        Value::from(text)
    }
}

/// `str.capitalize`.
pub(crate) fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().collect::<String>() + &chars.as_str().to_lowercase(),
        None => String::new(),
    }
}

/// Capitalises words as the filter does: after white space, hyphens and opening brackets.
fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut starts = true;
    for c in text.chars() {
        if is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<') {
            titled.push(c);
            starts = true;
        } else if starts {
            titled.extend(c.to_uppercase());
            starts = false;
        } else {
            titled.extend(c.to_lowercase());
        }
    }
    titled
}

fn string(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    bind("string", &[], args)?;
    if is_text(value) {
        return Ok(value.clone());
    }
    Ok(Value::from(str_of(value, &*state)?.into_owned()))
}

fn center_filter(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    let args = bind("center", &["width"], args)?;
    let width = args.width(0, 80)?;
    Ok(like(value, center(&str_of(value, &*state)?, width, ' ')))
}

/// `str.center`: of an odd rest, more goes where Python puts it.
pub(crate) fn center(text: &str, width: usize, fill: char) -> String {
    let margin = width.saturating_sub(text.chars().count());
    let left = margin / 2 + (margin & width & 1);
    let pad = |count: usize| String::from(fill).repeat(count);
    pad(left) + text + &pad(margin - left)
}

fn trim(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    let args = bind("trim", &["chars"], args)?;
    let text = str_of(value, &*state)?;
    let trimmed = match args.some(0) {
        None => text.trim_matches(is_space).to_owned(),
        Some(_) => {
            let chars = args.text(0, "", state)?;
            text.trim_matches(|c| chars.contains(c)).to_owned()
        }
    };
    Ok(like(value, trimmed))
}

fn truncate(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    let args = bind("truncate", &["length", "killwords", "end", "leeway"], args)?;
    let wanted = args.int(0, 255)?;
    let end = args.text(2, "...", state)?;
    let leeway = if args.some(3).is_some() { args.int(3, 5)? } else { 5 };
    let end_length = end.chars().count() as i128;
    if wanted < end_length || leeway < 0 {
        return Err(type_error(format!("expected length >= {end_length}, got {wanted}")));
    }
    if (length(value)? as i128) <= wanted + leeway {
        return Ok(value.clone());
    }
    let Some(text) = value.as_str() else {
        return Err(type_error(format!("'{}' object can't be truncated", type_name(value))));
    };
    let kept: String = text
        .chars()
        .take(usize::try_from(wanted - end_length).unwrap_or(0))
        .collect();
    let kept = match kept.rfind(' ') {
        Some(space) if !args.flag(1) => &kept[..space],
        _ => &kept[..],
    };
    Ok(like(value, [kept, &end].concat()))
}

fn replace_filter(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    let args = bind("replace", &["old", "new", "count"], args)?;
    args.required(0)?;
    args.required(1)?;
    let (old, new) = (args.text(0, "", state)?, args.text(1, "", state)?);
    let count = if args.some(2).is_some() { args.int(2, -1)? } else { -1 };
    let text = str_of(value, &*state)?;
    Ok(like(value, replace(state, &text, &old, &new, count)?))
}

/// `str.replace`, `count` below zero meaning all.
pub(crate) fn replace(state: &State<'_, '_>, text: &str, old: &str, new: &str, count: i128) -> Result<String> {
    let most = usize::try_from(count).unwrap_or(usize::MAX);
    let found = if old.is_empty() {
        text.chars().count() + 1
    } else {
        text.matches(old).count()
    };
    state.text(text.len().saturating_add(found.min(most).saturating_mul(new.len())))?;
    Ok(text.replacen(old, new, most))
}

fn indent(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    let args = bind("indent", &["width", "first", "blank"], args)?;
    let unit = match args.get(0).and_then(Value::as_str) {
        Some(text) if text.len() <= MAX_WIDTH => text.to_owned(),
        Some(_) => return Err(limit_error(format!("a width is at most {MAX_WIDTH}"))),
        None => " ".repeat(args.width(0, 4)?),
    };
    let Some(text) = value.as_str() else {
        return Err(error_about(value, || {
            format!("can only indent text, not '{}'", type_name(value))
        }));
    };
    let lines = split_lines(text, false);
    state.text(text.len() + lines.len().saturating_mul(unit.len()))?;
    let mut indented = String::new();
    for (index, line) in lines
        .iter()
        .map(String::as_str)
        .chain(ends_line(text).then_some(""))
        .enumerate()
    {
        if index > 0 {
            indented.push('\n');
        }
        let is_indented = if index == 0 {
            args.flag(1)
        } else {
            args.flag(2) || !line.is_empty()
        };
        if is_indented {
            indented.push_str(&unit);
        }
        indented.push_str(line);
    }
    Ok(like(value, indented))
}

/// Whether the last line of `text` is empty: a line that begins after a break.
fn ends_line(text: &str) -> bool {
    text.is_empty() || text.ends_with(is_line_break)
}

fn is_line_break(c: char) -> bool {
    matches!(
        c,
        '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// `str.splitlines`.
pub(crate) fn split_lines(text: &str, keep_ends: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if !is_line_break(c) {
            line.push(c);
            continue;
        }
        if keep_ends {
            line.push(c);
        }
        if c == '\r' && chars.next_if_eq(&'\n').is_some() && keep_ends {
            line.push('\n');
        }
        lines.push(std::mem::take(&mut line));
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

fn format(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    let (positional, named) = split(args)?;
    let arg = match named {
        Some(_) if !positional.is_empty() => {
            return Err(type_error(
                "can't handle positional and keyword arguments at the same time",
            ));
        }
        Some(named) => {
            let entry = |name: &str| Ok((Value::from(name), named.get::<Value>(name)?));
            dict(Kwargs::args(&named).map(entry).collect::<Result<_>>()?)
        }
        None => tuple(positional.to_vec()),
    };
    Ok(like(value, printf(&str_of(value, &*state)?, &arg, &*state)?))
}

fn wordcount(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    bind("wordcount", &[], args)?;
    let text = str_of(value, &*state)?;
    state.text(text.len())?;
    let words = text
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty());
    Ok(int(words.count() as i128))
}
