//! The tool node.

use std::sync::Arc;

use soe_backends::{Context, EventKind, Excess, ExecutionChange, Map, Progress, Run, Value};

use super::super::transaction::{Applied, Transaction};
use super::super::{Effect, Outcome, ToolCall, ToolFailure};
use crate::config::{Arguments, Node, Parameter, ToolNode, parse_yaml};
use crate::template::Scope;

impl Transaction<'_> {
    /// The call, or the failure that is known without it.
    pub(super) fn tool_effect(
        &mut self,
        run: u64,
        attempt: u32,
        node: &Arc<Node>,
        tool: &ToolNode,
        context: &Arc<Context>,
    ) -> Effect {
        let (tool_name, node_name) = (tool.tool.clone(), node.name.clone());
        self.event(EventKind::ToolCall {
            node_name,
            tool_name,
            run,
        });
        match self.arguments(node, tool, context) {
            Ok(arguments) => Effect::CallTool(ToolCall {
                execution: self.target(),
                run,
                attempt,
                index: None,
                node: node.clone(),
                tool: tool.tool.clone(),
                arguments,
            }),
            Err(message) => {
                let failure = ToolFailure {
                    message: message.into(),
                    retryable: false,
                };
                Effect::Complete {
                    execution: self.here,
                    run,
                    attempt,
                    outcome: Outcome::Tool(Err(failure)),
                }
            }
        }
    }

    /// A tool's arguments, checked; or what is wrong with them.
    fn arguments(&mut self, node: &Node, tool: &ToolNode, context: &Arc<Context>) -> Result<serde_json::Value, String> {
        let name = &tool.tool;
        let spec = self.machine.specs.tools.get(name).cloned();
        let spec = spec.ok_or_else(|| format!("tool '{name}' is not registered with this engine"))?;
        let arguments = match &tool.arguments {
            Arguments::None => Value::Map(Arc::default()),
            Arguments::Parameters(parameters) => {
                let scope = Scope::shared(context.clone());
                let render = |(key, parameter): (&Arc<str>, &Parameter)| {
                    let value = self.render_parameter(node, key, parameter, &scope);
                    (key.clone(), value)
                };
                Value::Map(Arc::new(parameters.iter().map(render).collect::<Map>()))
            }
            Arguments::ContextField(field) if spec.process_accumulated => Value::list(
                context
                    .history(field)
                    .into_iter()
                    .flat_map(|history| history.iter().cloned()),
            ),
            Arguments::ContextField(field) => match context.value(field) {
                None => Value::Map(Arc::default()),
                Some(Value::Text(text)) => parse_yaml(text)
                    .map_err(|error| format!("tool '{name}': context field '{field}' is not YAML or JSON: {error}"))?,
                Some(value) => value.clone(),
            },
        };
        if !spec.process_accumulated && arguments.as_map().is_none() {
            let found = arguments.type_name();
            return Err(format!(
                "tool '{name}' takes an object of arguments, but got a value of type {found}"
            ));
        }
        // Before it is copied: templates share what they repeat, and a copy doesn't.
        let limits = self.limits();
        let (limit, allowed) = match spec.process_accumulated {
            true => ("context_bytes", limits.context_bytes),
            false => ("value_bytes", limits.value_bytes),
        };
        if let Err(excess) = arguments.size_within(allowed, 2 * Value::MAX_DEPTH) {
            return Err(match excess {
                Excess::Bytes => format!("the arguments of tool '{name}' exceed the limit {limit} of {allowed} bytes"),
                Excess::Depth => format!(
                    "the arguments of tool '{name}' nest deeper than {} levels",
                    2 * Value::MAX_DEPTH
                ),
            });
        }
        let arguments = arguments.to_json();
        match spec.check_json(&arguments) {
            Ok(()) => Ok(arguments),
            Err(error) => Err(format!("{error}{}", nulls(tool, &arguments))),
        }
    }

    /// A parameter's value. A template that can't be rendered leaves a warning and is passed as it is written.
    fn render_parameter(&mut self, node: &Node, path: &str, parameter: &Parameter, scope: &Scope) -> Value {
        match parameter {
            Parameter::Literal(value) => value.clone(),
            Parameter::Template(template) => template.evaluate(scope).unwrap_or_else(|error| {
                self.warn(&node.name, format!("parameter '{path}' is passed unrendered: {error}"));
                Value::from(template.source())
            }),
            Parameter::List(items) => Value::list(
                items
                    .iter()
                    .enumerate()
                    .map(|(i, item)| self.render_parameter(node, &format!("{path}[{i}]"), item, scope)),
            ),
            Parameter::Map(entries) => Value::map(entries.iter().map(|(key, item)| {
                (
                    key.clone(),
                    self.render_parameter(node, &format!("{path}.{key}"), item, scope),
                )
            })),
        }
    }

    pub(super) fn tool_completed(
        &mut self,
        run: &Run,
        attempt: u32,
        node: &Arc<Node>,
        tool: &ToolNode,
        result: Result<Value, ToolFailure>,
    ) -> Applied {
        match result.and_then(|value| check_result(tool, value)) {
            Ok(value) => {
                if !self.finish_with(run, node, written(tool, &value))? {
                    return Ok(());
                }
                let signals = self.emissions(node, Some(&value));
                self.emit(signals)
            }
            Err(failure) => self.tool_failed(run, attempt, node, tool, failure),
        }
    }

    fn tool_failed(
        &mut self,
        run: &Run,
        attempt: u32,
        node: &Arc<Node>,
        tool: &ToolNode,
        failure: ToolFailure,
    ) -> Applied {
        let spec = self.machine.specs.tools.get(&tool.tool).cloned();
        let attempts = spec.as_ref().map_or(1, |spec| spec.max_retries.saturating_add(1));
        let again = (failure.retryable && attempt < attempts).then(|| attempt + 1);
        self.change(ExecutionChange::Error)?;
        self.event(EventKind::NodeError {
            node_name: node.name.clone(),
            run: run.number,
            error: failure.message.clone(),
            retry_attempt: again,
        });
        if let Some(attempt) = again {
            let snapshot = self.state().snapshots.get(run.snapshot).cloned();
            let context = snapshot.unwrap_or_else(|| self.state().context.clone());
            self.change(ExecutionChange::Progressed {
                run: run.number,
                progress: Progress::Tool { attempt },
            })?;
            let effect = self.tool_effect(run.number, attempt, node, tool, &context);
            self.effects.push(effect);
            return Ok(());
        }
        if !self.finish_with(run, node, written(tool, &Value::Text(failure.message)))? {
            return Ok(());
        }
        match spec.and_then(|spec| spec.failure_signal.clone()) {
            Some(signal) => self.emit([signal].into()),
            None => Ok(()),
        }
    }
}

/// What a tool may not return. Another attempt would hardly help.
fn check_result(tool: &ToolNode, value: Value) -> Result<Value, ToolFailure> {
    if !value.is_too_deep() {
        return Ok(value);
    }
    let message = format!(
        "the result of tool '{}' is nested deeper than {} levels",
        tool.tool,
        Value::MAX_DEPTH
    );
    Err(ToolFailure {
        message: message.into(),
        retryable: false,
    })
}

fn written(tool: &ToolNode, value: &Value) -> Vec<(Arc<str>, Value)> {
    tool.output_field
        .iter()
        .map(|field| (field.clone(), value.clone()))
        .collect()
}

/// The templates among the parameters that gave null, which is what a context field that isn't set gives.
fn nulls(tool: &ToolNode, arguments: &serde_json::Value) -> String {
    let Arguments::Parameters(parameters) = &tool.arguments else {
        return String::new();
    };
    let null = |(key, parameter): (&Arc<str>, &Parameter)| match parameter {
        Parameter::Template(template) if arguments.get(key.as_ref()).is_some_and(serde_json::Value::is_null) => {
            Some(format!("; '{}' gave null", template.source()))
        }
        _ => None,
    };
    parameters.iter().filter_map(null).collect()
}
