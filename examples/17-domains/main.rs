//! A pipeline of domains: intake, pricing and fulfilment are workflows of their own, which share what is listed and no more.
//!
//! `cargo run -q -p soe-examples --bin 17-domains`

mod shop;

use std::sync::Arc;

use soe_backends::ExecutionId;
use soe_core::config::Config;
use soe_core::runtime::{Engine, EngineBuilder, Orchestration};
use soe_examples::{plain, signals};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let engine = shop::tools().into_iter().fold(Engine::builder(), EngineBuilder::tool);
    let engine = engine.build()?;
    let config = Arc::new(Config::from_yaml(include_str!("workflow.yaml"))?);
    let messages = ["Ada: 12 posters", "Ben: some posters", "Cleo: 9 posters"];
    for (number, message) in (1..).zip(messages) {
        println!("{message}");
        let start = Orchestration::new(config.clone(), "order")
            .id(ExecutionId::new(format!("order-{number}"))?)
            .signal("START")
            .field("message", message);
        let finished = engine.orchestrate(start).await?;
        show_tree(&engine, &finished.execution).await?;
    }
    Ok(())
}

/// What each execution of a tree knows in the end, in the order in which they began.
async fn show_tree(engine: &Engine, root: &ExecutionId) -> anyhow::Result<()> {
    for execution in engine.tree(root).await?.executions.values() {
        let context = &execution.context;
        println!("  {}: {}", execution.workflow, signals(context));
        for (field, history) in context.fields.iter() {
            println!("    {field}: {}", history.last().map(plain).unwrap_or_default());
        }
    }
    Ok(())
}
