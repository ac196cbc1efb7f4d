//! Structured extraction: an LLM reads an invoice into nested objects and lists, and a typed tool checks what it read.
//!
//! `cargo run -q -p soe-examples --bin 13-extraction`

mod order;

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use soe_backends::{EventKind, Value};
use soe_core::config::Config;
use soe_core::runtime::{Engine, Orchestration};
use soe_examples::{LlmArgs, costs, plain};

/// Reads an invoice.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    llm: LlmArgs,
    /// A text file; without it, the example's own, which the mocked LLM needs
    #[arg(long)]
    invoice: Option<PathBuf>,
    /// After so many readings that don't add up, a person has to look
    #[arg(long, default_value_t = 3)]
    max_readings: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let llm = cli.llm.caller(include_str!("replies.yaml"))?;
    let engine = Engine::builder().llm(llm).tool(order::check_order()).build()?;
    let config = Config::from_yaml(include_str!("workflow.yaml"))?;
    let invoice = match &cli.invoice {
        Some(file) => fs::read_to_string(file).with_context(|| format!("no invoice in {}", file.display()))?,
        None => include_str!("invoice.txt").to_owned(),
    };

    let start = Orchestration::new(config, "invoices")
        .signal("START")
        .field("invoice", invoice)
        .field("max_readings", cli.max_readings);
    let finished = engine.orchestrate(start).await?;

    for event in engine.telemetry(&finished.execution, 0, 10_000).await? {
        if let EventKind::NodeError { error, .. } = event.kind {
            println!("{error}");
        }
    }
    let context = engine.context(&finished.execution).await?;
    for check in context.history("check").into_iter().flat_map(|checks| checks.iter()) {
        let problems = check.get("problems").and_then(Value::as_list).unwrap_or_default();
        problems
            .iter()
            .for_each(|problem| println!("the tool says: {}", plain(problem)));
    }
    let check = context.value("check");
    let summary = check.and_then(|check| check.get("summary")).and_then(Value::as_list);
    summary
        .unwrap_or_default()
        .iter()
        .for_each(|line| println!("{}", plain(line)));
    let accepted = context.operational.signals.contains("ORDER_ACCEPTED");
    let total = check.and_then(|check| check.get("total_cents")).and_then(Value::as_i64);
    match total.filter(|_| accepted) {
        Some(cents) => println!("accepted: {}", order::money(cents)),
        None => println!("not accepted: a person has to look at it"),
    }
    println!("{}", costs(&context));
    Ok(())
}
