//! What a plain scalar means: YAML 1.1, as Python's PyYAML resolves it.
//!
//! Dates and times stay the text that they are.

use super::tree::Content;

/// The value of an untagged plain scalar.
pub(super) fn resolve(text: &str) -> Content {
    if let Some(value) = boolean(text) {
        return Content::Bool(value);
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Content::Null,
        _ => integer(text)
            .or_else(|| float(text).map(Content::Float))
            .unwrap_or_else(|| Content::Text(text.into())),
    }
}

pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// Decimal, binary, octal, hexadecimal or base 60, with `_` between digits. What fits no 64 bits becomes a float.
pub(super) fn integer(text: &str) -> Option<Content> {
    let (negative, digits) = split_sign(text);
    let magnitude = if let Some(binary) = digits.strip_prefix("0b") {
        in_radix(binary, 2)?
    } else if let Some(hexadecimal) = digits.strip_prefix("0x") {
        in_radix(hexadecimal, 16)?
    } else if digits == "0" {
        Magnitude::Exact(0)
    } else if digits.starts_with('0') {
        in_radix(digits, 8)?
    } else if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    } else if digits.contains(':') {
        base_60(digits)?
    } else {
        in_radix(digits, 10)?
    };
    Some(magnitude.signed(negative))
}

pub(super) fn float(text: &str) -> Option<f64> {
    let (negative, digits) = split_sign(text);
    let sign = if negative { -1.0 } else { 1.0 };
    if matches!(digits, ".inf" | ".Inf" | ".INF") {
        return Some(sign * f64::INFINITY);
    }
    if matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Some(f64::NAN);
    }
    let (mantissa, exponent) = split_exponent(digits)?;
    let (whole, fraction) = mantissa.split_once('.')?;
    if !fraction.bytes().all(is_digit_or_underscore) {
        return None;
    }
    if whole.is_empty() {
        // PyYAML takes ".5" for a number, but neither "-.5" nor "._5".
        let unsigned = text.len() == digits.len();
        if !unsigned || !fraction.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
    } else if !whole.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    } else if whole.contains(':') {
        let fraction: f64 = format!("0.{}0", fraction.replace('_', "")).parse().ok()?;
        return exponent
            .is_none()
            .then(|| base_60(whole).map(|whole| sign * (whole.to_f64() + fraction)))?;
    } else if !whole.bytes().all(is_digit_or_underscore) {
        return None;
    }
    digits.replace('_', "").parse().ok().map(|value: f64| sign * value)
}

enum Magnitude {
    Exact(u64),
    Rounded(f64),
}

impl Magnitude {
    fn signed(self, negative: bool) -> Content {
        match (self, negative) {
            (Self::Exact(value), false) => i64::try_from(value).map_or(Content::UInt(value), Content::Int),
            (Self::Exact(value), true) => match 0_i64.checked_sub_unsigned(value) {
                Some(value) => Content::Int(value),
                None => Content::Float(-(value as f64)),
            },
            (Self::Rounded(value), negative) => Content::Float(if negative { -value } else { value }),
        }
    }

    fn to_f64(&self) -> f64 {
        match self {
            Self::Exact(value) => *value as f64,
            Self::Rounded(value) => *value,
        }
    }
}

/// `None` if `text` has anything but digits of `radix` and underscores, or no digit.
fn in_radix(text: &str, radix: u32) -> Option<Magnitude> {
    let is_digit = |c: char| c.is_digit(radix);
    if !text.contains(is_digit) || !text.chars().all(|c| c == '_' || is_digit(c)) {
        return None;
    }
    let digits = text.replace('_', "");
    if let Ok(value) = u64::from_str_radix(&digits, radix) {
        return Some(Magnitude::Exact(value));
    }
    if radix == 10 {
        return digits.parse().ok().map(Magnitude::Rounded);
    }
    let value = digits
        .chars()
        .filter_map(|c| c.to_digit(radix))
        .fold(0.0, |value, digit| value * f64::from(radix) + f64::from(digit));
    Some(Magnitude::Rounded(value))
}

/// `190:20:30`: every part after the first is below 60.
fn base_60(text: &str) -> Option<Magnitude> {
    let mut parts = text.split(':');
    let mut value = in_radix(parts.next()?, 10)?;
    for part in parts {
        let digit: u64 = match part.as_bytes() {
            [b'0'..=b'9'] | [b'0'..=b'5', b'0'..=b'9'] => part.parse().ok()?,
            _ => return None,
        };
        value = match value {
            Magnitude::Exact(value) => match value.checked_mul(60).and_then(|v| v.checked_add(digit)) {
                Some(value) => Magnitude::Exact(value),
                None => Magnitude::Rounded(value as f64 * 60.0 + digit as f64),
            },
            Magnitude::Rounded(value) => Magnitude::Rounded(value * 60.0 + digit as f64),
        };
    }
    Some(value)
}

fn split_sign(text: &str) -> (bool, &str) {
    match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    }
}

/// An exponent needs a sign in YAML 1.1: `1.5e3` is text.
fn split_exponent(text: &str) -> Option<(&str, Option<&str>)> {
    let Some(at) = text.find(['e', 'E']) else {
        return Some((text, None));
    };
    let exponent = &text[at + 1..];
    let digits = exponent.strip_prefix(['+', '-'])?;
    let valid = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    valid.then_some((&text[..at], Some(exponent)))
}

fn is_digit_or_underscore(byte: u8) -> bool {
    byte.is_ascii_digit() || byte == b'_'
}
