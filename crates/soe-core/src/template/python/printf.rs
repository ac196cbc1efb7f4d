//! `'...' % values`.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::Value;

use super::Result;
use super::kinds::{Num, int, is_dict, is_list, is_tuple, number, type_error, type_name, undefined_error};
use super::meter::Meter;
use super::text::{repr_of, str_of};
use crate::template::error::limit_error;
use crate::template::limits::MAX_WIDTH;

/// `text % arg`.
pub(crate) fn printf(text: &str, arg: &Value, meter: &dyn Meter) -> Result<String> {
    let tuple = if is_tuple(arg) { Some(arg.try_iter()?.collect()) } else { None };
    let mut printf = Printf {
        rest: text,
        arg,
        tuple,
        used: 0,
        by_name: false,
        meter,
    };
    let mut out = String::new();
    while let Some(at) = printf.rest.find('%') {
        out.push_str(&printf.rest[..at]);
        printf.rest = &printf.rest[at + 1..];
        printf.directive(&mut out)?;
        meter.text(out.len())?;
    }
    out.push_str(printf.rest);
    meter.text(out.len())?;
    printf.finish()?;
    Ok(out)
}

struct Printf<'a> {
    /// What of the text follows.
    rest: &'a str,
    arg: &'a Value,
    tuple: Option<Vec<Value>>,
    used: usize,
    by_name: bool,
    meter: &'a dyn Meter,
}

/// What stands between `%` and the letter.
struct Spec {
    flags: String,
    width: usize,
    precision: Option<usize>,
}

impl Printf<'_> {
    fn directive(&mut self, out: &mut String) -> Result<()> {
        let key = self.key()?;
        let flags = self.rest.len() - self.rest.trim_start_matches(['-', '+', ' ', '#', '0']).len();
        let (flags, rest) = self.rest.split_at(flags);
        self.rest = rest;
        let width = self.size()?.unwrap_or(0);
        let mut precision = None;
        if let Some(rest) = self.rest.strip_prefix('.') {
            self.rest = rest;
            precision = Some(self.size()?.unwrap_or(0));
        }
        self.rest = self.rest.trim_start_matches(['h', 'l', 'L']);
        let letter = self.rest.chars().next().ok_or_else(|| type_error("incomplete format"))?;
        self.rest = &self.rest[letter.len_utf8()..];
        if letter == '%' {
            out.push('%');
            return Ok(());
        }
        let value = match key {
            Some(key) => self.named(&key)?,
            None => self.next()?,
        };
        let spec = Spec {
            flags: flags.to_owned(),
            width,
            precision,
        };
        self.conversion(letter, &spec, &value, out)
    }

    /// The name of `%(name)d`.
    fn key(&mut self) -> Result<Option<String>> {
        let Some(rest) = self.rest.strip_prefix('(') else {
            return Ok(None);
        };
        let mut depth = 1;
        for (at, c) in rest.char_indices() {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                self.rest = &rest[at + 1..];
                return Ok(Some(rest[..at].to_owned()));
            }
        }
        Err(type_error("incomplete format key"))
    }

    fn size(&mut self) -> Result<Option<usize>> {
        let size = if let Some(rest) = self.rest.strip_prefix('*') {
            self.rest = rest;
            let value = self.next()?;
            value.as_usize().ok_or_else(|| type_error("* wants int"))?
        } else {
            let length = self.rest.bytes().take_while(u8::is_ascii_digit).count();
            if length == 0 {
                return Ok(None);
            }
            let (digits, rest) = self.rest.split_at(length);
            self.rest = rest;
            digits.parse().unwrap_or(usize::MAX)
        };
        if size > MAX_WIDTH {
            return Err(limit_error(format!("a width is at most {MAX_WIDTH}")));
        }
        Ok(Some(size))
    }

    fn next(&mut self) -> Result<Value> {
        self.used += 1;
        let value = match &self.tuple {
            Some(tuple) => tuple.get(self.used - 1).cloned(),
            None => (self.used == 1).then(|| self.arg.clone()),
        };
        value.ok_or_else(|| type_error("not enough arguments for format string"))
    }

    fn named(&mut self, key: &str) -> Result<Value> {
        self.by_name = true;
        if !is_dict(self.arg) {
            return Err(type_error("format requires a mapping"));
        }
        let value = self.arg.as_object().and_then(|object| object.get_value_by_str(key));
        value.ok_or_else(|| type_error(format!("KeyError: '{key}'")))
    }

    fn conversion(&self, letter: char, spec: &Spec, value: &Value, out: &mut String) -> Result<()> {
        match letter {
            's' | 'r' | 'a' => {
                let text = if letter == 's' { str_of(value, self.meter)?.into_owned() } else { repr_of(value, self.meter)? };
                let text = match spec.precision {
                    Some(precision) => text.chars().take(precision).collect(),
                    None => text,
                };
                spec.pad(&text, out);
            }
            'c' => {
                let c = match number(value) {
                    Some(Num::Int(code)) => u32::try_from(code).ok().and_then(char::from_u32).map(String::from),
                    _ => value.as_str().filter(|text| text.chars().count() == 1).map(str::to_owned),
                };
                spec.pad(&c.ok_or_else(|| type_error("%c requires int or char"))?, out);
            }
            'd' | 'i' | 'u' | 'x' | 'X' | 'o' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' => out.push_str(&spec.number(letter, value)?),
            _ => return Err(type_error(format!("unsupported format character '{letter}'"))),
        }
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        let left_over = match &self.tuple {
            Some(tuple) => self.used < tuple.len(),
            None => !self.by_name && self.used == 0 && !is_dict(self.arg) && !is_list(self.arg),
        };
        if left_over {
            return Err(type_error("not all arguments converted during string formatting"));
        }
        Ok(())
    }
}

