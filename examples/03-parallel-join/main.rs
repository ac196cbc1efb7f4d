//! Parallel tools and exact joins: five tools run at the same time, and what waits for them runs once.
//!
//! `cargo run -q -p soe-examples --bin 03-parallel-join`

use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use soe_core::config::Config;
use soe_core::runtime::{Engine, Orchestration};
use soe_core::tools::{ToolContext, ToolError, tool_fn};
use soe_examples::count;
use tokio::time::sleep;

#[derive(Deserialize, JsonSchema)]
struct AskArgs {
    insurer: String,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
struct Quote {
    insurer: String,
    cents: u64,
}

#[derive(Deserialize, JsonSchema)]
struct RiskArgs {
    customer: String,
}

/// How long an insurer takes to answer, and what it asks for.
fn insurer(name: &str) -> Option<(Duration, u64)> {
    let (millis, cents) = match name {
        "Alpha" => (400, 51_900),
        "Beta" => (300, 47_500),
        "Gamma" => (350, 49_000),
        "Delta" => (300, 53_200),
        _ => return None,
    };
    Some((Duration::from_millis(millis), cents))
}

async fn ask_insurer(args: AskArgs, _: ToolContext) -> Result<Quote, ToolError> {
    let Some((delay, cents)) = insurer(&args.insurer) else {
        return Err(ToolError::new(format!("there is no insurer '{}'", args.insurer)).no_retry());
    };
    sleep(delay).await;
    Ok(Quote {
        insurer: args.insurer,
        cents,
    })
}

async fn assess_risk(args: RiskArgs, _: ToolContext) -> Result<String, ToolError> {
    sleep(Duration::from_millis(350)).await;
    Ok(format!("{} is careful", args.customer))
}

async fn cheapest(quotes: Vec<Quote>, _: ToolContext) -> Result<Quote, ToolError> {
    let choice = quotes.into_iter().min_by_key(|quote| quote.cents);
    choice.ok_or_else(|| ToolError::new("there is no quote").no_retry())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let engine = Engine::builder()
        .tool(tool_fn("ask_insurer", "Asks an insurer for a quote.", ask_insurer))
        .tool(tool_fn("assess_risk", "Assesses a customer's risk.", assess_risk))
        .tool(tool_fn("cheapest", "Picks the cheapest quote.", cheapest).process_accumulated())
        .build()?;
    let config = Config::from_yaml(include_str!("workflow.yaml"))?;

    let started = Instant::now();
    let start = Orchestration::new(config, "insurance")
        .signal("START")
        .field("customer", "Ada")
        .field("insurers", 4);
    let finished = engine.orchestrate(start).await?;
    let elapsed = started.elapsed();

    let context = engine.context(&finished.execution).await?;
    for quote in context.history("quotes").into_iter().flat_map(|quotes| quotes.iter()) {
        println!("quote: {quote}");
    }
    if let Some(choice) = context.value("choice") {
        println!("choice: {choice}");
    }
    println!(
        "signals: {}",
        context
            .operational
            .signals
            .iter()
            .map(AsRef::as_ref)
            .collect::<Vec<_>>()
            .join(" ")
    );
    for node in ["AllQuotes", "Both", "Choose"] {
        let runs = context.operational.nodes.get(node).copied().unwrap_or(0);
        println!("{node} ran {}", count(runs, "time"));
    }
    println!(
        "elapsed: {} ms; one after the other it would be 1700 ms",
        elapsed.as_millis()
    );
    Ok(())
}
