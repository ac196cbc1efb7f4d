//! Reading and changing the workflows of an execution.

use std::sync::Arc;

use soe_backends::{EditedBy, Map, Value, WorkflowEdit};

use super::super::transaction::Transaction;
use super::{Answered, Caller, Refused, clipped, listed, optional, text};
use crate::config::{Diagnostic, Node, Registry, Workflow};
use crate::tools::builtin;

/// So many warnings about what was injected are told.
const MAX_WARNINGS: usize = 20;

impl Transaction<'_> {
    fn current_registry(&self) -> Result<Arc<Registry>, Refused> {
        let current = self.machine.registry(&self.state().registry).cloned();
        current.ok_or_else(|| Refused::Failed("this execution has no workflows".to_owned()))
    }

    pub(super) fn get_workflows(&self, arguments: &serde_json::Value) -> Answered {
        let registry = self.current_registry()?;
        if arguments["list_only"] == true {
            return Ok(Value::map([("workflow_names", names(registry.workflows.keys()))]));
        }
        let Some(name) = optional(arguments, "workflow_name") else {
            return Ok(registry.document.clone());
        };
        let found = registry.workflows.get(name).zip(registry.document.get(name));
        let Some((workflow, configs)) = found else {
            return Ok(Value::map([
                ("error", Value::from(format!("Workflow '{name}' not found"))),
                ("available", names(registry.workflows.keys())),
            ]));
        };
        Ok(Value::map([
            ("workflow_name", Value::from(name)),
            ("nodes", names(workflow.nodes.keys())),
            ("node_configs", configs.clone()),
        ]))
    }

    pub(super) fn available_tools(&self) -> Value {
        let tools = &self.machine.specs.tools;
        let (builtin, user): (Vec<_>, Vec<_>) = tools.names().partition(|name| builtin::is_builtin(name));
        Value::map([
            ("builtin_tools", names(builtin.into_iter())),
            ("user_tools", names(user.into_iter())),
        ])
    }

    pub(super) fn inject_workflow(&mut self, caller: &Caller<'_>, arguments: &serde_json::Value) -> Answered {
        let name = unreserved(text(arguments, "workflow_name"))?;
        let nodes = self.injected(arguments, "workflow_data")?;
        let changed = self
            .current_registry()?
            .with_workflow(name, &nodes, &self.validation())?;
        let injected = workflow(&changed.registry, name)?.clone();
        self.check_nodes(caller, injected.nodes.values(), &changed.registry)?;
        self.put_registry(caller, changed.registry, &injected.name, None)?;
        let count = injected.nodes.len();
        let message = format!("workflow '{name}' is injected, with {count} node{}", plural(count));
        Ok(done("injected", &[("workflow_name", name)], message, &changed.warnings))
    }

    pub(super) fn inject_node(&mut self, caller: &Caller<'_>, arguments: &serde_json::Value) -> Answered {
        let [workflow_name, name] = ["workflow_name", "node_name"].map(|argument| text(arguments, argument));
        let config = self.injected(arguments, "node_config_data")?;
        let registry = self.current_registry()?;
        workflow(&registry, workflow_name)?;
        let changed = registry.with_node(workflow_name, name, &config, &self.validation())?;
        let injected = node(workflow(&changed.registry, workflow_name)?, name)?.clone();
        self.check_nodes(caller, [&injected].into_iter(), &changed.registry)?;
        self.put_registry(caller, changed.registry, &workflow_name.into(), Some(&injected.name))?;
        let message = format!("node '{name}' is injected into workflow '{workflow_name}'");
        let place = [("workflow_name", workflow_name), ("node_name", name)];
        Ok(done("injected", &place, message, &changed.warnings))
    }

    pub(super) fn remove_workflow(&mut self, caller: &Caller<'_>, arguments: &serde_json::Value) -> Answered {
        let name = text(arguments, "workflow_name");
        self.check_changes()?;
        let registry = self.current_registry()?;
        workflow(&registry, name)?;
        self.put_registry(caller, registry.without_workflow(name)?, &name.into(), None)?;
        let message = format!("workflow '{name}' is removed");
        Ok(done("removed", &[("workflow_name", name)], message, &[]))
    }

    pub(super) fn remove_node(&mut self, caller: &Caller<'_>, arguments: &serde_json::Value) -> Answered {
        let [workflow_name, name] = ["workflow_name", "node_name"].map(|argument| text(arguments, argument));
        self.check_changes()?;
        let registry = self.current_registry()?;
        node(workflow(&registry, workflow_name)?, name)?;
        if let Some(without) = registry.without_node(workflow_name, name)? {
            self.put_registry(caller, without, &workflow_name.into(), Some(&name.into()))?;
        }
        let message = format!("node '{name}' is removed from workflow '{workflow_name}'");
        let place = [("workflow_name", workflow_name), ("node_name", name)];
        Ok(done("removed", &place, message, &[]))
    }

    pub(super) fn add_signal(&mut self, caller: &Caller<'_>, arguments: &serde_json::Value) -> Answered {
        let [workflow_name, name, signal] =
            ["workflow_name", "node_name", "signal_name"].map(|argument| text(arguments, argument));
        let condition = text(arguments, "condition");
        self.check_injection("the condition", condition.len() + signal.len())?;
        self.check_changes()?;
        let registry = self.current_registry()?;
        let found = node(workflow(&registry, workflow_name)?, name)?;
        let (config, updated) = with_emission(found, signal, condition);
        let changed = registry.with_node(workflow_name, name, &config, &self.validation())?;
        // What the node does stays as it is: it uses no more than before.
        self.put_registry(caller, changed.registry, &workflow_name.into(), Some(&name.into()))?;
        let status = if updated { "updated" } else { "added" };
        let message = format!("signal '{signal}' is {status} on node '{name}' of workflow '{workflow_name}'");
        let answer = [("status", Value::from(status)), ("message", Value::from(message))];
        Ok(Value::map(answer.into_iter().chain(told(&changed.warnings))))
    }

    /// What is to be injected, if it may be.
    fn injected(&self, arguments: &serde_json::Value, name: &str) -> Result<Value, Refused> {
        let value = Value::from(&arguments[name]);
        let bytes = match &value {
            Value::Text(text) => text.len(),
            other => usize::try_from(other.size()).unwrap_or(usize::MAX),
        };
        self.check_injection(name, bytes)?;
        self.check_changes()?;
        Ok(value)
    }

    /// Goes on with what a node has made of the workflows.
    fn put_registry(
        &mut self,
        caller: &Caller<'_>,
        registry: Registry,
        workflow_name: &Arc<str>,
        changed_node: Option<&Arc<str>>,
    ) -> Result<(), Refused> {
        let most = self.limits().value_bytes;
        if registry.document.size() > most {
            let message = format!("all workflows together would have more than the {most} bytes that a value may have");
            return Err(Refused::Failed(message));
        }
        let edit = WorkflowEdit::Changed {
            workflow_name: workflow_name.clone(),
            changed_node: changed_node.cloned(),
        };
        let by = EditedBy {
            node_name: caller.node.name.clone(),
            run: caller.call.run,
            tool_name: caller.call.tool.clone(),
        };
        Ok(self.go_on_with(Arc::new(registry), edit, Some(by))?)
    }
}