impl Spec {
    fn pad(&self, text: &str, out: &mut String) {
        let missing = self.width.saturating_sub(text.chars().count());
        let spaces = " ".repeat(missing);
        if self.flags.contains('-') {
            out.extend([text, &spaces]);
        } else {
            out.extend([&spaces, text]);
        }
    }

    fn number(&self, letter: char, value: &Value) -> Result<String> {
        let letter = if matches!(letter, 'i' | 'u') { 'd' } else { letter };
        let is_integral = matches!(letter, 'd' | 'x' | 'X' | 'o');
        let wrong = |wanted: &str| type_error(format!("%{letter} format: {wanted} is required, not {}", type_name(value)));
        let value = match number(value) {
            None if value.is_undefined() => return Err(undefined_error()),
            None => return Err(wrong("a real number")),
            Some(Num::Int(whole)) if is_integral => int(whole),
            Some(Num::Float(float)) if letter == 'd' && float.is_finite() && float.abs() < 1e38 => int(float.trunc() as i128),
            Some(Num::Float(_)) if is_integral => return Err(wrong("an integer")),
            Some(other) => Value::from(other.as_f64()),
        };
        if let (true, Some(precision)) = (is_integral, self.precision) {
            let plain = format(FormatStyle::Printf, &format!("%{}{letter}", self.flags.replace('0', "")), &[value])?;
            let plain = plain.trim();
            let (sign, digits) = plain.split_at(usize::from(plain.starts_with(['-', '+'])));
            let zeros = "0".repeat(precision.saturating_sub(digits.len()));
            let mut out = String::new();
            self.pad(&format!("{sign}{zeros}{digits}"), &mut out);
            return Ok(out);
        }
        let width = if self.width > 0 { self.width.to_string() } else { String::new() };
        let precision = self.precision.map_or(String::new(), |precision| format!(".{precision}"));
        format(FormatStyle::Printf, &format!("%{}{width}{precision}{letter}", self.flags), &[value])
    }
}
