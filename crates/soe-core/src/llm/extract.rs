//! Finds the answer in what an LLM writes around it: thoughts, fences, sentences.
//!
//! The work is linear in the length of the reply, whatever is in it.

use std::borrow::Cow;
use std::fmt::Write;
use std::ops::Range;

use serde::de::DeserializeOwned;

/// So many places are looked at for JSON.
const MAX_CANDIDATES: usize = 16;

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";
const FENCE: &str = "```";

/// What was found in a reply.
pub(super) struct Found<'t, T> {
    /// The reply without thoughts, and without space around it; empty if there are thoughts only.
    pub(super) text: Cow<'t, str>,
    /// The JSON in it, or why there is none.
    pub(super) json: Result<T, NoJson>,
    /// Where it was.
    pub(super) place: Place,
}

/// Where in a reply JSON was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is all of the text.
    Whole,
    /// In a fenced block.
    Fenced,
    /// Between other text; or nowhere.
    Within,
}

/// Why a reply has no answer in it that could be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoJson {
    /// There is nothing but space and thoughts.
    Empty,
    /// The reply ends within its thoughts.
    OnlyThoughts,
    /// Nothing looks like JSON.
    NotFound,
    /// What looks like JSON isn't.
    Broken(String),
}

/// The answer in `reply`: the reply itself if all of it is JSON, else, without thoughts, the first fenced object or list, else
/// the first balanced `{...}` or `[...]`, else the first other fenced JSON. What is not JSON is passed over in favour of the next one.
pub(super) fn find<T: DeserializeOwned>(reply: &str) -> Found<'_, T> {
    let mut rest = reply.trim();
    // Thoughts at the start end where they say so; an answer that is all JSON may then mention the tags.
    while let Some(thought) = starts_with_tag(rest) {
        match find_tag(thought, CLOSE) {
            Some(end) => rest = thought[end + CLOSE.len()..].trim_start(),
            None => return nothing(NoJson::OnlyThoughts),
        }
    }
    if rest.starts_with(['{', '[', '"'])
        && let Ok(json) = parse(rest)
    {
        return Found {
            text: rest.into(),
            json: Ok(json),
            place: Place::Whole,
        };
    }
    let (text, is_thought) = without_thoughts(rest);
    if text.is_empty() {
        return nothing(NoJson::Empty);
    }
    let (json, place) = first_json(&text);
    match (json, is_thought) {
        (json, false) => Found { text, json, place },
        (Ok(json), true) => Found {
            text: "".into(),
            json: Ok(json),
            place,
        },
        (Err(_), true) => nothing(NoJson::OnlyThoughts),
    }
}

fn nothing<T>(why: NoJson) -> Found<'static, T> {
    Found {
        text: "".into(),
        json: Err(why),
        place: Place::Within,
    }
}

/// What follows the tag, if `text` begins with one.
fn starts_with_tag(text: &str) -> Option<&str> {
    let (tag, rest) = text.split_at_checked(OPEN.len())?;
    tag.eq_ignore_ascii_case(OPEN).then_some(rest)
}

/// Where the first `tag` is, in whatever case.
fn find_tag(text: &str, tag: &str) -> Option<usize> {
    text.match_indices('<').map(|(at, _)| at).find(|at| {
        let found = text.as_bytes().get(*at..at + tag.len());
        found.is_some_and(|found| found.eq_ignore_ascii_case(tag.as_bytes()))
    })
}

/// Without `<think>...</think>`, and without what is before a closing tag alone, as models write it whose first tag is part
/// of the prompt. If nothing follows that one, what is before it is all there is; and whether that is so. An opening tag
/// alone is text.
fn without_thoughts(text: &str) -> (Cow<'_, str>, bool) {
    let mut kept = Cow::Borrowed("");
    let mut rest = text;
    while let Some(open) = find_tag(rest, OPEN) {
        let Some(close) = find_tag(&rest[open..], CLOSE) else {
            break;
        };
        kept += &rest[..open];
        rest = &rest[open + close + CLOSE.len()..];
    }
    kept += rest;
    let Some(close) = find_tag(&kept, CLOSE) else {
        let end = kept.len();
        return (trimmed(kept, 0..end), false);
    };
    let after = close + CLOSE.len()..kept.len();
    match kept[after.clone()].trim().is_empty() {
        true => (trimmed(kept, 0..close), true),
        false => (trimmed(kept, after), false),
    }
}

fn trimmed(text: Cow<'_, str>, part: Range<usize>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => text[part].trim().into(),
        Cow::Owned(text) => text[part].trim().to_owned().into(),
    }
}

fn first_json<T: DeserializeOwned>(text: &str) -> (Result<T, NoJson>, Place) {
    if let Ok(json) = parse(text) {
        return (Ok(json), Place::Whole);
    }
    let mut broken = None;
    let mut left = MAX_CANDIDATES;
    for candidate in fenced(text).take(MAX_CANDIDATES) {
        left -= 1;
        match parse(candidate) {
            Ok(json) => return (Ok(json), Place::Fenced),
            Err(error) => _ = broken.get_or_insert(error),
        }
    }
    for candidate in balanced(text).take(left) {
        match parse(candidate) {
            Ok(json) => return (Ok(json), Place::Within),
            Err(error) => _ = broken.get_or_insert(error),
        }
    }
    if let Some(json) = fenced_scalars(text).find_map(|block| parse(block).ok()) {
        return (Ok(json), Place::Fenced);
    }
    let why = broken.map_or(NoJson::NotFound, |error| NoJson::Broken(explained(&error)));
    (Err(why), Place::Within)
}

