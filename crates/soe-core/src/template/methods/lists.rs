//! Methods of lists and tuples. Those that change a list do so with the template's own only, never with the context's.

use minijinja::State;
use minijinja::value::Value;

use super::super::error::limit_error;
use super::super::limits::{MAX_ITEMS, MAX_VALUE_DEPTH};
use super::super::operators::{check_item, own};
use super::super::python::Result;
use super::super::python::args::{Bound, bind};
use super::super::python::compare::{equal, sort_by_keys};
use super::super::python::kinds::{int, is_dict, is_range, is_tuple, type_error};
use super::super::python::objects::{Sequence, entries, list};
use super::super::python::sequence::{items, length};
use super::super::view::{SignalsView, is_same_object};

/// Why the context's own lists and mappings refuse.
pub(super) const IN_PLACE: &str = "the context's data can't be changed in place: {% set %} a variable to it first";

pub(super) fn call(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value> {
    match name {
        "count" => {
            let args = bind(name, &["value"], args)?;
            count(state, value, args.required(0)?)
        }
        "index" => {
            let args = bind(name, &["value", "start"], args)?;
            let start = usize::try_from(args.int(1, 0)?).unwrap_or(0);
            position(state, &items(value, &*state)?, start, args.required(0)?).and_then(|at| {
                at.map(|at| int(at as i128))
                    .ok_or_else(|| type_error("the value is not in the list"))
            })
        }
        "__len__" => Ok(int(length(value)? as i128)),
        "copy" if !is_tuple(value) && !is_range(value) => items(value, &*state).map(list),
        "append" | "extend" | "insert" | "pop" | "remove" | "clear" | "sort" | "reverse"
            if !is_tuple(value) && !is_range(value) =>
        {
            change(state, value, name, args)
        }
        _ => Err(super::unknown()),
    }
}

fn count(state: &State<'_, '_>, value: &Value, wanted: &Value) -> Result<Value> {
    if let Some(signals) = value.downcast_object_ref::<SignalsView>() {
        return Ok(int(signals.count(wanted) as i128));
    }
    let mut found = 0;
    for item in value.try_iter()?.checked() {
        state.consume_fuel(1)?;
        found += i128::from(equal(&item?, wanted, state)?);
    }
    Ok(int(found))
}

fn position(state: &State<'_, '_>, all: &[Value], start: usize, wanted: &Value) -> Result<Option<usize>> {
    for (at, item) in all.iter().enumerate().skip(start) {
        state.consume_fuel(1)?;
        if equal(item, wanted, state)? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

fn change(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value> {
    let Some(sequence) = value.downcast_object_ref::<Sequence>() else {
        // What these give is right for a copy too.
        let copy = if matches!(name, "pop") {
            own(state, value)?
        } else {
            Value::UNDEFINED
        };
        return match copy.downcast_object_ref::<Sequence>() {
            Some(_) => change(state, &copy, name, args),
            None => Err(type_error(IN_PLACE)),
        };
    };
    state.consume_fuel(1)?;
    if sequence.read().len() >= MAX_ITEMS {
        return Err(limit_error(format!("a list has at most {MAX_ITEMS} items")));
    }
    match name {
        "append" => {
            let args = bind(name, &["object"], args)?;
            let item = args.required(0)?;
            check_new_item(state, value, item)?;
            sequence.write().push(item.clone());
        }
        "extend" => {
            let new = items(bind(name, &["iterable"], args)?.required(0)?, &*state)?;
            for item in &new {
                check_new_item(state, value, item)?;
            }
            if sequence.read().len() + new.len() > MAX_ITEMS {
                return Err(limit_error(format!("a list has at most {MAX_ITEMS} items")));
            }
            sequence.write().extend(new);
        }
        "insert" => {
            let args = bind(name, &["index", "object"], args)?;
            let item = args.required(1)?;
            check_new_item(state, value, item)?;
            state.consume_fuel(sequence.read().len() as u64 / 16)?;
            let index = args.int(0, 0)?;
            let mut all = sequence.write();
            let index = from_end(index, all.len()).clamp(0, all.len() as i128);
            all.insert(usize::try_from(index).unwrap_or(0), item.clone());
        }
        "pop" => return pop(state, sequence, &bind(name, &["index"], args)?),
        "remove" => {
            let args = bind(name, &["value"], args)?;
            let all = sequence.read().clone();
            let at = position(state, &all, 0, args.required(0)?)?;
            let at = at.ok_or_else(|| type_error("list.remove(x): x not in list"))?;
            sequence.write().remove(at);
        }
        "clear" => drop(std::mem::take(&mut *sequence.write())),
        "reverse" => sequence.write().reverse(),
        _ => sort(state, sequence, &bind(name, &["key", "reverse"], args)?)?,
    }
    Ok(Value::from(()))
}

fn from_end(index: i128, length: usize) -> i128 {
    if index < 0 { index + length as i128 } else { index }
}

fn pop(state: &State<'_, '_>, sequence: &Sequence, args: &Bound) -> Result<Value> {
    state.consume_fuel(sequence.read().len() as u64 / 16)?;
    let index = args.int(0, -1)?;
    let mut all = sequence.write();
    let index = usize::try_from(from_end(index, all.len()))
        .ok()
        .filter(|index| *index < all.len());
    index
        .map(|index| all.remove(index))
        .ok_or_else(|| type_error("pop index out of range"))
}

fn sort(state: &State<'_, '_>, sequence: &Sequence, args: &Bound) -> Result<()> {
    if args.some(0).is_some() {
        return Err(type_error(
            "sort() has no 'key' here: use the filter 'sort' with an attribute",
        ));
    }
    let mut keyed: Vec<_> = sequence
        .read()
        .iter()
        .map(|item| (vec![item.clone()], item.clone()))
        .collect();
    sort_by_keys(&mut keyed, args.flag(1), state)?;
    *sequence.write() = keyed.into_iter().map(|(_, item)| item).collect();
    Ok(())
}

/// Refuses what can't be kept in `container`: namespaces, and whatever contains the container itself.
pub(super) fn check_new_item(state: &State<'_, '_>, container: &Value, item: &Value) -> Result<()> {
    fn check(state: &State<'_, '_>, container: &Value, item: &Value, depth: usize) -> Result<()> {
        state.consume_fuel(1)?;
        if is_same_object(container, item) {
            return Err(type_error("a value can't contain itself"));
        }
        if depth > MAX_VALUE_DEPTH {
            return Err(limit_error(format!(
                "the value nests deeper than {MAX_VALUE_DEPTH} levels"
            )));
        }
        if let Some(sequence) = item.downcast_object_ref::<Sequence>() {
            let inner = sequence.read().clone();
            return inner
                .iter()
                .filter(|item| item.as_object().is_some())
                .try_for_each(|item| check(state, container, item, depth + 1));
        }
        if is_dict(item)
            && item
                .downcast_object_ref::<super::super::python::objects::Dict>()
                .is_some()
        {
            return entries(item).try_for_each(|(_, item)| check(state, container, &item, depth + 1));
        }
        Ok(())
    }
    check_item(item)?;
    check(state, container, item, 0)
}
