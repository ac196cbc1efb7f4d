//! Reading and writing the context of an execution.

use std::sync::Arc;

use soe_backends::{EventKind, Excess, ExecutionChange, History, Map, Status, Value};

use super::super::transaction::Transaction;
use super::{Answered, Refused, clipped, listed};

impl Transaction<'_> {
    pub(super) fn get_context(&self, arguments: &serde_json::Value) -> Answered {
        let context = &self.state().context;
        let all =
            |history: Option<&History>| Value::list(history.into_iter().flat_map(|history| history.iter().cloned()));
        let wanted: Vec<&str> = match (arguments["field"].as_str(), arguments["fields"].as_array()) {
            (Some(field), _) if !field.is_empty() => vec![field],
            (_, Some(fields)) if !fields.is_empty() => fields.iter().filter_map(|field| field.as_str()).collect(),
            _ => context.fields.iter().map(|(name, _)| name.as_ref()).collect(),
        };
        if let Some(reserved) = wanted.iter().find(|field| field.starts_with("__")) {
            let message = format!("'{}' belongs to the engine; templates can read it", clipped(reserved));
            return Err(Refused::Failed(message));
        }
        let fields = wanted
            .into_iter()
            .map(|field| (Arc::from(field), all(context.history(field))));
        let found = Value::Map(Arc::new(fields.collect::<Map>()));
        let most = self.limits().value_bytes;
        match found.size_within(most, 2 * Value::MAX_DEPTH) {
            Ok(_) => Ok(found),
            Err(_) => Err(Refused::Failed(format!(
                "these fields have more than the {most} bytes that a value may have; read fewer: {}",
                listed(context.fields.iter().map(|(name, _)| name))
            ))),
        }
    }

    pub(super) fn update_context(&mut self, arguments: &serde_json::Value) -> Answered {
        let Value::Map(updates) = Value::from(&arguments["updates"]) else {
            return Err(Refused::Failed(
                "'updates' must be an object of fields and values".to_owned(),
            ));
        };
        let (mut written, mut ignored) = (Vec::new(), Vec::new());
        for (field, value) in updates.iter() {
            match field.is_empty() || field.starts_with("__") || value.is_null() {
                true => ignored.push(Value::from(field.clone())),
                false => written.push((field.clone(), value.clone())),
            }
        }
        let sized = self.sized(written)?;
        let fields = Value::list(sized.iter().map(|(field, ..)| Value::from(field.clone())));
        let status = match (sized.is_empty(), ignored.is_empty()) {
            (false, _) => "updated",
            (true, true) => "no updates provided",
            (true, false) => "no valid updates",
        };
        for (field, value, size) in sized {
            self.append(field, value, size)?;
        }
        let mut answer = vec![("status", Value::from(status)), ("fields", fields)];
        if !ignored.is_empty() {
            let why = "names that begin with '__' belong to the engine, and null is not written";
            answer.extend([("ignored", Value::list(ignored)), ("message", Value::from(why))]);
        }
        Ok(Value::map(answer))
    }

    /// Puts copied histories in the place of those that the fields have.
    pub(super) fn copy(&mut self, fields: &[(Arc<str>, History)]) -> Result<(), Refused> {
        let state = self.state();
        if self.status() == Status::Cancelled {
            return Err(Refused::Failed(format!("execution {} is cancelled", state.id)));
        }
        if let Some((reserved, _)) = fields
            .iter()
            .find(|(field, _)| field.is_empty() || field.starts_with("__"))
        {
            let message = format!(
                "field '{}' can't be written: such names belong to the engine",
                clipped(reserved)
            );
            return Err(Refused::Failed(message));
        }
        let (allowed, mut total) = (self.limits().context_bytes, state.context_bytes);
        let mut sized = Vec::with_capacity(fields.len());
        for (field, history) in fields {
            let before = state.context.history(field).map_or(0, size_of_history);
            let size = size_of_history(history);
            total = total.saturating_sub(before).saturating_add(size);
            sized.push((field, history, before, size));
        }
        if total > allowed {
            let message =
                format!("limit context_bytes: with these fields the context has {total} bytes, {allowed} are allowed");
            return Err(Refused::Failed(message));
        }
        for (field, history, before, size) in sized {
            self.change(ExecutionChange::Replaced {
                field: field.clone(),
                history: history.clone(),
                before,
                size,
            })?;
            self.event(EventKind::ContextUpdated {
                field: field.clone(),
                length: history.len() as u64,
            });
        }
        Ok(())
    }

    /// These values with their sizes, if the limits allow all of them.
    fn sized(&self, values: Vec<(Arc<str>, Value)>) -> Result<Vec<(Arc<str>, Value, u64)>, Refused> {
        let limits = self.limits();
        let mut total = self.state().context_bytes;
        let mut sized = Vec::with_capacity(values.len());
        for (field, value) in values {
            let size = value
                .size_within(limits.value_bytes, Value::MAX_DEPTH)
                .map_err(|excess| {
                    let name = clipped(&field);
                    Refused::Failed(match excess {
                        Excess::Bytes => format!("the value for '{name}' has more than {} bytes", limits.value_bytes),
                        Excess::Depth => {
                            format!("the value for '{name}' nests deeper than {} levels", Value::MAX_DEPTH)
                        }
                    })
                })?;
            total = total.saturating_add(size);
            sized.push((field, value, size));
        }
        if total > limits.context_bytes {
            let allowed = limits.context_bytes;
            let message =
                format!("limit context_bytes: with these values the context has {total} bytes, {allowed} are allowed");
            return Err(Refused::Failed(message));
        }
        Ok(sized)
    }
}

fn size_of_history(history: &History) -> u64 {
    history.iter().map(Value::size).sum()
}
