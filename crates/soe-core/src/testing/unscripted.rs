//! A request that no rule answers.

use std::fmt;
use std::sync::Arc;

use super::names::head;
use crate::llm::{LlmRequest, Stage};

/// How much of a text is shown.
const HEAD: usize = 300;

/// A request that no rule of a [`MockLlm`](super::MockLlm) answers: what was asked, and why no rule answers it.
///
/// It is the error inside the [`LlmError`](crate::llm::LlmError) of the call: `error.downcast_ref::<UnscriptedRequest>()`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UnscriptedRequest {
    /// The node that asked.
    pub node: Arc<str>,
    /// The stage of the request.
    pub stage: Stage,
    /// The request's whole text.
    pub text: String,
    /// The JSON Schema that the reply should have had.
    pub schema: Option<Arc<serde_json::Value>>,
    /// Each rule, in order, and why it doesn't answer.
    pub rules: Vec<String>,
}

impl UnscriptedRequest {
    pub(super) fn new(request: &LlmRequest, text: String, rules: Vec<String>) -> Self {
        Self {
            node: request.node.clone(),
            stage: request.stage,
            text,
            schema: request.schema.clone(),
            rules,
        }
    }
}

impl fmt::Display for UnscriptedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (node, stage) = (&self.node, self.stage.as_str());
        writeln!(
            f,
            "no rule of the mock LLM answers the request of node '{node}', stage {stage}"
        )?;
        writeln!(f, "  it asks: {}", head(&self.text, HEAD))?;
        if let Some(schema) = &self.schema {
            writeln!(f, "  for a reply of the schema: {}", head(&schema.to_string(), HEAD))?;
        }
        if self.rules.is_empty() {
            return f.write_str("  the mock has no rules");
        }
        f.write_str("  the rules:")?;
        for (i, rule) in self.rules.iter().enumerate() {
            write!(f, "\n    {}. {rule}", i + 1)?;
        }
        Ok(())
    }
}

impl std::error::Error for UnscriptedRequest {}