fn unreserved(name: &str) -> Result<&str, Refused> {
    match name.starts_with("__") {
        true => Err(Refused::Failed(format!(
            "the name '{name}' is reserved: names that begin with '__' are"
        ))),
        false => Ok(name),
    }
}

fn workflow<'r>(registry: &'r Registry, name: &str) -> Result<&'r Arc<Workflow>, Refused> {
    registry.workflows.get(name).ok_or_else(|| {
        let known = listed(registry.workflows.keys());
        Refused::Failed(format!("workflow '{}' not found; {known}", clipped(name)))
    })
}

fn node<'w>(workflow: &'w Workflow, name: &str) -> Result<&'w Arc<Node>, Refused> {
    workflow.nodes.get(name).ok_or_else(|| {
        let known = listed(workflow.nodes.keys());
        let name = clipped(name);
        Refused::Failed(format!(
            "node '{name}' not found in workflow '{}'; {known}",
            workflow.name
        ))
    })
}

/// A node's configuration with this emission, and whether it had one of that signal.
fn with_emission(node: &Node, signal: &str, condition: &str) -> (Value, bool) {
    let mut emission = Map::new();
    emission.insert("signal_name".into(), Value::from(signal));
    if !condition.is_empty() {
        emission.insert("condition".into(), Value::from(condition));
    }
    let emission = Value::Map(Arc::new(emission));
    let mut config = node.config.as_ref().clone();
    let emissions = config
        .get("event_emissions")
        .and_then(Value::as_list)
        .unwrap_or_default();
    let mut emissions = emissions.to_vec();
    let same = |other: &&mut Value| other.get("signal_name").and_then(Value::as_str) == Some(signal);
    let updated = match emissions.iter_mut().find(same) {
        Some(other) => {
            *other = emission;
            true
        }
        None => {
            emissions.push(emission);
            false
        }
    };
    config.insert("event_emissions".into(), Value::list(emissions));
    (Value::Map(Arc::new(config)), updated)
}

fn done(what: &'static str, place: &[(&'static str, &str)], message: String, warnings: &[Diagnostic]) -> Value {
    let place = place.iter().map(|(key, name)| (*key, Value::from(*name)));
    let entries = [(what, Value::Bool(true))].into_iter().chain(place);
    Value::map(entries.chain([("message", Value::from(message))]).chain(told(warnings)))
}

fn told(warnings: &[Diagnostic]) -> Option<(&'static str, Value)> {
    let texts = warnings
        .iter()
        .take(MAX_WARNINGS)
        .map(|warning| Value::from(clipped(&warning.to_string())));
    (!warnings.is_empty()).then(|| ("warnings", Value::list(texts)))
}

fn names<'a>(names: impl Iterator<Item = &'a Arc<str>>) -> Value {
    Value::list(names.map(|name| Value::from(name.clone())))
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
