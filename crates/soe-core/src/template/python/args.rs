//! Binding the arguments of a call to parameters, as Python does.

use minijinja::State;
use minijinja::value::{Kwargs, Value};

use super::Result;
use super::kinds::{expect_int, type_error};
use super::meter::Meter;
use super::text::str_of;
use crate::template::error::limit_error;
use crate::template::limits::MAX_WIDTH;

/// The arguments of a call, by the position of their parameter.
pub(crate) struct Bound {
    values: Vec<Option<Value>>,
    names: &'static [&'static str],
}

/// The positional arguments, and the named ones.
pub(crate) fn split(args: &[Value]) -> Result<(&[Value], Option<Kwargs>)> {
    match args.split_last() {
        Some((last, rest)) if last.is_kwargs() => Ok((rest, Some(Kwargs::try_from(last.clone())?))),
        _ => Ok((args, None)),
    }
}

/// Binds `args` to the parameters `names`; all are optional as far as this is concerned.
pub(crate) fn bind(function: &str, names: &'static [&'static str], args: &[Value]) -> Result<Bound> {
    if args.is_empty() {
        return Ok(Bound { values: Vec::new(), names });
    }
    let (positional, named) = split(args)?;
    if positional.len() > names.len() {
        let (most, given) = (names.len(), positional.len());
        return Err(type_error(format!("{function}() takes at most {most} arguments ({given} given)")));
    }
    let mut values: Vec<Option<Value>> = positional.iter().cloned().map(Some).collect();
    values.resize(names.len(), None);
    for name in named.iter().flat_map(Kwargs::args) {
        match names.iter().position(|known| *known == name) {
            Some(index) if values[index].is_none() => {
                values[index] = named.as_ref().map(|named| named.get::<Value>(name)).transpose()?;
            }
            Some(_) => return Err(type_error(format!("{function}() got multiple values for argument '{name}'"))),
            None => return Err(type_error(format!("{function}() got an unexpected keyword argument '{name}'"))),
        }
    }
    Ok(Bound { values, names })
}

impl Bound {
    /// The argument at `index`, if it was given.
    pub(crate) fn get(&self, index: usize) -> Option<&Value> {
        self.values.get(index).and_then(Option::as_ref)
    }

    /// The argument at `index`, if it was given and isn't none.
    pub(crate) fn some(&self, index: usize) -> Option<&Value> {
        self.get(index).filter(|value| !value.is_none())
    }

    /// The argument at `index`, which must be given.
    pub(crate) fn required(&self, index: usize) -> Result<&Value> {
        self.get(index).ok_or_else(|| {
            let name = self.names.get(index).copied().unwrap_or("?");
            type_error(format!("missing 1 required positional argument: '{name}'"))
        })
    }

    /// Whether the argument at `index` was given and is true.
    pub(crate) fn flag(&self, index: usize) -> bool {
        self.get(index).is_some_and(Value::is_true)
    }

    /// The integer at `index`.
    pub(crate) fn int(&self, index: usize, default: i128) -> Result<i128> {
        self.get(index).map_or(Ok(default), expect_int)
    }

    /// The width at `index`, bounded.
    pub(crate) fn width(&self, index: usize, default: i128) -> Result<usize> {
        match usize::try_from(self.int(index, default)?.max(0)) {
            Ok(width) if width <= MAX_WIDTH => Ok(width),
            _ => Err(limit_error(format!("a width is at most {MAX_WIDTH}"))),
        }
    }

    /// The argument at `index` as text.
    pub(crate) fn text(&self, index: usize, default: &str, state: &State<'_, '_>) -> Result<String> {
        self.get(index)
            .map_or_else(|| Ok(default.to_owned()), |value| str_of(value, state as &dyn Meter).map(|text| text.into_owned()))
    }
}
