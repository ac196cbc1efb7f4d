//! Calls of application tools by name: whether one may be made. The driver makes it.

use std::sync::Arc;

use soe_backends::{EventKind, ExecutionChange, Value};

use super::super::transaction::Transaction;
use super::rights::granted;
use super::{Answered, Caller, Refused, clipped, listed, text};
use crate::tools::ToolSpec;
use crate::tools::builtin::is_builtin;

impl Transaction<'_> {
    /// `{call: ARGUMENTS}` if the call may be made, which counts it; `{error, tool_name}` if it can't.
    pub(super) fn call_by_name(&mut self, caller: &Caller<'_>, arguments: &serde_json::Value) -> Answered {
        let name = text(arguments, "tool_name");
        let spec = match self.callable(caller, name) {
            Err(Refused::Failed(error)) => return Ok(cannot(name, error)),
            spec => spec?,
        };
        let passed = match passed(name, &arguments["arguments"]) {
            Ok(passed) => passed,
            Err(error) => return Ok(cannot(name, error)),
        };
        if let Err(error) = spec.check_json(&passed) {
            return Ok(cannot(name, error.to_string()));
        }
        self.change(ExecutionChange::ToolCalled)?;
        self.event(EventKind::ToolCall {
            node_name: caller.node.name.clone(),
            tool_name: spec.name.clone(),
            run: caller.call.run,
        });
        Ok(Value::map([("call", Value::from(passed))]))
    }

    fn callable(&self, caller: &Caller<'_>, name: &str) -> Result<Arc<ToolSpec>, Refused> {
        let granted = granted(&caller.node);
        let open = self.machine.specs.policy.allows_escalation();
        let reachable = |tool: &&Arc<str>| !is_builtin(tool) && (open || granted.contains(tool));
        let known = || listed(self.machine.specs.tools.names().filter(reachable));
        let Some(spec) = self.machine.specs.tools.get(name) else {
            let message = format!("there is no tool '{}'; {}", clipped(name), known());
            return Err(Refused::Failed(message));
        };
        if is_builtin(name) {
            let message = format!("'{name}' is built in: it is called directly, by a node that lists it");
            return Err(Refused::Failed(message));
        }
        if !open && !granted.contains(&spec.name) {
            let reason = format!("this node may not use tool '{name}'; {}", known());
            return Err(Refused::Denied(reason));
        }
        Ok(spec.clone())
    }
}

fn passed(name: &str, arguments: &serde_json::Value) -> Result<serde_json::Value, String> {
    let passed = match arguments {
        serde_json::Value::Null => serde_json::json!({}),
        serde_json::Value::String(json) if json.trim().is_empty() => serde_json::json!({}),
        serde_json::Value::String(json) => {
            serde_json::from_str(json).map_err(|error| format!("the arguments of '{name}' are no JSON: {error}"))?
        }
        value => value.clone(),
    };
    match Value::from(&passed).is_too_deep() {
        true => Err(format!(
            "the arguments of '{name}' nest deeper than {} levels",
            Value::MAX_DEPTH
        )),
        false => Ok(passed),
    }
}

fn cannot(name: &str, error: String) -> Value {
    Value::map([("error", Value::from(error)), ("tool_name", Value::from(clipped(name)))])
}
