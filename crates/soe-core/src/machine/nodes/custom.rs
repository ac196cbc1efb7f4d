//! Nodes of types that the application registers.

use std::sync::Arc;

use soe_backends::{Context, DialogueStep, EventKind, ExecutionChange, Failure, Run, Stage, Usage, Value};

use super::super::transaction::{Applied, Transaction};
use super::super::{Effect, MachineError, NodeRun};
use crate::config::Node;
use crate::nodes::{NodeOutput, Signals};

impl Transaction<'_> {
    pub(super) fn custom_effect(&self, run: u64, node: &Arc<Node>, context: &Arc<Context>) -> Effect {
        Effect::RunNode(NodeRun {
            execution: self.target(),
            run,
            node: node.clone(),
            node_type: node.type_name.clone(),
            context: context.clone(),
        })
    }

    pub(super) fn custom_completed(
        &mut self,
        run: &Run,
        node: &Arc<Node>,
        result: Result<NodeOutput, Arc<str>>,
    ) -> Applied {
        let output = match result.and_then(check) {
            Ok(output) => output,
            Err(error) => return self.custom_failed(run, node, error),
        };
        let (writes, signals) = output.into_parts();
        if !self.finish_with(run, node, writes)? {
            return Ok(());
        }
        let signals = match signals {
            Signals::Explicit(signals) => signals.into(),
            Signals::Configured => self.emissions(node, None),
        };
        self.emit(signals)
    }

    /// A request that the node makes by itself. Of a run that is over, nobody counts it.
    pub(in super::super) fn custom_asked(&mut self, run: u64, call: u32) -> Result<(), MachineError> {
        let Some(node_name) = self.in_flight(run) else {
            return Ok(());
        };
        if let Some(denial) = self.denied() {
            return Err(MachineError::Denied(denial));
        }
        self.change(ExecutionChange::Dialogue {
            run,
            step: DialogueStep::Asked,
        })?;
        self.event(EventKind::LlmCall {
            node_name,
            run,
            call,
            stage: Stage::Llm,
        });
        Ok(())
    }

    pub(in super::super) fn custom_replied(&mut self, run: u64, call: u32, usage: Option<Usage>) -> Applied {
        let Some(node_name) = self.in_flight(run) else {
            return Ok(());
        };
        self.change(ExecutionChange::Dialogue {
            run,
            step: DialogueStep::Replied { usage },
        })?;
        self.event(EventKind::LlmReply {
            node_name,
            run,
            call,
            usage,
        });
        Ok(())
    }

    fn in_flight(&self, run: u64) -> Option<Arc<str>> {
        let run = self.state().runs.get(run).filter(|_| self.is_running())?;
        Some(run.node.clone())
    }

    /// Emits the node's `failure_signal`, if its configuration has one; else the execution fails.
    fn custom_failed(&mut self, run: &Run, node: &Arc<Node>, error: Arc<str>) -> Applied {
        self.change(ExecutionChange::Error)?;
        self.event(EventKind::NodeError {
            node_name: node.name.clone(),
            run: run.number,
            error: error.clone(),
            retry_attempt: None,
        });
        match node.config.get("failure_signal") {
            Some(Value::Text(signal)) if !signal.is_empty() => {
                self.finish_with(run, node, Vec::new())?;
                self.emit([signal.clone()].into())
            }
            // The run stays in flight, so that resuming the execution runs it again.
            _ => self.fail(Failure {
                message: error.to_string(),
                node: Some(node.name.clone()),
                limit: None,
            }),
        }
    }
}

/// What a custom node may not do.
fn check(output: NodeOutput) -> Result<NodeOutput, Arc<str>> {
    if let Some((field, _)) = output.writes().iter().find(|(field, _)| field.starts_with("__")) {
        return Err(format!("it wrote field '{field}': names that begin with '__' belong to the engine").into());
    }
    if let Some((field, _)) = output.writes().iter().find(|(_, value)| value.is_too_deep()) {
        let max = Value::MAX_DEPTH;
        return Err(format!("what it wrote to field '{field}' is nested deeper than {max} levels").into());
    }
    match output.signals() {
        Signals::Explicit(signals) if signals.iter().any(|signal| signal.is_empty()) => {
            Err("it emitted a signal with an empty name".into())
        }
        _ => Ok(output),
    }
}
