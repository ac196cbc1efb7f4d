//! Filters on sequences.

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::State;
use minijinja::value::{Value, ValueKind};

use super::Filter;
use super::attribute::Path;
use crate::template::error::limit_error;
use crate::template::limits::MAX_ITEMS;
use crate::template::python::Result;
use crate::template::python::args::bind;
use crate::template::python::arith::binary;
use crate::template::python::kinds::{Num, int, is_generator, is_scalar, is_text, number, type_error, type_name};
use crate::template::python::meter::Meter;
use crate::template::python::objects::{Generator, generator, list};
use crate::template::python::sequence::{items, length};
use crate::template::python::text::str_of;

pub(super) const FILTERS: &[(&str, Filter)] = &[
    ("length", count),
    ("count", count),
    ("first", first),
    ("last", last),
    ("list", to_list),
    ("join", join),
    ("reverse", reverse),
    ("sum", sum),
    ("batch", batch),
    ("slice", slices),
    ("random", random),
    ("default", default),
    ("d", default),
];

fn count(_: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    bind("length", &[], args)?;
    Ok(int(length(value)? as i128))
}

fn first(_: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    bind("first", &[], args)?;
    if let Some(generator) = value.downcast_object_ref::<Generator>() {
        return generator.take_first().map_or(Ok(Value::UNDEFINED), checked);
    }
    if is_scalar(value) {
        return Err(type_error(format!("'{}' object is not iterable", type_name(value))));
    }
    Ok(value.try_iter()?.next().unwrap_or_default())
}

/// The engine carries an error in a sequence as a value.
fn checked(value: Value) -> Result<Value> {
    list(vec![value]).try_iter()?.checked().next().unwrap_or(Ok(Value::UNDEFINED))
}

fn last(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    bind("last", &[], args)?;
    if is_generator(value) || is_scalar(value) {
        return Err(type_error(format!("'{}' object is not reversible", type_name(value))));
    }
    if value.kind() == ValueKind::Seq
        && let Some(length) = value.len()
    {
        return Ok(length.checked_sub(1).and_then(|index| value.get_item_by_index(index).ok()).unwrap_or_default());
    }
    Ok(items(value, &*state)?.pop().unwrap_or_default())
}

fn to_list(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    bind("list", &[], args)?;
    items(value, &*state).map(list)
}

fn join(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    let args = bind("join", &["d", "attribute"], args)?;
    let separator = args.text(0, "", state)?;
    let path = Path::of(args.some(1));
    let mut text = String::new();
    for (index, item) in items(value, &*state)?.iter().enumerate() {
        if index > 0 {
            text.push_str(&separator);
        }
        text.push_str(&str_of(&path.get(item, None)?, &*state)?);
        state.spend((separator.len() / 32) as u64)?;
        if text.len() > crate::template::limits::MAX_TEXT {
            break;
        }
    }
    state.text(text.len())?;
    Ok(Value::from(text))
}

fn reverse(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    bind("reverse", &[], args)?;
    if let Some(text) = value.as_str() {
        state.text(text.len())?;
        return Ok(Value::from(text.chars().rev().collect::<String>()));
    }
    let mut all = items(value, &*state)?;
    all.reverse();
    Ok(if is_generator(value) { list(all) } else { generator("list_reverseiterator", all) })
}

fn sum(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    let args = bind("sum", &["attribute", "start"], args)?;
    let path = Path::of(args.some(0));
    let mut total = args.get(1).cloned().unwrap_or_else(|| Value::from(0));
    if is_text(&total) {
        return Err(type_error("sum() can't sum strings [use ''.join(seq) instead]"));
    }
    for item in items(value, &*state)? {
        total = binary("+", &total, &path.get(&item, None)?, &*state)?;
    }
    Ok(total)
}

fn batch(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    let args = bind("batch", &["linecount", "fill_with"], args)?;
    let size = number(args.required(0)?).map_or(f64::NAN, Num::as_f64);
    let mut batches = Vec::new();
    let mut current = Vec::new();
    for item in items(value, &*state)? {
        if current.len() as f64 == size {
            batches.push(list(std::mem::take(&mut current)));
        }
        current.push(item);
    }
    if !current.is_empty() {
        if let Some(fill) = args.some(1) {
            let wanted = size.max(0.0) as usize;
            check_count(wanted)?;
            state.spend(wanted as u64)?;
            current.resize(wanted.max(current.len()), fill.clone());
        }
        batches.push(list(current));
    }
    Ok(generator("generator object do_batch at 0x7f0000000000", batches))
}

fn slices(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    let args = bind("slice", &["slices", "fill_with"], args)?;
    args.required(0)?;
    let count = usize::try_from(args.int(0, 0)?.max(0)).unwrap_or(usize::MAX);
    if count == 0 {
        return Err(type_error("integer division or modulo by zero"));
    }
    check_count(count)?;
    state.spend(count as u64)?;
    let all = items(value, &*state)?;
    let (each, longer) = (all.len() / count, all.len() % count);
    let mut rest = all.into_iter();
    let mut columns = Vec::new();
    for index in 0..count {
        let mut column: Vec<_> = rest.by_ref().take(each + usize::from(index < longer)).collect();
        if let (Some(fill), true) = (args.some(1), index >= longer) {
            column.push(fill.clone());
        }
        columns.push(list(column));
    }
    Ok(generator("generator object sync_do_slice at 0x7f0000000000", columns))
}

fn check_count(count: usize) -> Result<()> {
    if count > MAX_ITEMS {
        return Err(limit_error(format!("the sequence would have more than {MAX_ITEMS} items")));
    }
    Ok(())
}

fn random(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    bind("random", &[], args)?;
    let count = length(value)?;
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let picked = (nanos as usize).checked_rem(count).unwrap_or(0);
    Ok(items(value, &*state)?.into_iter().nth(picked).unwrap_or_default())
}

fn default(_: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    let args = bind("default", &["default_value", "boolean"], args)?;
    if value.is_undefined() || (args.flag(1) && !value.is_true()) {
        return Ok(args.get(0).cloned().unwrap_or_else(|| Value::from("")));
    }
    Ok(value.clone())
}
