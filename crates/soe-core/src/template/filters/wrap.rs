//! `wordwrap`, as Python's `textwrap` breaks lines.

use minijinja::State;
use minijinja::value::Value;

use super::Filter;
use super::text::split_lines;
use crate::template::python::Result;
use crate::template::python::args::bind;
use crate::template::python::kinds::{error_about, type_error, type_name};
use crate::template::python::meter::Meter;

pub(super) const FILTERS: &[(&str, Filter)] = &[("wordwrap", wordwrap)];

fn wordwrap(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    let args = bind("wordwrap", &["width", "break_long_words", "wrapstring", "break_on_hyphens"], args)?;
    let width = args.int(0, 79)?;
    let separator = if args.some(2).is_some() { args.text(2, "\n", state)? } else { "\n".to_owned() };
    let Some(text) = value.as_str() else {
        return Err(error_about(value, || format!("'{}' object has no attribute 'splitlines'", type_name(value))));
    };
    let width = usize::try_from(width).ok().filter(|width| *width > 0);
    let wrap = Wrap {
        width: width.ok_or_else(|| type_error("invalid width (must be > 0)"))?,
        break_words: args.get(1).is_none_or(Value::is_true),
        break_hyphens: args.get(3).is_none_or(Value::is_true),
    };
    state.text(text.len().saturating_mul(2 + separator.len()))?;
    let lines: Vec<String> = split_lines(text, false).iter().map(|line| wrap.line(line).join(&separator)).collect();
    Ok(Value::from(lines.join(&separator)))
}

struct Wrap {
    width: usize,
    break_words: bool,
    break_hyphens: bool,
}

impl Wrap {
    /// The lines that one line is broken into.
    fn line(&self, line: &str) -> Vec<String> {
        let mut chunks = self.chunks(line);
        chunks.reverse();
        let mut lines: Vec<String> = Vec::new();
        while let Some(next) = chunks.last() {
            if is_blank(next) && !lines.is_empty() {
                chunks.pop();
            }
            let mut current: Vec<String> = Vec::new();
            let mut length = 0;
            while let Some(chunk) = chunks.pop_if(|chunk| length + width_of(chunk) <= self.width) {
                length += width_of(&chunk);
                current.push(chunk);
            }
            if let Some(chunk) = chunks.pop_if(|chunk| width_of(chunk) > self.width && (self.break_words || current.is_empty())) {
                if self.break_words {
                    let (head, tail) = self.broken(&chunk, self.width - length);
                    current.push(head);
                    chunks.extend(tail);
                } else {
                    current.push(chunk);
                }
            }
            current.pop_if(|chunk| is_blank(chunk));
            if !current.is_empty() {
                lines.push(current.concat());
            }
        }
        lines
    }

    /// A chunk that is too long, broken after at most `space` characters.
    fn broken(&self, chunk: &str, space: usize) -> (String, Option<String>) {
        let chars: Vec<char> = chunk.chars().collect();
        let mut end = space.min(chars.len());
        if self.break_hyphens && chars.len() > space {
            let hyphen = chars[..space].iter().rposition(|c| *c == '-').filter(|at| *at > 0);
            if let Some(at) = hyphen.filter(|at| chars[..*at].iter().any(|c| *c != '-')) {
                end = at + 1;
            }
        }
        let (head, tail) = chars.split_at(end);
        (head.iter().collect(), (!tail.is_empty()).then(|| tail.iter().collect()))
    }

    /// Words and the white space between them; words may end after a hyphen inside of them.
    fn chunks(&self, line: &str) -> Vec<String> {
        let chars: Vec<char> = line.chars().collect();
        let mut chunks = Vec::new();
        let mut start = 0;
        while start < chars.len() {
            let blank = is_blank_char(chars[start]);
            let mut end = start + 1;
            while end < chars.len() && is_blank_char(chars[end]) == blank && !(self.break_hyphens && after_hyphen(&chars, start, end)) {
                end += 1;
            }
            chunks.push(chars[start..end].iter().collect());
            start = end;
        }
        chunks
    }
}

/// Whether a word that began at `start` may be broken before `at`: after `ab-`, before two letters.
fn after_hyphen(chars: &[char], start: usize, at: usize) -> bool {
    let is_letter = |at: usize| chars.get(at).is_some_and(|c| c.is_alphabetic() || *c == '_');
    at >= start + 3
        && chars[at - 1] == '-'
        && is_letter(at - 2)
        && is_letter(at - 3)
        && is_letter(at)
        && (is_letter(at + 1) || (chars.get(at + 1) == Some(&'-') && is_letter(at + 2)))
}

fn is_blank_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\x0b' | '\x0c' | '\r' | ' ')
}

fn is_blank(chunk: &str) -> bool {
    chunk.chars().all(is_blank_char)
}

fn width_of(chunk: &str) -> usize {
    chunk.chars().count()
}
