//! Fan-out and fan-in: a child for each item of a list, and a join that passes once, with the last of them.
//!
//! `cargo run -q -p soe-examples --bin 14-fan-out`, and with hosts of your own: `-- web-1 db-1 old-1`

mod tools;

use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use soe_core::config::Config;
use soe_core::runtime::{Engine, EngineBuilder, Orchestration};
use soe_examples::{count, text};

/// Backs hosts up, all at the same time.
#[derive(Parser)]
struct Cli {
    /// The hosts: `db-...` breaks off once, `old-...` never answers
    hosts: Vec<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let engine = tools::tools().into_iter().fold(Engine::builder(), EngineBuilder::tool);
    let engine = engine.build()?;
    let config = Arc::new(Config::from_yaml(include_str!("workflow.yaml"))?);
    if !cli.hosts.is_empty() {
        return back_up(&engine, &config, cli.hosts).await;
    }
    for hosts in [
        vec!["web-1", "web-2", "db-1", "mail-1"],
        vec!["web-1", "old-1", "db-1", "old-2"],
        vec!["web-1"],
        vec![],
    ] {
        back_up(&engine, &config, hosts.into_iter().map(str::to_owned).collect()).await?;
    }
    Ok(())
}

async fn back_up(engine: &Engine, config: &Arc<Config>, hosts: Vec<String>) -> anyhow::Result<()> {
    println!("hosts: {hosts:?}");
    let began = Instant::now();
    let start = Orchestration::new(config.clone(), "nightly")
        .signal("START")
        .field("hosts", hosts);
    // The execution rests when all of its children do, so this waits for the whole tree.
    let finished = engine.orchestrate(start).await?;

    let context = engine.context(&finished.execution).await?;
    let runs = |node: &str| count(context.operational.nodes.get(node).copied().unwrap_or(0), "time");
    println!("  report: {}", text(&context, "report"));
    println!("  Join was evaluated {}, Report ran {}", runs("Join"), runs("Report"));
    println!("  {} ms", began.elapsed().as_millis());
    Ok(())
}
