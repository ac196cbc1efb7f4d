//! `pprint`: `repr`, with what is wider than 80 characters broken into lines, and mappings sorted.

use minijinja::State;
use minijinja::value::Value;

use super::Filter;
use crate::template::error::limit_error;
use crate::template::limits::MAX_VALUE_DEPTH;
use crate::template::python::Result;
use crate::template::python::args::bind;
use crate::template::python::compare::sort_by_keys;
use crate::template::python::kinds::{is_dict, is_list, is_tuple};
use crate::template::python::meter::Meter;
use crate::template::python::objects::{dict, entries, list, tuple};
use crate::template::python::sequence::items;
use crate::template::python::text::repr_of;

pub(super) const FILTERS: &[(&str, Filter)] = &[("pprint", pprint)];

const WIDTH: usize = 80;

fn pprint(state: &mut State<'_, '_>, value: &Value, args: &[Value]) -> Result<Value> {
    bind("pprint", &["verbose"], args)?;
    let mut printer = Printer {
        out: String::new(),
        state,
    };
    let value = sorted(value, printer.state, 0)?;
    printer.value(&value, 0, 0)?;
    Ok(Value::from(printer.out))
}

/// A copy whose mappings are sorted by key.
fn sorted(value: &Value, state: &State<'_, '_>, depth: usize) -> Result<Value> {
    if depth > MAX_VALUE_DEPTH {
        return Err(limit_error(format!("the value nests deeper than {MAX_VALUE_DEPTH} levels")));
    }
    if is_dict(value) {
        let mut keyed: Vec<_> = entries(value).map(|(key, item)| (vec![key], item)).collect();
        // Keys that can't be compared keep their order.
        if let Err(error) = sort_by_keys(&mut keyed, false, state)
            && error.kind() == minijinja::ErrorKind::OutOfFuel
        {
            return Err(error);
        }
        let copied = keyed.into_iter().filter_map(|(mut keys, item)| {
            let key = keys.pop()?;
            Some(sorted(&item, state, depth + 1).map(|item| (key, item)))
        });
        return Ok(dict(copied.collect::<Result<_>>()?));
    }
    if is_list(value) || is_tuple(value) {
        let copied = items(value, state)?.iter().map(|item| sorted(item, state, depth + 1)).collect::<Result<_>>()?;
        return Ok(if is_tuple(value) { tuple(copied) } else { list(copied) });
    }
    Ok(value.clone())
}

struct Printer<'a, 's> {
    out: String,
    state: &'a State<'s, 's>,
}

impl Printer<'_, '_> {
    /// Prints `value`, which starts at column `indent` and is followed by `allowance` closing characters.
    fn value(&mut self, value: &Value, indent: usize, allowance: usize) -> Result<()> {
        let repr = repr_of(value, self.state)?;
        let breaks = is_dict(value) || is_list(value) || is_tuple(value);
        if !breaks || repr.chars().count() + indent + allowance <= WIDTH {
            self.out.push_str(&repr);
            return Ok(());
        }
        if is_dict(value) {
            return self.dict(value, indent, allowance);
        }
        let is_tuple = is_tuple(value);
        let all = items(value, self.state)?;
        self.out.push(if is_tuple { '(' } else { '[' });
        for (index, item) in all.iter().enumerate() {
            self.separate(index, indent)?;
            let last = index + 1 == all.len();
            self.value(item, indent + 1, if last { allowance + 1 } else { 1 })?;
        }
        self.out.push_str(if is_tuple && all.len() == 1 { "," } else { "" });
        self.out.push(if is_tuple { ')' } else { ']' });
        Ok(())
    }

    fn dict(&mut self, value: &Value, indent: usize, allowance: usize) -> Result<()> {
        let all: Vec<_> = entries(value).collect();
        self.out.push('{');
        for (index, (key, item)) in all.iter().enumerate() {
            self.separate(index, indent)?;
            let key = repr_of(key, self.state)?;
            let column = indent + 1 + key.chars().count() + 2;
            self.out.extend([&key, ": "]);
            let last = index + 1 == all.len();
            self.value(item, column, if last { allowance + 1 } else { 1 })?;
        }
        self.out.push('}');
        Ok(())
    }

    fn separate(&mut self, index: usize, indent: usize) -> Result<()> {
        if index > 0 {
            self.state.text(indent)?;
            self.out.push_str(",\n");
            self.out.push_str(&" ".repeat(indent + 1));
        }
        Ok(())
    }
}
