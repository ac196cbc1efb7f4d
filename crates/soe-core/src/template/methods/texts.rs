//! Methods of texts: what makes new ones.

use minijinja::State;
use minijinja::value::Value;

use super::super::filters::text::{capitalize, center, replace, split_lines};
use super::super::python::Result;
use super::super::python::args::{Bound, bind, split};
use super::super::python::digits::is_space;
use super::super::python::kinds::{is_text, type_error, type_name};
use super::super::python::meter::Meter;
use super::super::python::objects::{list, tuple};
use super::super::python::sequence::{item, items};
use super::super::python::str_format::{Fields, str_format};
use super::texts_search;

pub(super) fn call(state: &mut State<'_, '_>, text: &str, name: &str, args: &[Value]) -> Result<Value> {
    state.text(text.len())?;
    let converted = match name {
        "upper" => Some(text.to_uppercase()),
        "lower" => Some(text.to_lowercase()),
        "casefold" => Some(text.to_lowercase().replace('\u{df}', "ss")),
        "title" => Some(title(text)),
        "capitalize" => Some(capitalize(text)),
        "swapcase" => Some(text.chars().flat_map(swapped).collect()),
        _ => None,
    };
    if let Some(converted) = converted {
        bind(name, &[], args)?;
        return Ok(Value::from(converted));
    }
    match name {
        "strip" | "lstrip" | "rstrip" => strip(text, name, &bind(name, &["chars"], args)?),
        "split" | "rsplit" => split_text(state, text, name, &bind(name, &["sep", "maxsplit"], args)?),
        "splitlines" => {
            let lines = split_lines(text, bind(name, &["keepends"], args)?.flag(0));
            state.spend(lines.len() as u64)?;
            Ok(list(lines.into_iter().map(Value::from).collect()))
        }
        "partition" | "rpartition" => partition(text, name, &bind(name, &["sep"], args)?),
        "replace" => {
            let args = bind(name, &["old", "new", "count"], args)?;
            let (old, new) = (expect_text(&args, 0, name)?, expect_text(&args, 1, name)?);
            replace(state, text, old, new, args.int(2, -1)?).map(Value::from)
        }
        "removeprefix" | "removesuffix" => {
            let args = bind(name, &["affix"], args)?;
            let affix = expect_text(&args, 0, name)?;
            let rest = if name == "removeprefix" { text.strip_prefix(affix) } else { text.strip_suffix(affix) };
            Ok(Value::from(rest.unwrap_or(text)))
        }
        "join" => join(state, text, &bind(name, &["iterable"], args)?),
        "zfill" | "center" | "ljust" | "rjust" => pad(text, name, &bind(name, &["width", "fillchar"], args)?),
        "format" | "format_map" => format(state, text, name, args),
        "expandtabs" => {
            let tab = bind(name, &["tabsize"], args)?.width(0, 8)?;
            state.text(text.len() + text.matches('\t').count().saturating_mul(tab))?;
            Ok(Value::from(expand_tabs(text, tab)))
        }
        _ => texts_search::call(state, text, name, args),
    }
}

/// The argument at `index`, which must be text.
pub(super) fn expect_text<'a>(args: &'a Bound, index: usize, name: &str) -> Result<&'a str> {
    let value = args.required(index)?;
    value.as_str().ok_or_else(|| type_error(format!("{name} arg must be str, not {}", type_name(value))))
}

/// `str.title`: a letter is a capital if no letter is before it.
pub(super) fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut in_word = false;
    for c in text.chars() {
        if in_word {
            titled.extend(c.to_lowercase());
        } else {
            titled.extend(c.to_uppercase());
        }
        in_word = c.is_alphabetic();
    }
    titled
}

fn swapped(c: char) -> Vec<char> {
    if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
}

fn strip(text: &str, name: &str, args: &Bound) -> Result<Value> {
    let chars = match args.some(0) {
        Some(_) => Some(expect_text(args, 0, name)?),
        None => None,
    };
    let strips = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    Ok(Value::from(match name {
        "strip" => text.trim_matches(strips),
        "lstrip" => text.trim_start_matches(strips),
        _ => text.trim_end_matches(strips),
    }))
}

fn split_text(state: &State<'_, '_>, text: &str, name: &str, args: &Bound) -> Result<Value> {
    let most = usize::try_from(args.int(1, -1)?).map_or(usize::MAX, |most| most.saturating_add(1));
    let from_right = name == "rsplit";
    let mut parts: Vec<&str> = match args.some(0) {
        None => split_space(text, most, from_right),
        Some(_) => match expect_text(args, 0, name)? {
            "" => return Err(type_error("empty separator")),
            separator if from_right => text.rsplitn(most, separator).collect(),
            separator => text.splitn(most, separator).collect(),
        },
    };
    if from_right {
        parts.reverse();
    }
    state.spend(parts.len() as u64)?;
    Ok(list(parts.into_iter().map(Value::from).collect()))
}