/// The error in words for an LLM.
pub(super) fn explained(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.split_once(" at line ") {
        // Its own words would speak of our stack.
        Some(("recursion limit exceeded", at)) => format!("it is nested too deeply, at line {at}"),
        _ if error.is_eof() => format!("it ends before it is complete ({message})"),
        _ => message,
    }
}

/// The objects and lists that follow a fence, with nothing or `json` as its language.
fn fenced(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            rest = &rest[rest.find(FENCE)? + FENCE.len()..];
            let block = after_language(rest);
            if !block.starts_with(['{', '[']) {
                continue;
            }
            let end = balanced_end(block).unwrap_or(block.len());
            rest = &block[end..];
            return Some(&block[..end]);
        }
    })
}

/// The other JSON between two fences, with nothing or `json` as its language; as far as its beginning tells.
fn fenced_scalars(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    let blocks = std::iter::from_fn(move || {
        let block = after_language(&rest[rest.find(FENCE)? + FENCE.len()..]);
        // A string may hold fences itself.
        let text_end = string_end(block).unwrap_or(0);
        let end = text_end + block[text_end..].find(FENCE).unwrap_or(block.len() - text_end);
        rest = block.get(end + FENCE.len()..).unwrap_or("");
        Some(block[..end].trim())
    });
    blocks
        .take(MAX_CANDIDATES)
        .filter(|block| !block.starts_with(['{', '[']))
}

/// The first fenced JSON string.
pub(super) fn fenced_string(text: &str) -> Option<String> {
    fenced_scalars(text).find_map(|block| parse(block).ok())
}

/// What is wrong with a text that begins as a JSON string, object or list, or holds one in a fence that is all of it or has
/// no end; `None` if there is nothing wrong, or it is none of those. Complete lists are not looked into: they may be prose.
pub(super) fn meant_as_json(text: &str) -> Option<String> {
    let fences = text.matches(FENCE).count();
    let unclosed = text.rfind(FENCE).filter(|_| fences % 2 == 1);
    let fenced = text.strip_prefix(FENCE).and_then(|text| text.strip_suffix(FENCE));
    let blocks = [
        Some(text),
        unclosed.map(|at| after_language(&text[at + FENCE.len()..])),
        fenced
            .filter(|_| fences == 2)
            .map(|block| after_language(block).trim_end()),
    ];
    let mut meant = blocks.into_iter().flatten().filter(|block| is_meant_as_json(block));
    meant.find_map(|block| Some(explained(&parse::<serde_json::Value>(block).err()?)))
}

fn is_meant_as_json(block: &str) -> bool {
    match block.bytes().next() {
        Some(b'"') => string_end(block).is_none_or(|end| end == block.len()),
        Some(b'{' | b'[') if begins_like_json(block) => match balanced_end(block) {
            None => true,
            Some(end) => end == block.len() && block[1..].trim_start().starts_with('"') && block.starts_with('{'),
        },
        _ => false,
    }
}

fn after_language(block: &str) -> &str {
    let language = block.get(..4).is_some_and(|word| word.eq_ignore_ascii_case("json"));
    block[if language { 4 } else { 0 }..].trim_start()
}

/// Where the string literal ends with which `text` begins, behind its closing quote.
fn string_end(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('"')?;
    let mut escaped = false;
    let end = inner.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    });
    Some(end? + 2)
}

/// Objects and lists anywhere, none within another one. A bracket without its counterpart is a part of a sentence if no JSON
/// can begin like that; else the rest of the text is what it holds, and its parts are not taken for the whole.
fn balanced(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let block = &rest[rest.find(['{', '['])?..];
        let end = match balanced_end(block) {
            Some(end) => end,
            None if begins_like_json(block) => block.len(),
            None => 1,
        };
        rest = &block[end..];
        Some(&block[..end])
    })
}

fn begins_like_json(block: &str) -> bool {
    let inner = block[1..].trim_start();
    match block.as_bytes()[0] {
        b'{' => inner.is_empty() || inner.starts_with(['"', '\'', '}']),
        _ => {
            inner.is_empty()
                || inner.starts_with(['"', '\'', '{', '[', ']', '-'])
                || inner.starts_with(|c: char| c.is_ascii_digit())
        }
    }
}

/// Where the object or list ends with which `block` begins: behind the bracket of its kind that closes it.
fn balanced_end(block: &str) -> Option<usize> {
    let open = *block.as_bytes().first()?;
    let close = if open == b'{' { b'}' } else { b']' };
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (at, byte) in block.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            _ if byte == open => depth += 1,
            _ if byte == close => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// JSON, also with line breaks and tabs as they are inside of strings: LLMs write them.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(text).or_else(|error| match with_escaped_controls(text) {
        Some(escaped) => serde_json::from_str(&escaped),
        None => Err(error),
    })
}

/// With the control characters in string literals escaped; `None` if there are none.
fn with_escaped_controls(text: &str) -> Option<String> {
    let mut escaped = String::new();
    let (mut in_string, mut after_backslash, mut copied) = (false, false, 0);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            0..0x20 if in_string => {
                escaped += &text[copied..at];
                // After a backslash, the control character is what is escaped, and the backslash is there already.
                let backslash = if after_backslash { "" } else { "\\" };
                // Writing to a string can't fail.
                let _ = write!(escaped, "{backslash}u{byte:04x}");
                copied = at + 1;
                after_backslash = false;
            }
            _ if after_backslash => after_backslash = false,
            b'\\' => after_backslash = in_string,
            b'"' => in_string = !in_string,
            _ => {}
        }
    }
    (copied > 0).then(|| escaped + &text[copied..])
}

#[cfg(test)]
#[path = "extract_tests.rs"]
mod tests;
