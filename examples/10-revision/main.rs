//! Draft, critique, revision: an LLM improves what it wrote until its editor is content or the drafts are used up.
//!
//! `cargo run -q -p soe-examples --bin 10-revision`

mod tools;

use anyhow::Context as _;
use clap::Parser;
use soe_core::config::Config;
use soe_core::runtime::{Engine, Orchestration};
use soe_examples::{LlmArgs, costs, plain};

/// Writes a short text, and revises it.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    llm: LlmArgs,
    /// What to write about; with the mocked LLM, leave it as it is
    #[arg(long, default_value = "why and how to make backups")]
    topic: String,
    /// A draft with this score is published
    #[arg(long, default_value_t = 8)]
    good: u32,
    /// After so many drafts, the best one is published
    #[arg(long, default_value_t = 4)]
    max_drafts: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let llm = cli.llm.caller(include_str!("replies.yaml"))?;
    let engine = Engine::builder().llm(llm).tool(tools::best_draft()).build()?;
    let config = Config::from_yaml(include_str!("workflow.yaml"))?;

    let start = Orchestration::new(config, "revision")
        .signal("START")
        .field("topic", cli.topic)
        .field("words", 40)
        .field("good", cli.good)
        .field("max_drafts", cli.max_drafts);
    let finished = engine.orchestrate(start).await?;

    let context = engine.context(&finished.execution).await?;
    let history = |field: &str| context.history(field).into_iter().flat_map(|values| values.iter());
    for (index, (draft, critique)) in history("draft").zip(history("critique")).enumerate() {
        let score = critique.get("score").map(plain).unwrap_or_default();
        println!("\ndraft {}: {}", index + 1, plain(draft));
        println!("score {score}");
        let weaknesses = critique.get("weaknesses").and_then(|list| list.as_list());
        for weakness in weaknesses.unwrap_or_default() {
            println!("  - {}", plain(weakness));
        }
    }
    let reason = match context.operational.signals.contains("GOOD_ENOUGH") {
        true => "good enough",
        false => "no drafts left",
    };
    let best = context.value("best").context("no draft was chosen")?;
    let number = best.get("number").map(plain).unwrap_or_default();
    println!("\npublished: draft {number} ({reason})");

    // Writer and editor share one conversation, each with a system prompt of its own.
    let turns = engine.conversation(&finished.execution).await?.turns().await?;
    println!("{} turns of conversation; {}", turns.len(), costs(&context));
    Ok(())
}
