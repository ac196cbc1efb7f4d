//! The world outside: tools, custom nodes and LLMs. What they answer depends on neither the order of events nor on crashes: on
//! the place of the execution in its tree, the node, which of its runs it is, and the number of the attempt or request.

use anyhow::{Result, anyhow, bail};
use soe_backends::ExecutionId;
use soe_core::machine::{Effect, Input, LlmCall, Outcome};
use soe_core::nodes::NodeOutput;

use super::run::Sim;
use crate::sim::answer::{answer, tool_result};
use crate::sim::flow::{Fails, Flow, Kind, Name, Node};
use crate::sim::outcome::{outcome, rng};

impl Sim<'_> {
    /// What comes of an effect, and of which run.
    pub(super) fn answer(&mut self, id: &ExecutionId, effect: Effect) -> Result<Option<(u64, Input)>> {
        let completed = |run, attempt, outcome| (run, Input::Completed { run, attempt, outcome });
        Ok(Some(match effect {
            Effect::Reserve { run, call } => {
                let denied = None;
                (run, Input::Granted { run, call, denied })
            }
            Effect::Complete { run, attempt, outcome } => completed(run, attempt, outcome),
            Effect::CallTool(call) => {
                let (flow, node, place) = self.place(id, call.run)?;
                let result = match call.index {
                    Some(index) => Outcome::AgentTool {
                        index,
                        result: tool_result(self.plan.group, place, index),
                    },
                    None => outcome(flow, self.plan.group, node, place, call.attempt),
                };
                completed(call.run, call.attempt, result)
            }
            Effect::RunNode(run) => completed(run.run, 1, self.custom(id, run.run)?),
            Effect::CallLlm(call) => {
                let dialogue = call.run.progress.dialogue().map_or(0, |dialogue| dialogue.calls);
                completed(call.run.number, dialogue, self.replied(id, &call)?)
            }
            _ => return Ok(None),
        }))
    }

    fn custom(&mut self, id: &ExecutionId, run: u64) -> Result<Outcome> {
        let times = self.performed.entry((id.clone(), run)).or_default();
        *times += 1;
        let times = *times;
        let (flow, node, place) = self.place(id, run)?;
        Ok(match &node.kind {
            Kind::Custom(custom) => match custom.fails {
                Fails::First(first) if times <= first => Outcome::Node(Err("boom".into())),
                Fails::First(_) => Outcome::Node(Ok(NodeOutput::new())),
                _ => outcome(flow, self.plan.group, node, place, 1),
            },
            other => bail!("{other:?} is no custom node"),
        })
    }

    fn replied(&self, id: &ExecutionId, call: &LlmCall) -> Result<Outcome> {
        let (_, node, place) = self.place(id, call.run.number)?;
        let (Kind::Llm(llm), Some(dialogue)) = (&node.kind, call.run.progress.dialogue()) else {
            bail!("{node:?} doesn't ask");
        };
        let stage = dialogue.question.stage;
        Ok(Outcome::Llm(answer(
            self.plan.group,
            node,
            llm,
            place,
            dialogue.calls,
            stage,
        )))
    }

    /// The node of a run, and a number that is the same whatever the order of events.
    fn place(&self, id: &ExecutionId, run: u64) -> Result<(&Flow, &Node, u64)> {
        let dispatched = self.ledger.runs.get(&(id.clone(), run));
        let dispatched = dispatched.ok_or_else(|| anyhow!("run {run} of {id} was never dispatched"))?;
        let workflow = &self.store.state(id)?.workflow;
        let flow = self.grove.flows.get(workflow);
        let flow = flow.ok_or_else(|| anyhow!("there is no workflow {workflow}"))?;
        let node = flow.nodes.iter().find(|node| node.name == dispatched.node);
        let node = node.ok_or_else(|| anyhow!("there is no node {}", dispatched.node))?;
        let path = format!("{}/{}", self.path(id), node.name);
        let bytes: Vec<u64> = path.bytes().map(u64::from).chain([dispatched.before]).collect();
        Ok((flow, node, rng(&bytes).u64(..)))
    }

    /// The field that a tool's result goes to.
    pub(super) fn output_of(&self, id: &ExecutionId, run: u64) -> Result<Option<Name>> {
        let (_, node, _) = self.place(id, run)?;
        Ok(match &node.kind {
            Kind::Tool { output, .. } => output.clone(),
            _ => None,
        })
    }

    /// The place of an execution in its tree, by nodes instead of runs.
    pub(super) fn path(&self, id: &ExecutionId) -> String {
        let mut parts = id.as_str().rsplitn(3, '.');
        let (Some(index), Some(run), Some(parent)) = (parts.next(), parts.next(), parts.next()) else {
            return id.to_string();
        };
        let known = ExecutionId::new(parent).ok().zip(run.parse().ok());
        match known.map(|(parent, run)| (self.path(&parent), self.ledger.runs.get(&(parent, run)))) {
            Some((path, Some(run))) => format!("{path}/{}.{}.{index}", run.node, run.before),
            _ => id.to_string(),
        }
    }
}
