//! `tojson`: JSON as Python writes it, safe inside HTML.

use std::fmt::Write as _;

use minijinja::State;
use minijinja::value::{Value, ValueKind};

use super::Filter;
use crate::template::error::limit_error;
use crate::template::limits::MAX_VALUE_DEPTH;
use crate::template::python::Result;
use crate::template::python::args::bind;
use crate::template::python::compare::sort_by_keys;
use crate::template::python::kinds::{Num, number, type_error, type_name};
use crate::template::python::meter::Meter;
use crate::template::python::objects::entries;
use crate::template::python::sequence::items;
use crate::template::python::text::{float_repr, prints_items};

pub(super) const FILTERS: &[(&str, Filter)] = &[("tojson", tojson)];

fn tojson(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    let args = bind("tojson", &["indent"], args)?;
    let indent = match args.some(0) {
        Some(_) => Some(args.width(0, 0)?),
        None => None,
    };
    let mut writer = Writer {
        out: String::new(),
        indent,
        state,
        paid: 0,
    };
    writer.value(value, 0)?;
    Ok(Value::from_safe_string(writer.out))
}

struct Writer<'a, 's> {
    out: String,
    indent: Option<usize>,
    state: &'a State<'s, 's>,
    paid: usize,
}

impl Writer<'_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<()> {
        if depth > MAX_VALUE_DEPTH {
            return Err(limit_error(format!("the value nests deeper than {MAX_VALUE_DEPTH} levels")));
        }
        self.state.text(self.out.len() - self.paid)?;
        self.paid = self.out.len();
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool | ValueKind::Number => self.out.push_str(&scalar(value)),
            ValueKind::String => self.text(value.as_str().unwrap_or_default()),
            ValueKind::Map => self.object(value, depth)?,
            _ if prints_items(value) => self.array(value, depth)?,
            _ => return Err(type_error(format!("Object of type {} is not JSON serializable", type_name(value)))),
        }
        Ok(())
    }

    fn object(&mut self, value: &Value, depth: usize) -> Result<()> {
        let mut sorted: Vec<_> = entries(value).map(|(key, item)| (vec![key], item)).collect();
        sort_by_keys(&mut sorted, false, self.state)?;
        let sorted = sorted.into_iter().filter_map(|(mut keys, item)| Some((keys.pop()?, item)));
        self.container('{', '}', depth, sorted, |writer, (key, item)| {
            match key.kind() {
                ValueKind::String => writer.text(key.as_str().unwrap_or_default()),
                ValueKind::None => writer.out.push_str("\"null\""),
                ValueKind::Bool | ValueKind::Number => writer.out.extend(["\"", &scalar(&key), "\""]),
                _ => return Err(type_error("keys must be str, int, float, bool or None")),
            }
            writer.out.push_str(": ");
            writer.value(&item, depth + 1)
        })
    }

    fn array(&mut self, value: &Value, depth: usize) -> Result<()> {
        let items = items(value, self.state)?;
        self.container('[', ']', depth, items.into_iter(), |writer, item| writer.value(&item, depth + 1))
    }

    fn container<T>(
        &mut self,
        open: char,
        close: char,
        depth: usize,
        items: impl Iterator<Item = T>,
        mut write: impl FnMut(&mut Self, T) -> Result<()>,
    ) -> Result<()> {
        self.out.push(open);
        let mut count = 0;
        for item in items {
            if count > 0 {
                self.out.push_str(if self.indent.is_some() { "," } else { ", " });
            }
            self.newline(depth + 1)?;
            write(self, item)?;
            count += 1;
        }
        if count > 0 {
            self.newline(depth)?;
        }
        self.out.push(close);
        Ok(())
    }

    fn newline(&mut self, depth: usize) -> Result<()> {
        if let Some(indent) = self.indent {
            self.state.text(indent * depth)?;
            self.out.push('\n');
            self.out.push_str(&" ".repeat(indent * depth));
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\x08' => self.out.push_str("\\b"),
                '\x0c' => self.out.push_str("\\f"),
                ' '..='~' if !matches!(c, '<' | '>' | '&' | '\'') => self.out.push(c),
                c => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing to a String can't fail.
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
            }
        }
        self.out.push('"');
    }
}

/// A boolean or a number.
fn scalar(value: &Value) -> String {
    match number(value) {
        _ if value.kind() == ValueKind::Bool => value.is_true().to_string(),
        Some(Num::Float(float)) if float.is_nan() => "NaN".into(),
        Some(Num::Float(float)) if float.is_infinite() => if float > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        Some(Num::Float(float)) => {
            let mut text = String::new();
            float_repr(float, &mut text);
            text
        }
        _ => value.to_string(),
    }
}
