//! Human approval: an execution rests until a person decides, and goes on in another process, days later if need be.
//!
//! ```text
//! cargo run -q -p soe-examples --bin 05-human-approval -- start DIR 250 "a new chair"
//! cargo run -q -p soe-examples --bin 05-human-approval -- approve DIR ID      (or: reject DIR ID)
//! ```

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use schemars::JsonSchema;
use serde::Deserialize;
use soe_backends::{Backends, ExecutionId, Value};
use soe_core::config::Config;
use soe_core::runtime::{Engine, Orchestration};
use soe_core::tools::tool_fn;

/// Pays expenses; large ones wait for an approval.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Hands an expense in
    Start {
        /// The folder in which executions are kept
        dir: PathBuf,
        amount: u32,
        purpose: String,
    },
    /// Approves an expense that waits
    Approve { dir: PathBuf, id: ExecutionId },
    /// Rejects an expense that waits
    Reject { dir: PathBuf, id: ExecutionId },
}

#[derive(Deserialize, JsonSchema)]
struct NotifyArgs {
    message: String,
}

#[derive(Deserialize, JsonSchema)]
struct PayArgs {
    amount: u32,
}

/// Every process builds its engine in the same way; what they share is the store.
fn engine(dir: &PathBuf) -> anyhow::Result<Engine> {
    let engine = Engine::builder()
        .backends(Backends::file(dir)?)
        // A real one would send a mail with two links that name the execution.
        .tool(tool_fn(
            "notify",
            "Asks the manager.",
            |args: NotifyArgs, context| async move {
                println!("to the manager: {} [{}]", args.message, context.execution_id());
                Ok("sent")
            },
        ))
        .tool(tool_fn("pay", "Pays an amount.", |args: PayArgs, context| async move {
            Ok(format!(
                "{} euros, reference {}",
                args.amount,
                context.idempotency_key()
            ))
        }))
        .build()?;
    Ok(engine)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (engine, id) = match Cli::parse().command {
        Command::Start { dir, amount, purpose } => {
            let engine = engine(&dir)?;
            let config = Config::from_yaml(include_str!("workflow.yaml"))?;
            let start = Orchestration::new(config, "expenses")
                .signal("START")
                .field("amount", amount)
                .field("purpose", purpose);
            let finished = engine.orchestrate(start).await?;
            (engine, finished.execution)
        }
        Command::Approve { dir, id } => decide(engine(&dir)?, id, "APPROVED").await?,
        Command::Reject { dir, id } => decide(engine(&dir)?, id, "REJECTED").await?,
    };

    let context = engine.context(&id).await?;
    let signals = &context.operational.signals;
    match context.value("payment").and_then(Value::as_str) {
        Some(payment) => println!("{id}: paid ({payment})"),
        None if signals.contains("CLOSED_UNPAID") => println!("{id}: rejected"),
        None => println!("{id}: waits for a decision"),
    }
    Ok(())
}

async fn decide(engine: Engine, id: ExecutionId, signal: &str) -> anyhow::Result<(Engine, ExecutionId)> {
    engine.broadcast_signals(&id, [signal]).await?;
    engine.wait(&id).await?;
    Ok((engine, id))
}
