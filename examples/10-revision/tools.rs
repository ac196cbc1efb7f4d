//! The one step that needs no LLM.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use soe_core::tools::{ToolContext, ToolDefinition, ToolError, tool_fn};

#[derive(Deserialize, JsonSchema)]
struct Drafts {
    drafts: Vec<String>,
    critiques: Vec<Critique>,
}

#[derive(Deserialize, JsonSchema)]
struct Critique {
    score: i64,
}

#[derive(Serialize)]
struct Best {
    /// Counted from 1.
    number: usize,
    score: i64,
    text: String,
}

/// Picks the draft with the highest score, the later of two that are equal.
pub fn best_draft() -> ToolDefinition {
    tool_fn("best_draft", "Picks the draft with the highest score.", choose)
}

async fn choose(args: Drafts, _: ToolContext) -> Result<Best, ToolError> {
    let numbered = args.drafts.into_iter().zip(args.critiques).enumerate();
    let best = numbered.max_by_key(|(_, (_, critique))| critique.score);
    let (index, (text, critique)) = best.ok_or_else(|| ToolError::new("there is no draft").no_retry())?;
    Ok(Best {
        number: index + 1,
        score: critique.score,
        text,
    })
}
