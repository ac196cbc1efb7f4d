//! The functions that the translation calls in place of the engine's operators.

use indexmap::IndexMap;
use minijinja::value::{Rest, Value, ValueOrKwargs};
use minijinja::{Environment, State};

use super::error::limit_error;
use super::limits::MAX_ITEMS;
use super::methods;
use super::python::Result;
use super::python::arith::{binary, negative, positive};
use super::python::compare::compare;
use super::python::kinds::{int, is_dict, is_hashable, is_list, is_scalar, is_tuple, type_error, type_name};
use super::python::meter::Meter;
use super::python::objects::{Dict, Sequence, dict, entries, list, tuple};
use super::python::sequence::{item, slice};
use super::python::text::str_of;
use super::view::SignalsView;

const COMPARISONS: [(&str, &str); 8] = [
    ("eq", "=="),
    ("ne", "!="),
    ("lt", "<"),
    ("le", "<="),
    ("gt", ">"),
    ("ge", ">="),
    ("in", "in"),
    ("not_in", "not in"),
];

const ARITHMETIC: [(&str, &str); 7] = [
    ("add", "+"),
    ("sub", "-"),
    ("mul", "*"),
    ("div", "/"),
    ("floordiv", "//"),
    ("mod", "%"),
    ("pow", "**"),
];

/// Adds the operators to `env`.
pub(crate) fn register(env: &mut Environment<'static>) {
    for (name, operator) in COMPARISONS {
        env.add_filter(
            format!("__soe_{name}"),
            move |state: &mut State<'_, '_>, a: &Value, b: &Value| compare(operator, a, b, &*state).map(Value::from),
        );
    }
    for (name, operator) in ARITHMETIC {
        env.add_filter(
            format!("__soe_{name}"),
            move |state: &mut State<'_, '_>, a: &Value, b: &Value| binary(operator, a, b, &*state),
        );
    }
    env.add_filter("__soe_neg", negative);
    env.add_filter("__soe_pos", positive);
    env.add_filter("__soe_item", |state: &mut State<'_, '_>, value: &Value, key: &Value| {
        state.read(value)?;
        state.read(key)?;
        item(value, key)
    });
    env.add_filter(
        "__soe_slice",
        |state: &mut State<'_, '_>, value: &Value, start: &Value, stop: &Value, step: &Value| {
            slice(value, [start, stop, step], &*state)
        },
    );
    env.add_filter("__soe_chain", chain);
    env.add_filter("__soe_fold", fold);
    env.add_filter("__soe_cat", concat);
    env.add_filter("__soe_iter", iterable);
    env.add_filter(
        "__soe_list",
        |state: &mut State<'_, '_>, _: &Value, items: Rest<Value>| build(state, items.0, list),
    );
    env.add_filter(
        "__soe_tuple",
        |state: &mut State<'_, '_>, _: &Value, items: Rest<Value>| build(state, items.0, tuple),
    );
    env.add_filter(
        "__soe_dict",
        |state: &mut State<'_, '_>, _: &Value, items: Rest<Value>| mapping(state, &items),
    );
    env.add_filter("__soe_count_equal", count_equal);
    env.add_filter("__soe_own", own);
    env.add_filter("__soe_attribute", attribute);
    env.add_filter("__soe_call", method_call);
}

/// `a < b < c`: pairs of an operator and a value.
fn chain(state: &mut State<'_, '_>, first: &Value, rest: Rest<Value>) -> Result<bool> {
    let mut left = first;
    for pair in rest.chunks_exact(2) {
        if !compare(pair[0].as_str().unwrap_or_default(), left, &pair[1], &*state)? {
            return Ok(false);
        }
        left = &pair[1];
    }
    Ok(true)
}

