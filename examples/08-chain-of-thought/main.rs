//! A chain of thought: four llm nodes in a row, with the context between them, and a schema for the answer.
//!
//! `cargo run -q -p soe-examples --bin 08-chain-of-thought`

use anyhow::Context as _;
use clap::Parser;
use soe_backends::Value;
use soe_core::config::Config;
use soe_core::runtime::{Engine, Orchestration};
use soe_examples::{LlmArgs, costs, errors, plain, text};

const PROBLEM: &str = "A tank holds 240 litres, and 60 litres are in it. A pump fills in 18 litres a minute, and a leak \
                       loses 3 litres a minute. How long does it take until the tank is full?";

/// Solves a problem step by step.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    llm: LlmArgs,
    /// The problem; with the mocked LLM, leave it as it is
    #[arg(long, default_value = PROBLEM)]
    problem: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let llm = cli.llm.caller(include_str!("replies.yaml"))?;
    let engine = Engine::builder().llm(llm).build()?;
    let config = Config::from_yaml(include_str!("workflow.yaml"))?;

    println!("problem: {}", cli.problem);
    let start = Orchestration::new(config, "reasoning")
        .signal("START")
        .field("problem", cli.problem);
    let finished = engine.orchestrate(start).await?;

    let context = engine.context(&finished.execution).await?;
    for fact in context.value("facts").and_then(Value::as_list).unwrap_or_default() {
        println!("fact: {}", plain(fact));
    }
    println!("plan: {}", text(&context, "plan"));
    println!("working: {}", text(&context, "working"));

    for error in errors(&engine, &finished.execution).await? {
        println!("error: {error}");
    }

    // The schema has seen to it that these are there, and that the value is a number.
    let answer = context
        .value("answer")
        .context("the LLM gave no answer that fits the schema")?;
    let part = |key: &str| answer.get(key).map(plain).unwrap_or_default();
    println!("answer: {} {}. {}", part("value"), part("unit"), part("explanation"));
    println!("{}", costs(&context));
    Ok(())
}
