//! A node type of the application's own: `vote` counts the votes in a context field and decides what to emit.
//!
//! `cargo run -q -p soe-examples --bin 07-custom-node`

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use soe_backends::Value;
use soe_core::config::Config;
use soe_core::nodes::{NodeError, NodeInput, NodeOutput};
use soe_core::runtime::{Engine, Orchestration};
use soe_core::tools::{ToolDefinition, tool_fn};

/// What a node of this type is configured with. Fields that every node has are left to the engine.
#[derive(Deserialize)]
struct VoteConfig {
    /// The field whose history holds the votes, true or false.
    field: String,
    /// How many have to be in favour.
    needed: usize,
    output_field: Option<String>,
    passed: String,
    failed: String,
}

/// The node type. Its writes, its signal and the end of its run are one atomic event.
async fn vote(input: NodeInput) -> Result<NodeOutput, NodeError> {
    let config: VoteConfig = serde_json::from_value(serde_json::to_value(input.config())?)?;
    let votes = input.context().history(&config.field).cloned().unwrap_or_default();
    let in_favour = votes.iter().filter(|vote| vote.as_bool() == Some(true)).count();

    let signal = if in_favour >= config.needed {
        config.passed
    } else {
        config.failed
    };
    let output = NodeOutput::new().emit(signal);
    Ok(match config.output_field {
        Some(field) => output.write(field, json!({"in_favour": in_favour, "votes": votes.len()})),
        None => output,
    })
}

#[derive(Deserialize, JsonSchema)]
struct ReviewArgs {
    text: String,
}

/// A reviewer is a tool that answers yes or no.
fn reviewer(name: &str, review: impl Fn(&str) -> bool + Send + Sync + 'static) -> ToolDefinition {
    tool_fn(name, "Reviews a text.", move |args: ReviewArgs, _| {
        let vote = review(&args.text);
        async move { Ok(vote) }
    })
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let engine = Engine::builder()
        .tool(reviewer("check_length", |text| text.split_whitespace().count() >= 8))
        .tool(reviewer("check_tone", |text| !text.contains('!')))
        .tool(reviewer("check_title", |text| text.starts_with("# ")))
        .node_type("vote", vote)
        .build()?;
    let config = Arc::new(Config::from_yaml(include_str!("workflow.yaml"))?);

    for article in [
        "# Tea\nWater just off the boil brings out more than boiling water does.",
        "Buy now!",
    ] {
        let start = Orchestration::new(config.clone(), "publishing")
            .signal("START")
            .field("article", article);
        let finished = engine.orchestrate(start).await?;
        let context = engine.context(&finished.execution).await?;
        let last = context
            .operational
            .signals
            .iter()
            .last()
            .map_or("nothing", AsRef::as_ref);
        let tally = context.value("tally").map(Value::to_string).unwrap_or_default();
        println!("{last}: {tally}");
    }
    Ok(())
}
