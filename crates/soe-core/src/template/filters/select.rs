//! Filters that apply filters and tests to items.

use minijinja::State;
use minijinja::value::{Kwargs, Value};

use super::Filter;
use super::attribute::Path;
use crate::template::python::Result;
use crate::template::python::args::{bind, split};
use crate::template::python::kinds::{is_dict, is_generator, type_error, undefined_error};
use crate::template::python::objects::{DictView, Group, ViewKind, generator};
use crate::template::python::sequence::items;
use crate::template::syntax::names::{FILTERS as FILTER_NAMES, OPERATOR_TESTS, TESTS};

pub(super) const FILTERS: &[(&str, Filter)] = &[
    ("map", map),
    ("select", select),
    ("reject", reject),
    ("selectattr", selectattr),
    ("rejectattr", rejectattr),
    ("items", pairs),
    ("attr", attr),
];

fn map(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    let label = "generator object sync_do_map at 0x7f0000000000";
    let mapped = if is_empty(value) { Ok(Vec::new()) } else { map_items(state, value, args) };
    lazily(label, mapped)
}

/// An empty value isn't looked at, whatever it is; arguments aren't either then.
fn is_empty(value: &Value) -> bool {
    !is_generator(value) && !value.is_true()
}

/// Python's generators fail when they are consumed, not when they are made.
fn lazily(label: &'static str, items: Result<Vec<Value>>) -> Result<Value> {
    match items {
        Ok(items) => Ok(generator(label, items)),
        Err(error) if error.kind() == minijinja::ErrorKind::OutOfFuel => Err(error),
        Err(error) => Ok(generator(label, vec![Value::from(error)])),
    }
}

fn map_items(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Vec<Value>> {
    let (positional, named) = split(args)?;
    if let (true, Some(named)) = (positional.is_empty(), named.as_ref().filter(|named| named.has("attribute"))) {
        return map_attribute(state, value, named);
    }
    let Some(name) = positional.first() else {
        return Err(type_error("map requires a filter argument"));
    };
    let name = name.as_str().filter(|name| FILTER_NAMES.contains(name));
    let name = name.ok_or_else(|| type_error(format!("No filter named '{}'.", positional[0])))?;
    let mut mapped = Vec::new();
    for item in items(value, &*state)? {
        mapped.push(state.apply_filter(name, &arguments(item, &positional[1..], named.as_ref()))?);
    }
    Ok(mapped)
}

fn arguments(item: Value, positional: &[Value], named: Option<&Kwargs>) -> Vec<Value> {
    let mut arguments = vec![item];
    arguments.extend_from_slice(positional);
    arguments.extend(named.cloned().map(Value::from));
    arguments
}

fn map_attribute(state: &State<'_, '_>, value: &Value, named: &Kwargs) -> Result<Vec<Value>> {
    if let Some(other) = named.args().find(|name| !matches!(*name, "attribute" | "default")) {
        return Err(type_error(format!("Unexpected keyword argument '{other}'")));
    }
    let attribute: Value = named.get("attribute")?;
    let default = named.get::<Option<Value>>("default")?.filter(|default| !default.is_none());
    let path = Path::of(Some(&attribute).filter(|attribute| !attribute.is_none()));
    items(value, state)?.iter().map(|item| path.get(item, default.as_ref())).collect()
}

fn select(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    filtered(state, value, args, true, false)
}

fn reject(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    filtered(state, value, args, false, false)
}

fn selectattr(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    filtered(state, value, args, true, true)
}

fn rejectattr(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    filtered(state, value, args, false, true)
}

fn filtered(state: &mut State<'_, '_>, value: &Value, args: &[Value], wanted: bool, by_attribute: bool) -> Result<Value> {
    let label = "generator object select_or_reject at 0x7f0000000000";
    let kept = if is_empty(value) { Ok(Vec::new()) } else { filter_items(state, value, args, wanted, by_attribute) };
    lazily(label, kept)
}

fn filter_items(state: &mut State<'_, '_>, value: &Value, args: &[Value], wanted: bool, by_attribute: bool) -> Result<Vec<Value>> {
    let (mut positional, named) = split(args)?;
    let mut path = Path::of(None);
    if by_attribute {
        let (attribute, rest) = positional.split_first().ok_or_else(|| type_error("Missing parameter for attribute name"))?;
        path = Path::of(Some(attribute));
        positional = rest;
    }
    let test = match positional.first() {
        Some(name) => {
            let known = name.as_str().filter(|name| TESTS.contains(name) || OPERATOR_TESTS.contains(name));
            Some(known.ok_or_else(|| type_error(format!("No test named '{name}'.")))?)
        }
        None => None,
    };
    let mut kept = Vec::new();
    for item in items(value, &*state)? {
        let tested = path.get(&item, None)?;
        let passes = match test {
            Some(test) => state.perform_test(test, &arguments(tested, &positional[1..], named.as_ref()))?,
            None => tested.is_true(),
        };
        if passes == wanted {
            kept.push(item);
        }
    }
    Ok(kept)
}

fn pairs(_: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    bind("items", &[], args)?;
    let label = "generator object do_items at 0x7f0000000000";
    if value.is_undefined() {
        return Ok(generator(label, Vec::new()));
    }
    if !is_dict(value) {
        return lazily(label, Err(type_error("Can only get item pairs from a mapping.")));
    }
    let view = DictView {
        dict: value.clone(),
        kind: ViewKind::Items,
    };
    Ok(generator(label, view.items()))
}

/// Attributes proper, not items: data has none.
fn attr(_: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    let args = bind("attr", &["name"], args)?;
    if value.is_undefined() {
        return Err(undefined_error());
    }
    let name = args.required(0)?.as_str();
    Ok(match (value.downcast_object_ref::<Group>(), name) {
        (Some(group), Some("grouper")) => group.grouper.clone(),
        (Some(group), Some("list")) => group.list.clone(),
        _ => Value::UNDEFINED,
    })
}
