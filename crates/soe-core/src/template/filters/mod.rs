//! The filters of Jinja2.

mod attribute;
mod html;
mod json;
mod numbers;
mod order;
mod pprint;
mod select;
mod sequences;
pub(crate) mod text;
mod wrap;

use minijinja::value::{Rest, Value, ValueOrKwargs};
use minijinja::{Environment, State};

use super::python::Result;
use super::python::meter::Meter;

/// A filter: the value, and the arguments.
type Filter = fn(&mut State<'_, '_>, &Value, &[Value]) -> Result<Value>;

/// Adds the filters to `env`, and takes away those that Jinja2 doesn't have.
pub(crate) fn register(env: &mut Environment<'static>) {
    for name in ["bool", "chain", "lines", "split", "zip"] {
        env.remove_filter(name);
    }
    let groups = [
        text::FILTERS,
        html::FILTERS,
        numbers::FILTERS,
        sequences::FILTERS,
        order::FILTERS,
        select::FILTERS,
        json::FILTERS,
        pprint::FILTERS,
        wrap::FILTERS,
    ];
    for (name, filter) in groups.into_iter().flatten() {
        // Only whether there is a value matters to these.
        let reads = !matches!(*name, "default" | "d");
        env.add_filter(*name, move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
            let args = args.into_values();
            match args.split_first() {
                Some((value, rest)) => {
                    if reads {
                        state.read(value)?;
                    }
                    filter(state, value, rest)
                }
                None => filter(state, &Value::UNDEFINED, &[]),
            }
        });
    }
}
