//! What tools, LLMs and custom nodes answer: a function of the run and of how far it is, by names that don't depend on the order
//! of events.

use std::sync::Arc;

use fastrand::Rng;
use serde_json::json;
use soe_backends::{Dialogue, Entry, Stage, Usage, Value};
use soe_core::llm::ToolRequest;
use soe_core::machine::{AnswerContent, LlmAnswer, Outcome, ToolFailure};
use soe_core::nodes::NodeOutput;

use super::flow::{Agent, Fails, Kind, Llm, Node, TOOL};

/// What each reply takes.
pub const TOKENS: u64 = 3;

/// A generator whose numbers depend on all of `parts`.
pub fn rng(parts: &[u64]) -> Rng {
    let mixed = parts.iter().fold(0, |mixed: u64, part| {
        Rng::with_seed(mixed.rotate_left(23) ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15)).u64(..)
    });
    Rng::with_seed(mixed)
}

/// The value that a run gives: no other run gives it.
pub fn value(run: &str) -> Value {
    Value::from(run)
}

/// Why a run fails.
pub fn error(run: &str) -> Arc<str> {
    format!("{run} failed").into()
}

/// How an attempt of a tool or a custom node ends. `failed` is how often the run has failed.
pub(crate) fn attempt(node: &Node, run: &str, attempt: u32, failed: u32) -> Outcome {
    match &node.kind {
        Kind::Custom { fails, .. } if failed < *fails => Outcome::Node(Err(error(run))),
        Kind::Custom { output, .. } => {
            let written = NodeOutput::new();
            Outcome::Node(Ok(match output {
                Some(field) => written.write(field.clone(), value(run)),
                None => written,
            }))
        }
        Kind::Tool { fails, .. } => Outcome::Tool(match fails {
            Fails::First(count) if attempt <= *count => Err(failure(run, true)),
            Fails::Always => Err(failure(run, false)),
            _ => Ok(value(run)),
        }),
        _ => Outcome::Tool(Ok(Value::Null)),
    }
}

/// How an attempt of an agent's call of a tool ends.
pub(crate) fn call(agent: &Agent, run: &str, index: u32, attempt: u32) -> Outcome {
    let result = match agent.flaky && attempt == 1 {
        true => Err(failure(run, true)),
        false => Ok(value(run)),
    };
    Outcome::AgentTool { index, result }
}

fn failure(run: &str, retryable: bool) -> ToolFailure {
    ToolFailure {
        message: error(run),
        retryable,
    }
}

/// What an LLM answers.
pub(crate) fn answer(llm: &Llm, run: &str, dialogue: &Dialogue, failed: u32) -> Outcome {
    if failed < llm.fails {
        return Outcome::Llm(Err(error(run)));
    }
    let content = match (&llm.agent, dialogue.question.stage) {
        (None, _) if (dialogue.rejected.len() as u32) < llm.invalid => AnswerContent::Invalid {
            reply: "nonsense".into(),
            problem: "it makes no sense".into(),
        },
        (Some(agent), Stage::Router) if made(dialogue) < agent.rounds => AnswerContent::CallTool { name: TOOL.into() },
        (Some(_), Stage::Router) => AnswerContent::Finish,
        (Some(_), Stage::Parameter) => AnswerContent::Arguments(json!({})),
        (Some(agent), Stage::Turn) if made(dialogue) < agent.rounds * agent.width => AnswerContent::ToolCalls {
            text: "".into(),
            calls: (0..agent.width).map(request).collect(),
        },
        _ => AnswerContent::Output {
            value: value(run),
            signals: Vec::new(),
        },
    };
    Outcome::Llm(Ok(LlmAnswer {
        content,
        usage: Some(Usage {
            prompt_tokens: TOKENS - 1,
            completion_tokens: 1,
        }),
        warnings: Vec::new(),
    }))
}

fn request(place: u32) -> ToolRequest {
    ToolRequest {
        id: format!("call{place}"),
        name: TOOL.to_owned(),
        arguments: "{}".to_owned(),
    }
}

/// The calls that an agent has made.
fn made(dialogue: &Dialogue) -> u32 {
    let called = dialogue
        .entries
        .iter()
        .filter(|entry| matches!(entry, Entry::Called { .. }));
    called.count() as u32
}
