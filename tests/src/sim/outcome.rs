//! What tools and custom nodes answer: a function of the simulation's seed, the run and the attempt alone.

use fastrand::Rng;
use soe_backends::Value;
use soe_core::machine::{Outcome, ToolFailure};
use soe_core::nodes::NodeOutput;

use super::flow::{Custom, Fails, Flow, Kept, Kind, Node};

/// How an attempt of a run ends.
pub fn outcome(flow: &Flow, seed: u64, node: &Node, run: u64, attempt: u32) -> Outcome {
    let mut rng = rng(&[seed, run, u64::from(attempt)]);
    match &node.kind {
        Kind::Custom(custom) => Outcome::Node(custom_outcome(custom, &mut rng, run)),
        Kind::Tool { tool, .. } => Outcome::Tool(match flow.tool(tool) {
            // The machine knows this one without asking anybody.
            None => Err(ToolFailure {
                message: format!("tool '{tool}' is not registered with this engine").into(),
                retryable: false,
            }),
            Some(tool) if fails(tool.fails, &mut rng, attempt) => Err(ToolFailure {
                message: format!("attempt {attempt} of run {run} failed").into(),
                retryable: tool.retryable,
            }),
            Some(tool) => Ok(value(tool.returns, &mut rng)),
        }),
        Kind::Router | Kind::Llm(_) => Outcome::Tool(Ok(Value::Null)),
    }
}

/// A generator whose numbers depend on all of `parts`.
pub fn rng(parts: &[u64]) -> Rng {
    let mixed = parts.iter().fold(0, |mixed: u64, part| {
        Rng::with_seed(mixed.rotate_left(23) ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15)).u64(..)
    });
    Rng::with_seed(mixed)
}

fn custom_outcome(custom: &Custom, rng: &mut Rng, run: u64) -> Result<NodeOutput, std::sync::Arc<str>> {
    if fails(custom.fails, rng, 1) {
        return Err(format!("run {run} failed").into());
    }
    let mut output = NodeOutput::new();
    for (field, kept) in &custom.writes {
        output = output.write(field.clone(), value(*kept, rng));
    }
    Ok(match &custom.signals {
        Some(signals) => output.emit_all(signals.iter().cloned()),
        None => output,
    })
}

fn fails(fails: Fails, rng: &mut Rng, attempt: u32) -> bool {
    match fails {
        Fails::Never => false,
        Fails::First(count) => attempt <= count,
        Fails::Always => true,
        Fails::Sometimes => rng.u8(..4) == 0,
    }
}

/// A random value of a kind.
pub fn value(kept: Kept, rng: &mut Rng) -> Value {
    match kept {
        Kept::Choice => Value::from(rng.i64(0..3)),
        Kept::List(length) => Value::list((0..length).map(|_| Value::from(rng.i64(0..100)))),
        Kept::Scalar => scalar(rng),
        Kept::AnyOrNull if rng.u8(..4) == 0 => Value::Null,
        Kept::Any | Kept::AnyOrNull => match rng.u8(..4) {
            0 => Value::list((0..rng.usize(..4)).map(|_| scalar(rng)).collect::<Vec<_>>()),
            1 => Value::map([("b", scalar(rng)), ("a", Value::list([Value::Null, scalar(rng)]))]),
            _ => scalar(rng),
        },
    }
}

fn scalar(rng: &mut Rng) -> Value {
    match rng.u8(..6) {
        0 => Value::from(rng.bool()),
        1 => Value::from(rng.u64(..)),
        2 => {
            let float = f64::from_bits(rng.u64(..));
            Value::from(if float.is_finite() { float } else { 0.1 })
        }
        3 => Value::from(["", "a \"quoted\" one", "{{ not rendered }}", "ß→\u{1f600}\n"][rng.usize(..4)]),
        _ => Value::from(rng.i64(-5..100)),
    }
}
