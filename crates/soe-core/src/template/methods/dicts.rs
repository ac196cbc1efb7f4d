//! Methods of mappings. Those that change a mapping do so with the template's own only, never with the context's.

use minijinja::State;
use minijinja::value::Value;

use super::super::globals::pairs;
use super::super::operators::own;
use super::super::python::Result;
use super::super::python::args::bind;
use super::super::python::kinds::{int, is_hashable, type_error, type_name};
use super::super::python::objects::{Dict, DictView, ViewKind, dict, entries, tuple};
use super::lists::{IN_PLACE, check_new_item};

pub(super) fn call(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value> {
    let view = match name {
        "keys" => ViewKind::Keys,
        "values" => ViewKind::Values,
        "items" => ViewKind::Items,
        "get" => return get(value, args),
        "copy" => {
            state.consume_fuel(value.len().unwrap_or(0) as u64)?;
            return Ok(dict(entries(value).collect()));
        }
        "__len__" => return Ok(int(value.len().unwrap_or(0) as i128)),
        _ => return change(state, value, name, args),
    };
    bind(name, &[], args)?;
    Ok(DictView::new(value, view))
}

fn get(value: &Value, args: &[Value]) -> Result<Value> {
    let args = bind("get", &["key", "default"], args)?;
    let key = args.required(0)?;
    check_key(key)?;
    let found = value.as_object().and_then(|object| object.get_value(key));
    Ok(found.or_else(|| args.get(1).cloned()).unwrap_or_else(|| Value::from(())))
}

fn check_key(key: &Value) -> Result<()> {
    if is_hashable(key) {
        return Ok(());
    }
    Err(type_error(format!("unhashable type: '{}'", type_name(key))))
}

fn change(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value> {
    if !matches!(name, "update" | "setdefault" | "pop" | "popitem" | "clear" | "__setitem__") {
        return Err(super::unknown());
    }
    let Some(map) = value.downcast_object_ref::<Dict>() else {
        // What these give is right for a copy too.
        let copy = if matches!(name, "pop" | "popitem" | "setdefault") { own(state, value)? } else { Value::UNDEFINED };
        return match copy.downcast_object_ref::<Dict>() {
            Some(_) => change(state, &copy, name, args),
            None => Err(type_error(IN_PLACE)),
        };
    };
    state.consume_fuel(2)?;
    let none = Value::from(());
    match name {
        "update" => {
            let new = pairs(state, args)?;
            for (_, item) in &new {
                check_new_item(state, value, item)?;
            }
            map.write().extend(new);
        }
        "setdefault" | "__setitem__" => {
            let args = bind(name, &["key", "default"], args)?;
            let key = args.required(0)?;
            check_key(key)?;
            let item = own(state, args.get(1).unwrap_or(&none))?;
            check_new_item(state, value, &item)?;
            if name == "setdefault" {
                return Ok(map.write().entry(key.clone()).or_insert(item).clone());
            }
            map.write().insert(key.clone(), item);
        }
        "pop" => {
            let args = bind(name, &["key", "default"], args)?;
            let key = args.required(0)?;
            check_key(key)?;
            state.consume_fuel(map.read().len() as u64 / 16)?;
            let removed = map.write().shift_remove(key);
            return removed.or_else(|| args.get(1).cloned()).ok_or_else(|| type_error(format!("KeyError: {key}")));
        }
        "popitem" => {
            let last = map.write().pop();
            let (key, item) = last.ok_or_else(|| type_error("popitem(): dictionary is empty"))?;
            return Ok(tuple(vec![key, item]));
        }
        _ => drop(std::mem::take(&mut *map.write())),
    }
    Ok(none)
}
