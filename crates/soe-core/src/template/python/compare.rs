//! Equality, order and membership. What Python refuses to compare is an error.

use std::cmp::Ordering;

use minijinja::value::{Value, ValueKind};

use super::Result;
use super::kinds::{
    Num, error_about, is_dict, is_hashable, is_list, is_range, is_tuple, number, type_error, type_name, undefined_error,
};
use super::meter::Meter;
use super::objects::{DictView, ViewKind, entries};
use crate::template::error::limit_error;
use crate::template::limits::MAX_VALUE_DEPTH;
use crate::template::view::{SignalsView, is_same_object};

/// `a == b`.
pub(crate) fn equal(a: &Value, b: &Value, meter: &dyn Meter) -> Result<bool> {
    equal_at(a, b, meter, 0)
}

fn equal_at(a: &Value, b: &Value, meter: &dyn Meter, depth: usize) -> Result<bool> {
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        return Ok(order_numbers(a, b) == Some(Ordering::Equal));
    }
    if let (Some(left), Some(right)) = (a.as_str(), b.as_str()) {
        if left.len() != right.len() {
            return Ok(false);
        }
        meter.read(a)?;
        return Ok(left == right);
    }
    if a.as_object().is_none() || b.as_object().is_none() {
        return Ok(a.kind() == b.kind() && matches!(a.kind(), ValueKind::None | ValueKind::Undefined));
    }
    if is_same_object(a, b) {
        return Ok(true);
    }
    meter.spend(5)?;
    if depth > MAX_VALUE_DEPTH {
        return Err(limit_error(format!(
            "the values nest deeper than {MAX_VALUE_DEPTH} levels"
        )));
    }
    if is_dict(a) && is_dict(b) {
        return equal_dicts(a, b, meter, depth);
    }
    let same_type = (is_list(a) && is_list(b)) || (is_tuple(a) && is_tuple(b)) || (is_range(a) && is_range(b));
    if !same_type || a.len() != b.len() {
        return Ok(false);
    }
    for (x, y) in a.try_iter()?.zip(b.try_iter()?) {
        meter.spend(1)?;
        if !equal_at(&x, &y, meter, depth + 1)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn equal_dicts(a: &Value, b: &Value, meter: &dyn Meter, depth: usize) -> Result<bool> {
    if a.len() != b.len() {
        return Ok(false);
    }
    let Some(other) = b.as_object() else {
        return Ok(false);
    };
    for (key, x) in entries(a) {
        meter.spend(1)?;
        match other.get_value(&key) {
            Some(y) if equal_at(&x, &y, meter, depth + 1)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// The order of two numbers, exact between integers and floats; `None` if one is not a number.
pub(crate) fn order_numbers(a: Num, b: Num) -> Option<Ordering> {
    /// Integers up to this are floats without loss.
    const EXACT: i128 = 1 << 53;
    let exact = |value: i128| (-EXACT..=EXACT).contains(&value);
    match (a, b) {
        (Num::Int(a), Num::Int(b)) => Some(a.cmp(&b)),
        (Num::Int(a), Num::Float(b)) if !exact(a) && b.abs() < 1e38 && b.fract() == 0.0 => Some(a.cmp(&(b as i128))),
        (Num::Float(a), Num::Int(b)) if !exact(b) && a.abs() < 1e38 && a.fract() == 0.0 => Some((a as i128).cmp(&b)),
        (a, b) => a.as_f64().partial_cmp(&b.as_f64()),
    }
}

/// The order of `a` and `b`, `operator` being what the error names.
pub(crate) fn order(a: &Value, b: &Value, operator: &str, meter: &dyn Meter) -> Result<Option<Ordering>> {
    order_at(a, b, operator, meter, 0)
}

fn order_at(a: &Value, b: &Value, operator: &str, meter: &dyn Meter, depth: usize) -> Result<Option<Ordering>> {
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        return Ok(order_numbers(a, b));
    }
    if let (Some(left), Some(right)) = (a.as_str(), b.as_str()) {
        meter.read(if left.len() < right.len() { a } else { b })?;
        return Ok(Some(left.cmp(right)));
    }
    if a.is_undefined() || b.is_undefined() {
        return Err(undefined_error());
    }
    if depth > MAX_VALUE_DEPTH {
        return Err(limit_error(format!(
            "the values nest deeper than {MAX_VALUE_DEPTH} levels"
        )));
    }
    if (is_list(a) && is_list(b)) || (is_tuple(a) && is_tuple(b)) {
        let (mut left, mut right) = (a.try_iter()?, b.try_iter()?);
        loop {
            meter.spend(1)?;
            match (left.next(), right.next()) {
                (Some(x), Some(y)) if equal(&x, &y, meter)? => {}
                (Some(x), Some(y)) => return order_at(&x, &y, operator, meter, depth + 1),
                (x, y) => return Ok(Some(x.is_some().cmp(&y.is_some()))),
            }
        }
    }
    let (a, b) = (type_name(a), type_name(b));
    Err(type_error(format!(
        "'{operator}' not supported between instances of '{a}' and '{b}'"
    )))
}

/// One of Python's comparisons.
pub(crate) fn compare(operator: &str, a: &Value, b: &Value, meter: &dyn Meter) -> Result<bool> {
    let ordering = |a, b| order(a, b, operator, meter);
    Ok(match operator {
        "==" => equal(a, b, meter)?,
        "!=" => !equal(a, b, meter)?,
        "in" => contains(b, a, meter)?,
        "not in" => !contains(b, a, meter)?,
        "<" => ordering(a, b)? == Some(Ordering::Less),
        "<=" => matches!(ordering(a, b)?, Some(Ordering::Less | Ordering::Equal)),
        ">" => ordering(a, b)? == Some(Ordering::Greater),
        _ => matches!(ordering(a, b)?, Some(Ordering::Greater | Ordering::Equal)),
    })
}

/// `item in container`.
pub(crate) fn contains(container: &Value, item: &Value, meter: &dyn Meter) -> Result<bool> {
    if let Some(signals) = container.downcast_object_ref::<SignalsView>() {
        return Ok(item.as_str().is_some_and(|signal| signals.contains(signal)));
    }
    match container.kind() {
        ValueKind::Undefined => Ok(false),
        ValueKind::String => {
            let text = container.as_str().unwrap_or_default();
            meter.read(container)?;
            let part = item.as_str().ok_or_else(|| {
                error_about(item, || {
                    format!("'in <string>' requires string as left operand, not {}", type_name(item))
                })
            })?;
            Ok(text.contains(part))
        }
        ValueKind::Map => has_key(container, item, meter),
        ValueKind::None | ValueKind::Bool | ValueKind::Number => Err(type_error(format!(
            "argument of type '{}' is not iterable",
            type_name(container)
        ))),
        _ => {
            if let Some(view) = container
                .downcast_object_ref::<DictView>()
                .filter(|view| view.kind == ViewKind::Keys)
            {
                return has_key(&view.dict, item, meter);
            }
            for candidate in container.try_iter()? {
                meter.spend(5)?;
                if equal(&candidate, item, meter)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}

fn has_key(dict: &Value, key: &Value, meter: &dyn Meter) -> Result<bool> {
    meter.read(key)?;
    if !is_hashable(key) {
        return Err(type_error(format!("unhashable type: '{}'", type_name(key))));
    }
    let found = !key.is_undefined() && dict.as_object().is_some_and(|object| object.get_value(key).is_some());
    Ok(found)
}

/// Sorts by keys, keeping the order of equal ones; keys that can't be compared are an error.
pub(crate) fn sort_by_keys(items: &mut [(Vec<Value>, Value)], reverse: bool, meter: &dyn Meter) -> Result<()> {
    let mut failure = None;
    let mut compare = |a: &[Value], b: &[Value]| {
        if failure.is_some() {
            return Ordering::Equal;
        }
        order_keys(a, b, meter).unwrap_or_else(|error| {
            failure = Some(error);
            Ordering::Equal
        })
    };
    if reverse {
        items.sort_by(|a, b| compare(&b.0, &a.0));
    } else {
        items.sort_by(|a, b| compare(&a.0, &b.0));
    }
    failure.map_or(Ok(()), Err)
}

fn order_keys(a: &[Value], b: &[Value], meter: &dyn Meter) -> Result<Ordering> {
    meter.spend(1)?;
    for (x, y) in a.iter().zip(b) {
        if !equal(x, y, meter)? {
            return Ok(order(x, y, "<", meter)?.unwrap_or(Ordering::Equal));
        }
    }
    Ok(Ordering::Equal)
}
