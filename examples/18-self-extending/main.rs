//! An agent that extends its own workflow: it reads the documentation, injects a node, and may give it no more than it has.
//!
//! `cargo run -q -p soe-examples --bin 18-self-extending`

mod tools;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use soe_backends::{EventKind, ExecutionId};
use soe_core::config::Config;
use soe_core::llm::LlmCaller;
use soe_core::policy::Policy;
use soe_core::runtime::{Engine, EngineBuilder, Orchestration};
use soe_core::testing::{Player, Recorder};
use soe_examples::{LlmArgs, costs, signals, text};

/// Has an agent add a node to the workflow that it runs in.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    llm: LlmArgs,
    /// What the agent is to see to; with the mocked LLM, leave it as it is
    #[arg(long, default_value = "Count the words of each article, and publish it.")]
    task: String,
    /// Writes what the LLM is asked and answers to this file
    #[arg(long)]
    record: Option<PathBuf>,
    /// Answers from such a file, and asks no LLM
    #[arg(long, conflicts_with = "record")]
    replay: Option<PathBuf>,
}

impl Cli {
    fn caller(&self) -> anyhow::Result<Arc<dyn LlmCaller>> {
        if let Some(path) = &self.replay {
            println!("LLM: replayed from {}", path.display());
            return Ok(Arc::new(Player::open(path)?));
        }
        let llm = self.llm.caller(include_str!("replies.yaml"))?;
        Ok(match &self.record {
            Some(path) => Arc::new(Recorder::create(path, llm)?),
            None => llm,
        })
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    // No built-in tools but these, and no more than five changes. That what is injected may use the tools of the injecting
    // node alone is the default; `escalation(true)` would lift it.
    let policy = Policy::default()
        .only(["soe_explore_docs", "soe_inject_node"])
        .max_changes(5);
    let builder = tools::tools().into_iter().fold(Engine::builder(), EngineBuilder::tool);
    let engine = builder.llm(cli.caller()?).policy(policy).build()?;
    let config = Config::from_yaml(include_str!("workflow.yaml"))?;

    let start = Orchestration::new(config, "desk")
        .signal("START")
        .field("task", cli.task);
    let execution = engine.orchestrate(start).await?.execution;
    show_agent(&engine, &execution).await?;

    // The workflow has what it needs now. Two more articles come in, and the LLM is not asked.
    for _ in 0..2 {
        engine.broadcast_signals(&execution, ["NEXT"]).await?;
        engine.wait(&execution).await?;
    }
    let context = engine.context(&execution).await?;
    let history = |field: &str| context.history(field).into_iter().flat_map(|values| values.iter());
    for (article, words) in history("article").zip(history("words")) {
        println!("{words} words: {article}");
    }
    println!("report: {}", text(&context, "report"));
    println!("signals: {}", signals(&context));
    println!("{}", costs(&context));
    Ok(())
}

/// What the agent did is in the events: its calls, what was refused, and each change of the workflow.
async fn show_agent(engine: &Engine, execution: &ExecutionId) -> anyhow::Result<()> {
    for event in engine.telemetry(execution, 0, 10_000).await? {
        match event.kind {
            EventKind::AgentToolCall {
                tool_name, tool_args, ..
            } => println!("calls {tool_name} {tool_args}"),
            EventKind::PolicyDenied { reason, .. } => println!("  refused: {reason}"),
            EventKind::WorkflowChanged { .. } => println!("  the workflow is changed"),
            _ => {}
        }
    }
    Ok(())
}
