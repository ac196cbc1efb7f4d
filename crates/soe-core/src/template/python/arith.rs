//! Arithmetic, on numbers of up to 128 bits, texts and sequences.

use minijinja::value::Value;

use super::Result;
use super::kinds::{Num, int, is_list, is_text, is_tuple, number, type_error, type_name, undefined_error};
use super::meter::Meter;
use super::objects::{list, tuple};
use super::printf::printf;
use super::sequence::items;
use super::text::float_repr;
use crate::template::error::limit_error;
use crate::template::html;
use crate::template::limits::MAX_ITEMS;

/// `a <operator> b`.
pub(crate) fn binary(operator: &str, a: &Value, b: &Value, meter: &dyn Meter) -> Result<Value> {
    if let (Some(x), Some(y)) = (number(a), number(b)) {
        return numbers(operator, x, y);
    }
    match operator {
        "+" => add(a, b, meter),
        "*" => repeat(a, b, meter),
        "%" if is_text(a) => {
            let text = printf(a.as_str().unwrap_or_default(), b, meter)?;
            Ok(Value::from(text))
        }
        _ => Err(unsupported(operator, a, b)),
    }
}

/// `-value`.
pub(crate) fn negative(value: &Value) -> Result<Value> {
    match number(value) {
        Some(Num::Int(number)) => number.checked_neg().map(int).ok_or_else(too_large),
        Some(Num::Float(number)) => Ok(Value::from(-number)),
        None if value.is_undefined() => Err(undefined_error()),
        None => Err(type_error(format!("bad operand type for unary -: '{}'", type_name(value)))),
    }
}

/// `+value`.
pub(crate) fn positive(value: &Value) -> Result<Value> {
    match number(value) {
        Some(Num::Int(number)) => Ok(int(number)),
        Some(Num::Float(number)) => Ok(Value::from(number)),
        None if value.is_undefined() => Err(undefined_error()),
        None => Err(type_error(format!("bad operand type for unary +: '{}'", type_name(value)))),
    }
}

fn unsupported(operator: &str, a: &Value, b: &Value) -> minijinja::Error {
    if a.is_undefined() || b.is_undefined() {
        return undefined_error();
    }
    let operator = if operator == "**" { "** or pow()" } else { operator };
    let (a, b) = (type_name(a), type_name(b));
    type_error(format!("unsupported operand type(s) for {operator}: '{a}' and '{b}'"))
}

fn too_large() -> minijinja::Error {
    limit_error("the integer would have more than 128 bits")
}

fn numbers(operator: &str, a: Num, b: Num) -> Result<Value> {
    if matches!(operator, "/" | "//" | "%") && b.as_f64() == 0.0 {
        return Err(type_error("division by zero"));
    }
    match (a, b) {
        (Num::Int(a), Num::Int(b)) if operator != "/" && !(operator == "**" && b < 0) => integers(operator, a, b),
        (a, b) => floats(operator, a.as_f64(), b.as_f64()).map(Value::from),
    }
}

fn integers(operator: &str, a: i128, b: i128) -> Result<Value> {
    let opposite = (a < 0) != (b < 0);
    let result = match operator {
        "+" => a.checked_add(b),
        "-" => a.checked_sub(b),
        "*" => a.checked_mul(b),
        "//" => a.checked_div(b).map(|quotient| quotient - i128::from(opposite && quotient.wrapping_mul(b) != a)),
        "%" => a.checked_rem(b).map(|rest| if rest != 0 && opposite { rest + b } else { rest }),
        _ => match (a, b) {
            (0 | 1, _) => Some(if b == 0 { 1 } else { a }),
            (-1, _) => Some(if b % 2 == 0 { 1 } else { -1 }),
            _ => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
        },
    };
    result.map(int).ok_or_else(too_large)
}

fn floats(operator: &str, a: f64, b: f64) -> Result<f64> {
    Ok(match operator {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" => a / b,
        "//" => floor_division(a, b).0,
        "%" => floor_division(a, b).1,
        _ => return power(a, b),
    })
}

