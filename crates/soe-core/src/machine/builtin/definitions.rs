//! Reading and changing what the executions of a tree share.

use std::sync::Arc;

use soe_backends::{Definitions, EventKind, Value};

use super::super::transaction::Transaction;
use super::{Answered, BuiltinCall, Caller, Refused, clipped, listed, optional, text};
use crate::config::{FieldSchema, parse_yaml};

impl Transaction<'_> {
    pub(super) fn definitions(&mut self, caller: &Caller<'_>, arguments: &serde_json::Value) -> Answered {
        let (call, current) = (caller.call, self.machine.state.definitions.clone());
        let current = self.definitions.clone().unwrap_or(current);
        let [identity, field] = ["identity_name", "field_name"].map(|name| text(arguments, name));
        match call.tool.as_ref() {
            "soe_get_identities" => Ok(identities(arguments, &current)),
            "soe_get_context_schema" => Ok(context_schema(arguments, &current)),
            "soe_inject_identity" => {
                let prompt = text(arguments, "system_prompt");
                self.check_injection("the identity", identity.len() + prompt.len())?;
                let mut changed = current.as_ref().clone();
                changed.identities.insert(identity.into(), prompt.into());
                self.define(call, identity, changed)?;
                Ok(done("injected", "identity_name", identity, "identity"))
            }
            "soe_remove_identity" => {
                let mut changed = current.as_ref().clone();
                if changed.identities.shift_remove(identity).is_none() {
                    let known = listed(current.identities.keys());
                    let message = format!("identity '{}' not found; {known}", clipped(identity));
                    return Err(Refused::Failed(message));
                }
                self.define(call, identity, changed)?;
                Ok(done("removed", "identity_name", identity, "identity"))
            }
            "soe_inject_context_schema_field" => {
                let definition = self.field_definition(field, &arguments["field_definition"])?;
                let mut changed = current.as_ref().clone();
                changed.context_schema.insert(field.into(), definition);
                self.define(call, field, changed)?;
                Ok(done("injected", "field_name", field, "schema of field"))
            }
            _ => {
                let mut changed = current.as_ref().clone();
                if changed.context_schema.shift_remove(field).is_none() {
                    let known = listed(current.context_schema.keys());
                    let message = format!("field '{}' has no schema; {known}", clipped(field));
                    return Err(Refused::Failed(message));
                }
                self.define(call, field, changed)?;
                Ok(done("removed", "field_name", field, "schema of field"))
            }
        }
    }

    fn field_definition(&self, field: &str, given: &serde_json::Value) -> Result<Value, Refused> {
        if field.starts_with("__") {
            let message = format!("the field '{}' belongs to the engine", clipped(field));
            return Err(Refused::Failed(message));
        }
        let given = Value::from(given);
        let bytes = usize::try_from(given.size()).unwrap_or(usize::MAX);
        self.check_injection("the definition", bytes.saturating_add(field.len()))?;
        let definition = match &given {
            Value::Text(text) => parse_yaml(text)
                .map_err(|error| Refused::Failed(format!("the definition is not YAML or JSON: {error}")))?,
            _ => given,
        };
        FieldSchema::from_definition(field, &definition)?;
        Ok(definition)
    }

    /// Stores the definitions with this event.
    fn define(&mut self, call: &BuiltinCall, name: &str, changed: Definitions) -> Result<(), Refused> {
        let count = changed.identities.len() + changed.context_schema.len();
        if count as u64 > self.machine.specs.policy.changes() {
            let most = self.machine.specs.policy.changes();
            return Err(Refused::Denied(format!(
                "with '{name}' there would be more than {most} definitions"
            )));
        }
        self.definitions = Some(Arc::new(changed));
        self.event(EventKind::DefinitionChanged {
            node_name: call.node.clone(),
            run: call.run,
            tool_name: call.tool.clone(),
            name: name.into(),
        });
        Ok(())
    }
}

fn identities(arguments: &serde_json::Value, current: &Definitions) -> Value {
    let names = || Value::list(current.identities.keys().map(|name| Value::from(name.clone())));
    if arguments["list_only"] == true {
        return Value::map([("identity_names", names())]);
    }
    match optional(arguments, "identity_name") {
        None => {
            let all = current.identities.iter();
            Value::map(all.map(|(name, prompt)| (name.clone(), Value::from(prompt.clone()))))
        }
        Some(name) => match current.identities.get(name) {
            Some(prompt) => Value::map([
                ("identity_name", Value::from(name)),
                ("system_prompt", Value::from(prompt.clone())),
            ]),
            None => not_found("Identity", name, names()),
        },
    }
}

fn context_schema(arguments: &serde_json::Value, current: &Definitions) -> Value {
    match optional(arguments, "field_name") {
        None => Value::Map(Arc::new(current.context_schema.clone())),
        Some(name) => match current.context_schema.get(name) {
            Some(definition) => Value::map([("field_name", Value::from(name)), ("definition", definition.clone())]),
            None => {
                let names = current.context_schema.keys().map(|name| Value::from(name.clone()));
                not_found("Field", name, Value::list(names))
            }
        },
    }
}

fn not_found(what: &str, name: &str, available: Value) -> Value {
    let error = format!("{what} '{}' not found", clipped(name));
    Value::map([("error", Value::from(error)), ("available", available)])
}

fn done(what: &'static str, key: &'static str, name: &str, kind: &str) -> Value {
    Value::map([
        (what, Value::Bool(true)),
        (key, Value::from(name)),
        ("message", Value::from(format!("{kind} '{name}' is {what}"))),
    ])
}
