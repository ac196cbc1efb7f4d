//! Filters that compare: sorting, extremes, groups, duplicates.

use std::collections::HashSet;

use minijinja::State;
use minijinja::value::Value;

use super::Filter;
use super::attribute::Path;
use crate::template::python::Result;
use crate::template::python::args::bind;
use crate::template::python::compare::{compare, equal, sort_by_keys};
use crate::template::python::kinds::{Num, error_about, int, is_dict, is_hashable, number, type_error, type_name};
use crate::template::python::meter::Meter;
use crate::template::python::objects::{Group, entries, generator, list, tuple};
use crate::template::python::sequence::items;

pub(super) const FILTERS: &[(&str, Filter)] = &[
    ("sort", sort),
    ("dictsort", dictsort),
    ("min", min),
    ("max", max),
    ("groupby", groupby),
    ("unique", unique),
];

fn sort(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    let args = bind("sort", &["reverse", "case_sensitive", "attribute"], args)?;
    let case_sensitive = args.flag(1);
    let paths: Vec<Path> = match args.some(2).map(|attribute| (attribute, attribute.as_str())) {
        None => vec![Path::of(None)],
        Some((_, Some(names))) => names
            .split(',')
            .map(|name| Path::of(Some(&Value::from(name))))
            .collect(),
        Some((other, None)) => vec![Path::of(Some(other))],
    };
    let mut keyed = Vec::new();
    for item in items(value, &*state)? {
        let keys = paths
            .iter()
            .map(|path| path.get(&item, None).map(|key| folded(key, case_sensitive)));
        keyed.push((keys.collect::<Result<Vec<_>>>()?, item));
    }
    sort_by_keys(&mut keyed, args.flag(0), &*state)?;
    Ok(list(keyed.into_iter().map(|(_, item)| item).collect()))
}

/// Text in lower case, unless case matters.
fn folded(value: Value, case_sensitive: bool) -> Value {
    match value.as_str() {
        Some(text) if !case_sensitive => Value::from(text.to_lowercase()),
        _ => value,
    }
}

fn dictsort(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    let args = bind("dictsort", &["case_sensitive", "by", "reverse"], args)?;
    let by = args.text(1, "key", state)?;
    if by != "key" && by != "value" {
        return Err(type_error("You can only sort by either \"key\" or \"value\""));
    }
    if !is_dict(value) {
        return Err(error_about(value, || {
            format!("'{}' object has no attribute 'items'", type_name(value))
        }));
    }
    let mut keyed = Vec::new();
    for (key, item) in entries(value) {
        state.consume_fuel(1)?;
        let by = if by == "key" { key.clone() } else { item.clone() };
        keyed.push((vec![folded(by, args.flag(0))], tuple(vec![key, item])));
    }
    sort_by_keys(&mut keyed, args.flag(2), &*state)?;
    Ok(list(keyed.into_iter().map(|(_, item)| item).collect()))
}

fn min(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    extreme("<", state, value, args)
}

fn max(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    extreme(">", state, value, args)
}

fn extreme(operator: &str, state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    let args = bind("min/max", &["case_sensitive", "attribute"], args)?;
    let path = Path::of(args.some(1));
    let mut best: Option<(Value, Value)> = None;
    for item in items(value, &*state)? {
        let key = folded(path.get(&item, None)?, args.flag(0));
        match &best {
            Some((best_key, _)) if !compare(operator, &key, best_key, &*state)? => {}
            _ => best = Some((key, item)),
        }
    }
    Ok(best.map_or(Value::UNDEFINED, |(_, item)| item))
}

fn groupby(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    let args = bind("groupby", &["attribute", "default", "case_sensitive"], args)?;
    let path = Path::of(Some(args.required(0)?));
    let (default, case_sensitive) = (args.some(1), args.flag(2));
    let mut keyed = Vec::new();
    for item in items(value, &*state)? {
        keyed.push((vec![folded(path.get(&item, default)?, case_sensitive)], item));
    }
    sort_by_keys(&mut keyed, false, &*state)?;
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for (mut keys, item) in keyed {
        let key = keys.pop().unwrap_or_default();
        match groups.last_mut() {
            Some((last, group)) if equal(last, &key, &*state)? => group.push(item),
            _ => groups.push((key, vec![item])),
        }
    }
    let mut named = Vec::new();
    for (key, group) in groups {
        // The group is named as its first item writes the key.
        let grouper = match group.first() {
            Some(first) if !case_sensitive => path.get(first, default)?,
            _ => key,
        };
        named.push(Value::from_object(Group {
            grouper,
            list: list(group),
        }));
    }
    Ok(list(named))
}

fn unique(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    let args = bind("unique", &["case_sensitive", "attribute"], args)?;
    let path = Path::of(args.some(1));
    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    for item in items(value, &*state)? {
        let key = folded(path.get(&item, None)?, args.flag(0));
        if !is_hashable(&key) {
            return Err(type_error(format!("unhashable type: '{}'", type_name(&key))));
        }
        state.read(&key)?;
        if seen.insert(set_key(key)) {
            kept.push(item);
        }
    }
    Ok(generator("generator object sync_do_unique at 0x7f0000000000", kept))
}

/// Equal numbers are one element of a set: `1`, `1.0` and `true`.
fn set_key(key: Value) -> Value {
    match number(&key) {
        Some(Num::Int(number)) => int(number),
        Some(Num::Float(number)) if number.fract() == 0.0 && number.abs() < 1e18 => int(number as i128),
        _ => key,
    }
}
