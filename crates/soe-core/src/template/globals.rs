//! The functions that templates can call.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use indexmap::IndexMap;
use minijinja::value::{Kwargs, Object, ObjectRepr, Rest, Value, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State};

use super::operators::{check_item, own};
use super::python::Result;
use super::python::args::split;
use super::python::kinds::{is_dict, is_hashable, type_error, type_name};
use super::python::objects::{Range, dict, entries};
use super::python::sequence::items;

/// Adds the functions to `env`.
pub(crate) fn register(env: &mut Environment<'static>) {
    env.remove_global("debug");
    env.add_function("range", range);
    env.add_function("dict", make_dict);
    env.add_function("cycler", cycler);
    env.add_function("joiner", minijinja_contrib::globals::joiner);
    env.add_function("lipsum", |_: Rest<ValueOrKwargs>| LIPSUM);
    let namespace = env.globals().find(|(name, _)| *name == "namespace").map(|(_, function)| function);
    if let Some(make) = namespace {
        env.add_function("namespace", move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
            let args = args.into_values().into_iter().map(|arg| namespace_argument(state, arg));
            let args = args.collect::<Result<Vec<_>>>()?;
            make.call(state, &args)
        });
    }
}

/// `cycler(...)`: gives its items in turn.
#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    next: AtomicUsize,
}

fn cycler(items: Rest<Value>) -> Result<Value> {
    if items.is_empty() {
        return Err(type_error("at least one item has to be provided"));
    }
    let next = AtomicUsize::new(0);
    Ok(Value::from_object(Cycler { items: items.0, next }))
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let current = self.next.load(Ordering::Relaxed) % self.items.len();
        (key.as_str() == Some("current")).then(|| self.items[current].clone())
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, name: &str, _: &[Value]) -> Result<Value> {
        match name {
            "next" => Ok(self.items[self.next.fetch_add(1, Ordering::Relaxed) % self.items.len()].clone()),
            "reset" => {
                self.next.store(0, Ordering::Relaxed);
                Ok(Value::from(()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

const LIPSUM: &str = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore.";

fn range(start: i64, stop: Option<i64>, step: Option<i64>) -> Result<Value> {
    let (start, stop) = stop.map_or((0, start), |stop| (start, stop));
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(type_error("range() arg 3 must not be zero"));
    }
    Ok(Value::from_object(Range {
        start: i128::from(start),
        stop: i128::from(stop),
        step: i128::from(step),
    }))
}

fn make_dict(state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>) -> Result<Value> {
    let args = args.into_values();
    let mut map = IndexMap::new();
    for (key, value) in pairs(state, &args)? {
        map.insert(key, value);
    }
    Ok(dict(map))
}

/// The entries that `dict(...)` and `.update(...)` are given.
pub(crate) fn pairs(state: &State<'_, '_>, args: &[Value]) -> Result<Vec<(Value, Value)>> {
    let (positional, named) = split(args)?;
    let mut found = Vec::new();
    match positional {
        [] => {}
        [mapping] if is_dict(mapping) => found.extend(entries(mapping)),
        [sequence] => {
            for pair in items(sequence, state)? {
                match &items(&pair, state)?[..] {
                    [key, value] => found.push((key.clone(), value.clone())),
                    other => {
                        let message = format!("dictionary update sequence element has length {}; 2 is required", other.len());
                        return Err(type_error(message));
                    }
                }
            }
        }
        _ => return Err(type_error("expected at most 1 argument")),
    }
    for name in named.iter().flat_map(Kwargs::args) {
        let value = named.as_ref().map(|named| named.get::<Value>(name)).transpose()?;
        found.push((Value::from(name), value.unwrap_or_default()));
    }
    state.consume_fuel(found.len() as u64)?;
    for (key, value) in &found {
        if !is_hashable(key) {
            return Err(type_error(format!("unhashable type: '{}'", type_name(key))));
        }
        check_item(value)?;
    }
    Ok(found)
}

/// What a namespace is given becomes the template's own, so that it can be changed in place.
fn namespace_argument(state: &mut State<'_, '_>, arg: Value) -> Result<Value> {
    if !arg.is_kwargs() {
        check_item(&arg)?;
        return Ok(arg);
    }
    let named = Kwargs::try_from(arg)?;
    let mut owned = Vec::new();
    for name in named.args() {
        let value = named.get::<Value>(name)?;
        check_item(&value)?;
        owned.push((name.to_owned(), own(state, &value)?));
    }
    Ok(Value::from(owned.into_iter().collect::<Kwargs>()))
}