/// `a + b - c`: pairs of an operator and a value.
fn fold(state: &mut State<'_, '_>, first: &Value, rest: Rest<Value>) -> Result<Value> {
    let mut total = first.clone();
    for pair in rest.chunks_exact(2) {
        total = binary(pair[0].as_str().unwrap_or_default(), &total, &pair[1], &*state)?;
    }
    Ok(total)
}

/// `a ~ b ~ c`
fn concat(state: &mut State<'_, '_>, first: &Value, rest: Rest<Value>) -> Result<Value> {
    let mut text = str_of(first, &*state)?.into_owned();
    for value in rest.iter() {
        text.push_str(&str_of(value, &*state)?);
        state.text(text.len())?;
    }
    Ok(Value::from(text))
}

/// What a loop runs over: like the engine, without its tolerance for none.
fn iterable(value: &Value) -> Result<Value> {
    if is_scalar(value) {
        return Err(type_error(format!("'{}' object is not iterable", type_name(value))));
    }
    Ok(value.clone())
}

fn build(state: &mut State<'_, '_>, items: Vec<Value>, make: fn(Vec<Value>) -> Value) -> Result<Value> {
    state.consume_fuel(items.len() as u64 + 1)?;
    items.iter().try_for_each(check_item)?;
    Ok(make(items))
}

/// A mapping of alternating keys and values.
fn mapping(state: &mut State<'_, '_>, items: &[Value]) -> Result<Value> {
    state.spend(items.len() as u64 + 1)?;
    let mut map = IndexMap::new();
    for pair in items.chunks_exact(2) {
        if !is_hashable(&pair[0]) {
            return Err(type_error(format!("unhashable type: '{}'", type_name(&pair[0]))));
        }
        check_item(&pair[1])?;
        state.read(&pair[0])?;
        map.insert(pair[0].clone(), pair[1].clone());
    }
    Ok(dict(map))
}

/// `list | select('equalto', item) | list | length`
fn count_equal(state: &mut State<'_, '_>, list: &Value, item: &Value) -> Result<Value> {
    if let Some(signals) = list.downcast_object_ref::<SignalsView>() {
        return Ok(int(signals.count(item) as i128));
    }
    let selected = state.apply_filter("select", &[list.clone(), Value::from("equalto"), item.clone()])?;
    let selected = state.apply_filter("list", &[selected])?;
    state.apply_filter("length", &[selected])
}

/// Namespaces can't be kept in containers: cycles and nesting without an end could be built with them.
pub(crate) fn check_item(value: &Value) -> Result<()> {
    if value
        .as_object()
        .is_some_and(|object| object.type_name().ends_with("Namespace"))
    {
        return Err(type_error("a namespace can't be kept in another value"));
    }
    Ok(())
}

fn attribute(value: &Value) -> Result<Value> {
    check_item(value)?;
    Ok(value.clone())
}

/// A list or mapping that can be changed in place: itself if the template made it, else a copy.
pub(crate) fn own(state: &mut State<'_, '_>, value: &Value) -> Result<Value> {
    let is_own = value.downcast_object_ref::<Sequence>().is_some() || value.downcast_object_ref::<Dict>().is_some();
    let size = value.len().unwrap_or(0);
    if is_own || is_tuple(value) || value.is_kwargs() || !(is_list(value) || is_plain_mapping(value)) {
        return Ok(value.clone());
    }
    if size > MAX_ITEMS {
        return Err(limit_error(format!("the value has more than {MAX_ITEMS} items")));
    }
    state.consume_fuel(size as u64)?;
    Ok(if is_list(value) {
        list(value.try_iter()?.collect())
    } else {
        dict(entries(value).collect())
    })
}

/// A mapping of data; namespaces and the like are mappings to the engine too.
fn is_plain_mapping(value: &Value) -> bool {
    is_dict(value) && check_item(value).is_ok()
}

fn method_call(state: &mut State<'_, '_>, value: &Value, name: &str, args: Rest<ValueOrKwargs>) -> Result<Value> {
    methods::call(state, value, name, &args.into_values())
}
