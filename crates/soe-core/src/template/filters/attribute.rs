//! The `attribute` argument: a path such as `user.address.0`.

use minijinja::value::Value;

use crate::template::python::Result;
use crate::template::python::sequence::item;

/// The parts of a path.
pub(super) struct Path(Vec<Value>);

impl Path {
    /// The path that an argument names; without one it leads to the value itself.
    pub(super) fn of(argument: Option<&Value>) -> Self {
        let Some(argument) = argument else {
            return Self(Vec::new());
        };
        let part = |part: &str| match part.parse::<i64>() {
            Ok(index) if part.bytes().all(|byte| byte.is_ascii_digit()) => Value::from(index),
            _ => Value::from(part),
        };
        match argument.as_str() {
            Some(path) => Self(path.split('.').map(part).collect()),
            None => Self(vec![argument.clone()]),
        }
    }

    /// What the path leads to, `default` standing in for what is undefined on the way.
    pub(super) fn get(&self, value: &Value, default: Option<&Value>) -> Result<Value> {
        let mut found = value.clone();
        for part in &self.0 {
            found = match number_part(&found, part) {
                Some(found) => found,
                None => item(&found, part)?,
            };
            if let (true, Some(default)) = (found.is_undefined(), default) {
                found = default.clone();
            }
        }
        Ok(found)
    }
}

/// The few attributes that numbers have.
fn number_part(value: &Value, part: &Value) -> Option<Value> {
    let is_real = value.is_number() && matches!(part.as_str(), Some("real" | "numerator"));
    is_real.then(|| value.clone())
}
