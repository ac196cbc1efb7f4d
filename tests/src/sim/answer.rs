//! What LLMs answer, what the tools of agents answer, and whether a request may be made: functions of the simulation's
//! seed, the run, and the number of the request or call.

use std::sync::Arc;

use fastrand::Rng;
use serde_json::json;
use soe_backends::{Limits, Stage, Usage, Value};
use soe_core::llm::ToolRequest;
use soe_core::machine::{AnswerContent, Denial, LlmAnswer, ToolFailure};

use super::flow::{Kept, Name, Node};
use super::llm::{Agent, Answers, Llm};
use super::outcome::{rng, value};

/// From this request on, a calm LLM comes to an end.
const LAST: u32 = 8;

/// What the LLM answers to a request of a run.
pub fn answer(seed: u64, node: &Node, llm: &Llm, run: u64, call: u32, stage: Stage) -> Result<LlmAnswer, Arc<str>> {
    let mut rng = rng(&[seed, run, u64::from(call), 3]);
    let calm = llm.answers == Answers::Calm;
    let ends = calm && call >= LAST;
    if !calm && rng.u8(..12) == 0 {
        return Err(format!("request {call} of run {run} failed").into());
    }
    let content = match stage {
        _ if !ends && rng.u8(..4) == 0 => AnswerContent::Invalid {
            reply: format!("nonsense {call}").into(),
            problem: "it makes no sense".into(),
        },
        Stage::Router => match &llm.agent {
            Some(agent) if !ends && rng.u8(..3) > 0 => AnswerContent::CallTool {
                name: tool(agent, &mut rng),
            },
            _ => AnswerContent::Finish,
        },
        Stage::Parameter => AnswerContent::Arguments(json!({"request": call})),
        Stage::Turn if !ends && rng.u8(..3) > 0 => tool_calls(llm, &mut rng),
        _ => output(node, llm, calm, &mut rng),
    };
    Ok(LlmAnswer {
        content,
        usage: usage(&mut rng),
        warnings: (0..rng.u8(..6).saturating_sub(4))
            .map(|_| "look at this".into())
            .collect(),
    })
}

fn output(node: &Node, llm: &Llm, calm: bool, rng: &mut Rng) -> AnswerContent {
    let value = value(llm.gives, rng);
    let mut signals: Vec<Name> = node.emissions.iter().map(|(signal, _)| signal.clone()).collect();
    signals.retain(|_| rng.bool());
    if let (true, true, Some((first, _))) = (calm, signals.is_empty(), node.emissions.first()) {
        signals.push(first.clone());
    }
    AnswerContent::Output { value, signals }
}

fn tool(agent: &Agent, rng: &mut Rng) -> Name {
    match rng.usize(..=agent.tools.len()) {
        i if i < agent.tools.len() => agent.tools[i].clone(),
        // The first tool of each workflow is registered, but not listed by every agent.
        _ => ["nobody", "tool0"][rng.usize(..2)].into(),
    }
}

fn tool_calls(llm: &Llm, rng: &mut Rng) -> AnswerContent {
    let call = |i: usize, rng: &mut Rng| ToolRequest {
        id: [String::new(), format!("call{i}")][rng.usize(..2)].clone(),
        name: llm
            .agent
            .as_ref()
            .map_or("nobody".into(), |agent| tool(agent, rng))
            .to_string(),
        arguments: ["", " ", "{\"n\": 1}", "{\"deep\": [{}]}", "{\"n\": 2}", "{broken"][rng.usize(..6)].to_owned(),
    };
    let calls = (0..rng.usize(1..=4)).map(|i| call(i, rng)).collect();
    let text = ["", "let me see"][rng.usize(..2)].into();
    AnswerContent::ToolCalls { text, calls }
}

/// What a request took; not every endpoint says it.
pub fn usage(rng: &mut Rng) -> Option<Usage> {
    (rng.u8(..3) > 0).then(|| Usage {
        prompt_tokens: rng.u64(..50),
        completion_tokens: rng.u64(..10),
    })
}

/// What a tool answers an agent.
pub fn tool_result(seed: u64, run: u64, index: u32) -> Result<Value, ToolFailure> {
    let mut rng = rng(&[seed, run, u64::from(index), 4]);
    match rng.u8(..4) {
        0 => Err(ToolFailure {
            message: format!("call {index} of run {run} failed").into(),
            retryable: false,
        }),
        _ => Ok(value(Kept::AnyOrNull, &mut rng)),
    }
}

/// Limits under which nothing is denied.
pub const GENEROUS: u64 = 1_000_000;

/// Why a request may not be made, after so many requests and tokens.
pub fn denial(limits: &Limits, seed: u64, run: u64, call: u32, calls: u64, tokens: u64) -> Option<Denial> {
    let scarce = limits.llm_calls.is_some_and(|allowed| allowed < GENEROUS);
    let by_others = scarce && rng(&[seed, run, u64::from(call), 5]).u8(..12) == 0;
    let used_up = |limit, used, allowed: Option<u64>| {
        allowed.filter(|allowed| used >= *allowed).map(|_| Denial {
            limit,
            message: format!("{used} were used"),
        })
    };
    let others = by_others.then(|| Denial {
        limit: "llm_calls",
        message: "others used them".to_owned(),
    });
    used_up("llm_calls", calls, limits.llm_calls)
        .or(used_up("tokens", tokens, limits.tokens))
        .or(others)
}
