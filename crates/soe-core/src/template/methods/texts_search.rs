//! Methods of texts: what looks at one.

use minijinja::State;
use minijinja::value::Value;

use super::super::python::Result;
use super::super::python::args::{Bound, bind};
use super::super::python::digits::{decimal_digit, is_space};
use super::super::python::kinds::{expect_int, int, is_tuple, type_error, type_name};
use super::super::python::sequence::items;
use super::super::python::text::is_printable;
use super::super::tests::has_case;
use super::texts::{all_text, expect_text, title};

pub(super) fn call(state: &mut State<'_, '_>, text: &str, name: &str, args: &[Value]) -> Result<Value> {
    if let Some(answer) = property(text, name) {
        bind(name, &[], args)?;
        return Ok(Value::from(answer));
    }
    match name {
        "startswith" | "endswith" => starts_or_ends(state, text, name, &bind(name, &["affix", "start", "end"], args)?),
        "find" | "rfind" | "index" | "rindex" => find(text, name, &bind(name, &["sub", "start", "end"], args)?),
        "count" => {
            let args = bind(name, &["sub", "start", "end"], args)?;
            let part = expect_text(&args, 0, name)?;
            let count = window(text, &args)?.map_or(0, |(window, _)| match part {
                "" => window.chars().count() + 1,
                part => window.matches(part).count(),
            });
            Ok(int(count as i128))
        }
        "__len__" => Ok(int(text.chars().count() as i128)),
        _ => Err(super::unknown()),
    }
}

fn property(text: &str, name: &str) -> Option<bool> {
    let all = |is: fn(char) -> bool| !text.is_empty() && text.chars().all(is);
    Some(match name {
        "isdigit" => all(|c| decimal_digit(c).is_some() || is_raised_digit(c)),
        "isdecimal" => all(|c| decimal_digit(c).is_some()),
        "isnumeric" => all(char::is_numeric),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isspace" => all(is_space),
        "isascii" => text.is_ascii(),
        "isprintable" => text.chars().all(is_printable),
        "isupper" => has_case(text, char::is_uppercase, char::is_lowercase),
        "islower" => has_case(text, char::is_lowercase, char::is_uppercase),
        "istitle" => text.chars().any(char::is_alphabetic) && title(text) == text,
        "isidentifier" => {
            let starts = text.starts_with(|c: char| c == '_' || c.is_alphabetic());
            starts && text.chars().all(|c| c == '_' || c.is_alphanumeric())
        }
        _ => return None,
    })
}

/// Superscript and subscript digits.
fn is_raised_digit(c: char) -> bool {
    matches!(c, '\u{b2}' | '\u{b3}' | '\u{b9}' | '\u{2070}' | '\u{2074}'..='\u{2079}' | '\u{2080}'..='\u{2089}')
}

/// The part of `text` that the arguments `start` and `end` select, and where it starts; `None` if it starts after the end.
fn window<'t>(text: &'t str, args: &Bound) -> Result<Option<(&'t str, usize)>> {
    let length = text.chars().count() as i128;
    let bound = |index: usize, default: i128| -> Result<i128> {
        let given = args.some(index).map_or(Ok(default), expect_int)?;
        Ok(if given < 0 { (given + length).max(0) } else { given })
    };
    let (start, end) = (bound(1, 0)?, bound(2, length)?.min(length));
    if start > length || start > end {
        return Ok(None);
    }
    let byte = |chars: i128| {
        let chars = usize::try_from(chars).unwrap_or(0);
        text.char_indices().nth(chars).map_or(text.len(), |(at, _)| at)
    };
    Ok(Some((&text[byte(start)..byte(end)], usize::try_from(start).unwrap_or(0))))
}

fn starts_or_ends(state: &State<'_, '_>, text: &str, name: &str, args: &Bound) -> Result<Value> {
    let affix = args.required(0)?;
    let affixes = if is_tuple(affix) { items(affix, state)? } else { vec![affix.clone()] };
    if !all_text(&affixes) {
        return Err(type_error(format!("{name} first arg must be str or a tuple of str, not {}", type_name(affix))));
    }
    let found = window(text, args)?.is_some_and(|(window, _)| {
        affixes.iter().filter_map(Value::as_str).any(|affix| {
            if name == "startswith" { window.starts_with(affix) } else { window.ends_with(affix) }
        })
    });
    Ok(Value::from(found))
}

fn find(text: &str, name: &str, args: &Bound) -> Result<Value> {
    let part = expect_text(args, 0, name)?;
    let found = window(text, args)?.and_then(|(window, start)| {
        let at = if name.starts_with('r') { window.rfind(part) } else { window.find(part) }?;
        Some(start + window[..at].chars().count())
    });
    match found {
        Some(at) => Ok(int(at as i128)),
        None if name.ends_with("index") => Err(type_error("substring not found")),
        None => Ok(int(-1)),
    }
}
