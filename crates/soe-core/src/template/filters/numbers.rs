//! Filters on numbers.

use minijinja::State;
use minijinja::value::Value;

use super::Filter;
use crate::template::python::Result;
use crate::template::python::arith::round_half_even;
use crate::template::python::args::bind;
use crate::template::python::digits::{parse_float, parse_int};
use crate::template::python::kinds::{Num, error_about, int, number, type_error, type_name, undefined_error};

pub(super) const FILTERS: &[(&str, Filter)] = &[
    ("abs", abs),
    ("int", to_int),
    ("float", to_float),
    ("round", round),
    ("filesizeformat", filesizeformat),
];

/// Floats above this don't fit in an integer of ours.
const LARGEST: f64 = 1.7e38;

fn abs(_: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    bind("abs", &[], args)?;
    match number(value) {
        Some(Num::Int(number)) => Ok(int(number.saturating_abs())),
        Some(Num::Float(number)) => Ok(Value::from(number.abs())),
        None => Err(error_about(value, || format!("bad operand type for abs(): '{}'", type_name(value)))),
    }
}

fn to_int(_: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    let args = bind("int", &["default", "base"], args)?;
    let default = args.get(0).cloned().unwrap_or_else(|| Value::from(0));
    let base = u32::try_from(args.int(1, 10)?).unwrap_or(10);
    if value.is_undefined() {
        return Err(undefined_error());
    }
    let float = match (number(value), value.as_str()) {
        (Some(Num::Int(number)), _) => return Ok(int(number)),
        (Some(Num::Float(number)), _) if number.is_infinite() => {
            return Err(type_error("cannot convert float infinity to integer"));
        }
        (Some(Num::Float(number)), _) => Some(number),
        (None, Some(text)) => match parse_int(text, base) {
            Some(number) => return Ok(int(number)),
            None => parse_float(text),
        },
        (None, None) => None,
    };
    Ok(match float {
        Some(float) if float.abs() < LARGEST => int(float.trunc() as i128),
        _ => default,
    })
}

fn to_float(_: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    let args = bind("float", &["default"], args)?;
    if value.is_undefined() {
        return Err(undefined_error());
    }
    let float = match number(value) {
        Some(number) => Some(number.as_f64()),
        None => value.as_str().and_then(parse_float),
    };
    Ok(match float {
        Some(float) => Value::from(float),
        None => args.get(0).cloned().unwrap_or_else(|| Value::from(0.0)),
    })
}

fn round(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    let args = bind("round", &["precision", "method"], args)?;
    let precision = args.int(0, 0)?.clamp(-400, 400) as i32;
    let method = args.text(1, "common", state)?;
    if !matches!(method.as_str(), "common" | "ceil" | "floor") {
        return Err(type_error("method must be common, ceil or floor"));
    }
    let number = number(value)
        .ok_or_else(|| error_about(value, || format!("type {} doesn't define __round__ method", type_name(value))))?;
    match (method.as_str(), number) {
        ("common", Num::Int(number)) => Ok(int(round_int(number, precision))),
        ("common", Num::Float(number)) => Ok(Value::from(round_half_even(number, precision))),
        (method, number) => {
            let unit = 10f64.powi(precision);
            let scaled = number.as_f64() * unit;
            let rounded = if method == "ceil" { scaled.ceil() } else { scaled.floor() };
            Ok(Value::from(rounded / unit))
        }
    }
}

/// Rounds to a multiple of a power of ten, halves to the even one.
fn round_int(number: i128, precision: i32) -> i128 {
    if precision >= 0 {
        return number;
    }
    let Some(unit) = 10i128.checked_pow(precision.unsigned_abs()) else {
        return 0;
    };
    let (quotient, rest) = (number.div_euclid(unit), number.rem_euclid(unit));
    let up = rest * 2 > unit || (rest * 2 == unit && quotient % 2 != 0);
    (quotient + i128::from(up)).saturating_mul(unit)
}

fn filesizeformat(_: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    let args = bind("filesizeformat", &["binary"], args)?;
    let bytes = match (number(value), value.as_str()) {
        (Some(number), _) => number.as_f64(),
        (None, Some(text)) => parse_float(text).ok_or_else(|| type_error(format!("could not convert string to float: '{text}'")))?,
        (None, None) => return Err(error_about(value, || "float() argument must be a string or a real number".into())),
    };
    let (base, prefixes) = if args.flag(0) {
        (1024.0, ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"])
    } else {
        (1000.0, ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"])
    };
    if bytes == 1.0 {
        return Ok(Value::from("1 Byte"));
    }
    if bytes < base {
        return Ok(Value::from(format!("{} Bytes", bytes.trunc())));
    }
    let mut unit: f64 = base * base;
    let mut prefixes = prefixes.into_iter().peekable();
    loop {
        match prefixes.next() {
            Some(prefix) if bytes < unit || prefixes.peek().is_none() => {
                return Ok(Value::from(format!("{:.1} {prefix}", base * bytes / unit)));
            }
            _ => unit *= base,
        }
    }
}
