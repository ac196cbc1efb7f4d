//! From the engine's values to the execution's data.

use minijinja::value::{Value, ValueKind};
use soe_backends::{Map, Value as Data};

use super::error::limit_error;
use super::limits::MAX_VALUE_DEPTH;
use super::python::Result;
use super::python::kinds::{Num, number, type_error, type_name};
use super::python::meter::Meter;
use super::python::objects::entries;
use super::python::text::str_of;
use super::view::{HistoryView, ListView, MapView};

/// The data that `value` is. Something undefined is null, as is a float that isn't a number.
pub(crate) fn data_of(value: &Value, meter: &dyn Meter) -> Result<Data> {
    data_at(value, meter, 0)
}

fn data_at(value: &Value, meter: &dyn Meter, depth: usize) -> Result<Data> {
    if let Some(list) = value.downcast_object_ref::<ListView>() {
        return Ok(Data::List(list.items.clone()));
    }
    if let Some(map) = value.downcast_object_ref::<MapView>() {
        return Ok(Data::Map(map.map.clone()));
    }
    if let Some(history) = value.downcast_object_ref::<HistoryView>() {
        // Each use is a list of its own.
        meter.spend(history.0.len() as u64)?;
        return Ok(Data::list(history.0.iter().cloned()));
    }
    meter.spend(1)?;
    if depth > MAX_VALUE_DEPTH {
        return Err(limit_error(format!(
            "the value nests deeper than {MAX_VALUE_DEPTH} levels"
        )));
    }
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => Ok(Data::Null),
        ValueKind::Bool => Ok(Data::Bool(value.is_true())),
        ValueKind::Number => number_data(value),
        ValueKind::String => Ok(value.to_str().map_or(Data::Null, Data::Text)),
        ValueKind::Map => {
            let mut map = Map::new();
            for (key, item) in entries(value) {
                map.insert(str_of(&key, meter)?.into(), data_at(&item, meter, depth + 1)?);
            }
            Ok(Data::Map(map.into()))
        }
        _ => {
            let items = value
                .try_iter()
                .map_err(|_| type_error(format!("a value of type '{}' is not data", type_name(value))))?;
            let items = items.checked().map(|item| data_at(&item?, meter, depth + 1));
            Ok(Data::List(items.collect::<Result<_>>()?))
        }
    }
}

fn number_data(value: &Value) -> Result<Data> {
    match number(value) {
        Some(Num::Int(number)) => i64::try_from(number)
            .map(Data::Int)
            .or_else(|_| u64::try_from(number).map(Data::UInt))
            .map_err(|_| limit_error("the integer has more than 64 bits")),
        Some(Num::Float(number)) => Ok(Data::from(number)),
        None => Ok(Data::Null),
    }
}
