//! What the service's workflow calls.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use soe_core::runtime::EngineBuilder;
use soe_core::tools::{ToolContext, ToolError, tool_fn};

#[derive(Deserialize, JsonSchema)]
struct AnalyseArgs {
    text: String,
}

#[derive(Serialize)]
struct Analysis {
    words: usize,
    longest: String,
}

#[derive(Deserialize, JsonSchema)]
struct PublishArgs {
    text: String,
    millis: u64,
}

/// Adds the tools to an engine that is being built.
pub fn register(engine: EngineBuilder) -> EngineBuilder {
    engine
        .tool(tool_fn("analyse", "Looks a text over.", analyse))
        .tool(tool_fn("publish", "Puts a text on the web.", publish).timeout(Duration::from_secs(60)))
}

async fn analyse(args: AnalyseArgs, _: ToolContext) -> Result<Analysis, ToolError> {
    let words = args.text.split_whitespace();
    let longest = words
        .clone()
        .max_by_key(|word| word.chars().count())
        .unwrap_or_default();
    Ok(Analysis {
        words: words.count(),
        longest: longest.to_owned(),
    })
}

async fn publish(args: PublishArgs, context: ToolContext) -> Result<String, ToolError> {
    tokio::time::sleep(Duration::from_millis(args.millis)).await;
    Ok(format!(
        "https://press.example/{} ({} bytes)",
        context.execution_id(),
        args.text.len()
    ))
}
