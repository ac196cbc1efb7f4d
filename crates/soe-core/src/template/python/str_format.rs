//! `'...'.format(...)`.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::Value;

use super::Result;
use super::kinds::{error_about, is_text, number, type_error, type_name};
use super::meter::Meter;
use super::sequence::item;
use super::text::{repr_of, str_of};
use crate::template::error::limit_error;
use crate::template::limits::MAX_WIDTH;

/// What the fields of a format string refer to.
pub(crate) struct Fields<'a> {
    pub(crate) positional: &'a [Value],
    pub(crate) named: &'a dyn Fn(&str) -> Option<Value>,
}

/// `text.format(...)`.
pub(crate) fn str_format(text: &str, fields: &Fields<'_>, meter: &dyn Meter) -> Result<String> {
    let mut formatter = Formatter {
        fields,
        meter,
        automatic: 0,
    };
    formatter.format(text, 0)
}

struct Formatter<'a> {
    fields: &'a Fields<'a>,
    meter: &'a dyn Meter,
    /// The number of the next field without a number.
    automatic: usize,
}

impl Formatter<'_> {
    fn format(&mut self, text: &str, depth: usize) -> Result<String> {
        if depth > 2 {
            return Err(type_error("Max string recursion exceeded"));
        }
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                out.push_str(brace);
                rest = after;
            } else if brace == "}" {
                return Err(type_error("Single '}' encountered in format string"));
            } else {
                let end = closing(rest).ok_or_else(|| type_error("expected '}' before end of string"))?;
                let field = self.field(&rest[..end], depth)?;
                out.push_str(&field);
                rest = &rest[end + 1..];
            }
            self.meter.text(out.len())?;
        }
        out.push_str(rest);
        self.meter.text(out.len())?;
        Ok(out)
    }

    fn field(&mut self, field: &str, depth: usize) -> Result<String> {
        let colon = field.char_indices().scan(0i32, |open, (at, c)| {
            *open += i32::from(c == '[') - i32::from(c == ']');
            Some((at, c == ':' && *open == 0))
        });
        let colon = colon.into_iter().find(|(_, is_colon)| *is_colon).map(|(at, _)| at);
        let (head, spec) = colon.map_or((field, ""), |at| (&field[..at], &field[at + 1..]));
        let (path, conversion) = head.rsplit_once('!').map_or((head, None), |(path, conversion)| (path, Some(conversion)));
        let value = self.lookup(path)?;
        let spec = if spec.contains('{') { self.format(spec, depth + 1)? } else { spec.to_owned() };
        match conversion {
            None => format_value(&value, &spec, self.meter),
            Some("s") => format_value(&Value::from(str_of(&value, self.meter)?.into_owned()), &spec, self.meter),
            Some("r" | "a") => format_value(&Value::from(repr_of(&value, self.meter)?), &spec, self.meter),
            Some(other) => Err(type_error(format!("Unknown conversion specifier '{other}'"))),
        }
    }

    fn lookup(&mut self, path: &str) -> Result<Value> {
        let end = path.find(['.', '[']).unwrap_or(path.len());
        let (first, mut rest) = path.split_at(end);
        let position = if first.is_empty() {
            self.automatic += 1;
            Some(self.automatic - 1)
        } else {
            first.parse().ok()
        };
        let mut value = match position {
            Some(position) => self.fields.positional.get(position).cloned().ok_or_else(|| {
                type_error(format!("Replacement index {position} out of range for positional args tuple"))
            })?,
            None => (self.fields.named)(first).ok_or_else(|| type_error(format!("KeyError: '{first}'")))?,
        };
        while !rest.is_empty() {
            let bracketed = rest.strip_prefix('[').and_then(|inner| inner.split_once(']'));
            let Some((key, after)) = bracketed else {
                return Err(type_error("attributes are not available in format strings; use [key]"));
            };
            let key = key.parse::<i64>().map_or_else(|_| Value::from(key), Value::from);
            value = item(&value, &key)?;
            if value.is_undefined() {
                return Err(type_error(format!("KeyError: {key}")));
            }
            rest = after;
        }
        Ok(value)
    }
}

/// The place of the `}` that closes a field whose `{` was read.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 1;
    text.char_indices().find_map(|(at, c)| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        (depth == 0).then_some(at)
    })
}

fn format_value(value: &Value, spec: &str, meter: &dyn Meter) -> Result<String> {
    if spec.is_empty() {
        return str_of(value, meter).map(|text| text.into_owned());
    }
    let refused = || type_error(format!("unsupported format string passed to {}.__format__", type_name(value)));
    if value.is_undefined() {
        return Err(refused());
    }
    if widths(spec).any(|width| width > MAX_WIDTH) {
        return Err(limit_error(format!("a width is at most {MAX_WIDTH}")));
    }
    if !is_text(value) && number(value).is_none() {
        return Err(error_about(value, || format!("unsupported format string passed to {}.__format__", type_name(value))));
    }
    if let Some(spec) = spec.strip_suffix('%') {
        return percentage(value, spec);
    }
    let out = format(FormatStyle::StrFormat, &format!("{{:{spec}}}"), std::slice::from_ref(value))?;
    meter.text(out.len())?;
    Ok(out)
}

/// Every number in a format specification.
fn widths(spec: &str) -> impl Iterator<Item = usize> {
    spec.split(|c: char| !c.is_ascii_digit())
        .filter(|digits| !digits.is_empty())
        .map(|digits| digits.parse().unwrap_or(usize::MAX))
}

/// `{:.1%}`, which the engine's formatter doesn't know.
fn percentage(value: &Value, spec: &str) -> Result<String> {
    let number = number(value).ok_or_else(|| type_error("Unknown format code '%' for object of type 'str'"))?;
    let (spec, precision) = spec.split_once('.').unwrap_or((spec, "6"));
    let digits = spec.len() - spec.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (flags, width) = spec.split_at(spec.len() - digits);
    let signs: String = flags.chars().filter(|c| matches!(c, '+' | ' ')).collect();
    let hundredfold = Value::from(number.as_f64() * 100.0);
    let body = format(FormatStyle::StrFormat, &format!("{{:{signs}.{precision}f}}"), &[hundredfold])? + "%";
    let missing = width.parse::<usize>().unwrap_or(0).saturating_sub(body.chars().count());
    let padding = " ".repeat(missing);
    Ok(if flags.contains('<') { body + &padding } else { padding + &body })
}
