//! Iterating, counting, subscripts and slices.

use minijinja::value::{Value, ValueKind};

use super::Result;
use super::kinds::{Num, error_about, is_list, is_range, is_scalar, is_text, is_tuple, is_view, number, type_error, type_name, undefined_error};
use super::meter::Meter;
use super::objects::{Group, list, tuple};
use crate::template::error::limit_error;
use crate::template::limits::MAX_ITEMS;

/// The items of anything that can be iterated; of something undefined none.
pub(crate) fn items(value: &Value, meter: &dyn Meter) -> Result<Vec<Value>> {
    if value.is_undefined() {
        return Ok(Vec::new());
    }
    if is_scalar(value) {
        return Err(type_error(format!("'{}' object is not iterable", type_name(value))));
    }
    let mut all = Vec::new();
    for item in value.try_iter()?.checked() {
        meter.spend(1)?;
        if all.len() >= MAX_ITEMS {
            return Err(limit_error(format!("the sequence would have more than {MAX_ITEMS} items")));
        }
        all.push(item?);
    }
    Ok(all)
}

/// `len(value)`.
pub(crate) fn length(value: &Value) -> Result<usize> {
    let no_length = || type_error(format!("object of type '{}' has no len()", type_name(value)));
    match value.kind() {
        ValueKind::Undefined => Ok(0),
        ValueKind::String => Ok(value.as_str().unwrap_or_default().chars().count()),
        ValueKind::Map | ValueKind::Seq | ValueKind::Iterable => value.len().ok_or_else(no_length),
        _ if is_view(value) => value.as_object().and_then(|view| view.enumerator_len()).ok_or_else(no_length),
        _ => Err(no_length()),
    }
}

/// `value[key]`, undefined if there is no such item.
pub(crate) fn item(value: &Value, key: &Value) -> Result<Value> {
    if value.is_undefined() {
        return Err(undefined_error());
    }
    if let Some(group) = value.downcast_object_ref::<Group>() {
        match key.as_str() {
            Some("grouper") => return Ok(group.grouper.clone()),
            Some("list") => return Ok(group.list.clone()),
            _ => {}
        }
    }
    if is_list(value) || is_tuple(value) || is_text(value) || is_range(value) {
        let Some(Num::Int(index)) = number(key) else {
            return Ok(Value::UNDEFINED);
        };
        return Ok(at_index(value, index));
    }
    if value.kind() != ValueKind::Map {
        return Ok(match key.as_str() {
            Some(name) => value.get_attr(name).unwrap_or_default(),
            None => Value::UNDEFINED,
        });
    }
    Ok(value.as_object().and_then(|object| object.get_value(key)).unwrap_or_default())
}

fn at_index(value: &Value, index: i128) -> Value {
    let from_end = |length: usize| {
        let index = if index < 0 { index + length as i128 } else { index };
        usize::try_from(index).ok()
    };
    if let Some(text) = value.as_str() {
        let found = match usize::try_from(index) {
            Ok(index) => text.chars().nth(index),
            Err(_) => usize::try_from(-(index + 1)).ok().and_then(|back| text.chars().nth_back(back)),
        };
        return found.map_or(Value::UNDEFINED, Value::from);
    }
    let length = value.len().unwrap_or(0);
    from_end(length).and_then(|index| value.get_item_by_index(index).ok()).unwrap_or_default()
}

/// `value[start:stop:step]`; a bound that is none was left out.
pub(crate) fn slice(value: &Value, bounds: [&Value; 3], meter: &dyn Meter) -> Result<Value> {
    let is_string = is_text(value);
    if !(is_string || is_list(value) || is_tuple(value) || is_range(value)) {
        return match value.kind() {
            ValueKind::Undefined => Err(undefined_error()),
            _ => Ok(Value::UNDEFINED),
        };
    }
    let [start, stop, step] = bounds;
    let step = bound(step)?.unwrap_or(1);
    if step == 0 {
        return Err(type_error("slice step cannot be zero"));
    }
    let (start, stop) = (bound(start)?, bound(stop)?);
    if let Some(text) = value.as_str() {
        meter.text(text.len())?;
        let chars: Vec<char> = text.chars().collect();
        let indices = slice_indices(start, stop, step, chars.len());
        return Ok(Value::from(indices.map(|index| chars[index]).collect::<String>()));
    }
    let length = value.len().unwrap_or(0);
    let mut picked = Vec::new();
    for index in slice_indices(start, stop, step, length) {
        meter.spend(1)?;
        picked.push(value.get_item_by_index(index).unwrap_or_default());
    }
    Ok(if is_tuple(value) { tuple(picked) } else { list(picked) })
}

fn bound(value: &Value) -> Result<Option<i128>> {
    if value.is_none() {
        return Ok(None);
    }
    match number(value) {
        Some(Num::Int(index)) => Ok(Some(index)),
        _ => Err(error_about(value, || "slice indices must be integers or None".into())),
    }
}

/// The positions that a slice picks out of `length`, all of which exist.
fn slice_indices(start: Option<i128>, stop: Option<i128>, step: i128, length: usize) -> impl Iterator<Item = usize> {
    let length = length as i128;
    let clamp = |index: i128| {
        let index = if index < 0 { index.saturating_add(length) } else { index };
        if step > 0 { index.clamp(0, length) } else { index.clamp(-1, length - 1) }
    };
    let (first, end) = if step > 0 {
        (start.map_or(0, clamp), stop.map_or(length, clamp))
    } else {
        (start.map_or(length - 1, clamp), stop.map_or(-1, clamp))
    };
    std::iter::successors(Some(first), move |index| index.checked_add(step))
        .take_while(move |index| if step > 0 { *index < end } else { *index > end })
        .filter_map(|index| usize::try_from(index).ok())
}