fn power(a: f64, b: f64) -> Result<f64> {
    if a == 0.0 && b < 0.0 {
        return Err(type_error("0.0 cannot be raised to a negative power"));
    }
    if a < 0.0 && b.fract() != 0.0 && b.is_finite() {
        return Err(type_error("the result would be a complex number"));
    }
    let result = a.powf(b);
    if result.is_infinite() && a.is_finite() && b.is_finite() {
        return Err(type_error("Numerical result out of range"));
    }
    Ok(result)
}

/// The quotient rounded down, and the rest, which has the sign of `b`.
fn floor_division(a: f64, b: f64) -> (f64, f64) {
    let mut rest = a % b;
    let mut quotient = (a - rest) / b;
    if rest == 0.0 {
        rest = 0f64.copysign(b);
    } else if (rest < 0.0) != (b < 0.0) {
        rest += b;
        quotient -= 1.0;
    }
    if quotient == 0.0 {
        return (0f64.copysign(a / b), rest);
    }
    let floor = quotient.floor();
    (if quotient - floor > 0.5 { floor + 1.0 } else { floor }, rest)
}

fn add(a: &Value, b: &Value, meter: &dyn Meter) -> Result<Value> {
    if let (Some(x), Some(y)) = (a.as_str(), b.as_str()) {
        meter.text(x.len() + y.len())?;
        return Ok(match (a.is_safe(), b.is_safe()) {
            (false, false) => Value::from([x, y].concat()),
            (true, true) => Value::from_safe_string([x, y].concat()),
            (true, false) => Value::from_safe_string([x, &html::escape(y)].concat()),
            (false, true) => Value::from_safe_string([&html::escape(x), y].concat()),
        });
    }
    let are_tuples = is_tuple(a) && is_tuple(b);
    if are_tuples || (is_list(a) && is_list(b)) {
        let mut all = items(a, meter)?;
        all.append(&mut items(b, meter)?);
        return Ok(if are_tuples { tuple(all) } else { list(all) });
    }
    Err(unsupported("+", a, b))
}

fn repeat(a: &Value, b: &Value, meter: &dyn Meter) -> Result<Value> {
    let (value, count) = match (number(a), number(b)) {
        (_, Some(Num::Int(count))) => (a, count),
        (Some(Num::Int(count)), _) => (b, count),
        _ => return Err(unsupported("*", a, b)),
    };
    let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
    if let Some(text) = value.as_str() {
        meter.text(text.len().saturating_mul(count))?;
        return Ok(Value::from(text.repeat(count)));
    }
    if !is_list(value) && !is_tuple(value) {
        return Err(unsupported("*", a, b));
    }
    let length = value.len().unwrap_or(0).saturating_mul(count);
    if length > MAX_ITEMS {
        return Err(limit_error(format!("the sequence would have more than {MAX_ITEMS} items")));
    }
    meter.spend(length as u64)?;
    let once = if length == 0 { Vec::new() } else { items(value, meter)? };
    let all = once.iter().cycle().take(length).cloned().collect();
    Ok(if is_tuple(value) { tuple(all) } else { list(all) })
}

/// `round(value, digits)`: to the nearest, halves to the even neighbour, as the decimal text of the exact value has it.
pub(crate) fn round_half_even(value: f64, digits: i32) -> f64 {
    if !value.is_finite() || digits > 300 {
        return value;
    }
    if digits >= 0 {
        let places = usize::try_from(digits).unwrap_or(0);
        return format!("{value:.places$}").parse().unwrap_or(value);
    }
    if digits < -308 {
        return 0f64.copysign(value);
    }
    let unit = 10f64.powi(-digits);
    (value / unit).round_ties_even() * unit
}

/// A number as `str` prints it, for messages and texts that are built from numbers.
pub(crate) fn number_text(value: Num) -> String {
    match value {
        Num::Int(value) => value.to_string(),
        Num::Float(value) => {
            let mut text = String::new();
            float_repr(value, &mut text);
            text
        }
    }
}
