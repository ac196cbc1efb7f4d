//! `str()` and `repr()`.

use std::borrow::Cow;
use std::fmt::Write as _;

use minijinja::value::{Value, ValueKind};

use super::Result;
use super::kinds::{is_range, is_tuple};
use super::meter::Meter;
use super::objects::{DictView, Generator, Range, entries};
use crate::template::error::limit_error;
use crate::template::limits::{MAX_TEXT, MAX_VALUE_DEPTH};

/// `str(value)`.
pub(crate) fn str_of<'v>(value: &'v Value, meter: &dyn Meter) -> Result<Cow<'v, str>> {
    match value.kind() {
        ValueKind::String => Ok(Cow::Borrowed(value.as_str().unwrap_or_default())),
        ValueKind::Undefined => Ok(Cow::Borrowed("")),
        ValueKind::None => Ok(Cow::Borrowed("None")),
        ValueKind::Bool => Ok(Cow::Borrowed(if value.is_true() { "True" } else { "False" })),
        _ => repr_of(value, meter).map(Cow::Owned),
    }
}

/// `repr(value)`.
pub(crate) fn repr_of(value: &Value, meter: &dyn Meter) -> Result<String> {
    let mut repr = Repr {
        out: String::new(),
        meter,
        paid: 0,
    };
    repr.value(value, 0)?;
    Ok(repr.out)
}

struct Repr<'m> {
    out: String,
    meter: &'m dyn Meter,
    /// The bytes of `out` that were paid for.
    paid: usize,
}

impl Repr<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<()> {
        self.pay(depth)?;
        match value.kind() {
            ValueKind::Undefined => self.out.push_str("Undefined"),
            ValueKind::None => self.out.push_str("None"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "True" } else { "False" }),
            ValueKind::Number if value.is_integer() => {
                let _ = write!(self.out, "{value}");
            }
            ValueKind::Number => float_repr(f64::try_from(value.clone()).unwrap_or(f64::NAN), &mut self.out),
            ValueKind::String => {
                let text = value.as_str().unwrap_or_default();
                self.out.push_str(if value.is_safe() { "Markup(" } else { "" });
                text_repr(text, &mut self.out);
                self.out.push_str(if value.is_safe() { ")" } else { "" });
            }
            ValueKind::Map => self.dict(value, depth)?,
            _ => self.object(value, depth)?,
        }
        Ok(())
    }

    fn pay(&mut self, depth: usize) -> Result<()> {
        if depth > MAX_VALUE_DEPTH {
            return Err(limit_error(format!("the value nests deeper than {MAX_VALUE_DEPTH} levels")));
        }
        if self.out.len() > MAX_TEXT {
            return Err(limit_error(format!("the text would be longer than {MAX_TEXT} bytes")));
        }
        self.meter.text(self.out.len() - self.paid)?;
        self.paid = self.out.len();
        Ok(())
    }

    fn dict(&mut self, value: &Value, depth: usize) -> Result<()> {
        self.out.push('{');
        for (index, (key, value)) in entries(value).enumerate() {
            self.out.push_str(if index > 0 { ", " } else { "" });
            self.value(&key, depth + 1)?;
            self.out.push_str(": ");
            self.value(&value, depth + 1)?;
        }
        self.out.push('}');
        Ok(())
    }

    fn object(&mut self, value: &Value, depth: usize) -> Result<()> {
        if let Some(range) = value.downcast_object_ref::<Range>() {
            let _ = match range.step {
                1 => write!(self.out, "range({}, {})", range.start, range.stop),
                step => write!(self.out, "range({}, {}, {step})", range.start, range.stop),
            };
        } else if let Some(generator) = value.downcast_object_ref::<Generator>() {
            let _ = write!(self.out, "{generator:?}");
        } else if let Some(view) = value.downcast_object_ref::<DictView>() {
            self.out.push_str(view.label());
            self.out.push_str("([");
            self.items(view.items().into_iter(), depth)?;
            self.out.push_str("])");
        } else if matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
            let is_tuple = is_tuple(value);
            self.out.push(if is_tuple { '(' } else { '[' });
            let count = self.items(value.try_iter()?, depth)?;
            self.out.push_str(if is_tuple && count == 1 { "," } else { "" });
            self.out.push(if is_tuple { ')' } else { ']' });
        } else {
            let _ = write!(self.out, "{value}");
        }
        Ok(())
    }

    fn items(&mut self, items: impl Iterator<Item = Value>, depth: usize) -> Result<usize> {
        let mut count = 0;
        for item in items {
            self.out.push_str(if count > 0 { ", " } else { "" });
            self.value(&item, depth + 1)?;
            count += 1;
        }
        Ok(count)
    }
}

/// A float as Python prints it: the shortest digits that read back as the same number.
pub(crate) fn float_repr(value: f64, out: &mut String) {
    if value.is_nan() {
        return out.push_str("nan");
    }
    if value.is_infinite() {
        return out.push_str(if value > 0.0 { "inf" } else { "-inf" });
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    // Writing to a String can't fail.
    let _ = if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        let suffix = if plain.contains('.') { "" } else { ".0" };
        write!(out, "{plain}{suffix}")
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(out, "{mantissa}e{sign}{:02}", exponent.abs())
    };
}

/// A text in quotes, with what can't be printed escaped.
pub(crate) fn text_repr(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if is_printable(c) => out.push(c),
            c => {
                let code = u32::from(c);
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
}

/// `str.isprintable` for one character.
pub(crate) fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    // The standard library escapes what can't be printed; combining marks only at the start of a text.
    let mut buffer = [0; 5];
    buffer[0] = b'a';
    let length = 1 + c.encode_utf8(&mut buffer[1..]).len();
    std::str::from_utf8(&buffer[..length]).is_ok_and(|text| text.escape_debug().count() == 2)
}

/// Whether `value` is a sequence that prints its items.
pub(crate) fn prints_items(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) && !is_range(value)
}