/// Splits at white space into at most `most` parts; from the right the last part comes first.
fn split_space(text: &str, most: usize, from_right: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_matches(is_space);
    if most != usize::MAX {
        // The part that isn't split further keeps the white space of its own end.
        rest = if from_right { text.trim_end_matches(is_space) } else { text.trim_start_matches(is_space) };
    }
    while !rest.is_empty() {
        let space = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
        match space.filter(|_| parts.len() + 1 < most) {
            None => {
                let last = if from_right { rest.trim_start_matches(is_space) } else { rest.trim_end_matches(is_space) };
                parts.push(if parts.len() + 1 < most { last } else { rest });
                break;
            }
            Some(at) if from_right => {
                parts.push(rest[at..].trim_start_matches(is_space));
                rest = rest[..at].trim_end_matches(is_space);
            }
            Some(at) => {
                parts.push(&rest[..at]);
                rest = rest[at..].trim_start_matches(is_space);
            }
        }
    }
    parts
}

fn partition(text: &str, name: &str, args: &Bound) -> Result<Value> {
    let separator = expect_text(args, 0, name)?;
    if separator.is_empty() {
        return Err(type_error("empty separator"));
    }
    let parts = if name == "partition" {
        text.split_once(separator).map_or([text, "", ""], |(before, after)| [before, separator, after])
    } else {
        text.rsplit_once(separator).map_or(["", "", text], |(before, after)| [before, separator, after])
    };
    Ok(tuple(parts.map(Value::from).to_vec()))
}

fn join(state: &State<'_, '_>, separator: &str, args: &Bound) -> Result<Value> {
    let mut joined = String::new();
    for (index, part) in items(args.required(0)?, state)?.iter().enumerate() {
        let part = part.as_str().ok_or_else(|| {
            type_error(format!("sequence item {index}: expected str instance, {} found", type_name(part)))
        })?;
        if index > 0 {
            joined.push_str(separator);
        }
        joined.push_str(part);
        state.text(part.len() + separator.len())?;
        state.text(joined.len().min(super::super::limits::MAX_TEXT + 1) / 4096)?;
        if joined.len() > super::super::limits::MAX_TEXT {
            state.text(joined.len())?;
        }
    }
    Ok(Value::from(joined))
}

fn pad(text: &str, name: &str, args: &Bound) -> Result<Value> {
    args.required(0)?;
    let width = args.width(0, 0)?;
    let fill = match args.get(1) {
        None => ' ',
        Some(_) => {
            let mut chars = expect_text(args, 1, name)?.chars();
            match (chars.next(), chars.next()) {
                (Some(fill), None) => fill,
                _ => return Err(type_error("The fill character must be exactly one character long")),
            }
        }
    };
    let missing = width.saturating_sub(text.chars().count());
    let padding = |fill: char| String::from(fill).repeat(missing);
    Ok(Value::from(match name {
        "zfill" => {
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
            format!("{sign}{}{digits}", padding('0'))
        }
        "center" => center(text, width, fill),
        "ljust" => text.to_owned() + &padding(fill),
        _ => padding(fill) + text,
    }))
}

fn format(state: &State<'_, '_>, text: &str, name: &str, args: &[Value]) -> Result<Value> {
    if name == "format_map" {
        let args = bind(name, &["mapping"], args)?;
        let mapping = args.required(0)?.clone();
        let named = move |key: &str| item(&mapping, &Value::from(key)).ok().filter(|value| !value.is_undefined());
        let fields = Fields {
            positional: &[],
            named: &named,
        };
        return str_format(text, &fields, state).map(Value::from);
    }
    let (positional, named) = split(args)?;
    let named = |key: &str| named.as_ref().filter(|named| named.has(key)).and_then(|named| named.get::<Value>(key).ok());
    let fields = Fields {
        positional,
        named: &named,
    };
    str_format(text, &fields, state).map(Value::from)
}

fn expand_tabs(text: &str, tab: usize) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut column = 0;
    for c in text.chars() {
        match c {
            '\t' => {
                let spaces = if tab == 0 { 0 } else { tab - column % tab };
                expanded.push_str(&" ".repeat(spaces));
                column += spaces;
            }
            c => {
                expanded.push(c);
                column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    expanded
}

/// Whether every item of a tuple is text; for the arguments of `startswith`.
pub(super) fn all_text(values: &[Value]) -> bool {
    values.iter().all(is_text)
}
