//! An agent that reads files in a folder, and answers a question with its sources.
//!
//! `cargo run -q -p soe-examples --bin 12-file-agent`, and the same with `-- --native-tools`

mod files;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use soe_backends::EventKind;
use soe_core::config::Config;
use soe_core::runtime::{Engine, EngineBuilder, Orchestration};
use soe_examples::{LlmArgs, costs, plain};

use files::Library;

const LIBRARY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/12-file-agent/library");

/// Answers a question from the files of a folder.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    llm: LlmArgs,
    /// The LLM calls tools natively: one request a turn, instead of one to decide and one for the arguments
    #[arg(long)]
    native_tools: bool,
    /// The folder; nothing outside of it is read
    #[arg(long, default_value = LIBRARY)]
    folder: PathBuf,
    /// The question; with the mocked LLM, leave it and the folder as they are
    #[arg(long, default_value = "How long are backups kept?")]
    question: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let llm = cli
        .llm
        .caller_with_tools(include_str!("replies.yaml"), cli.native_tools)?;
    let library = Library::open(&cli.folder).with_context(|| format!("no folder {}", cli.folder.display()))?;
    let builder = library.tools().into_iter().fold(Engine::builder(), EngineBuilder::tool);
    let engine = builder.llm(llm).build()?;
    let config = Config::from_yaml(include_str!("workflow.yaml"))?;

    println!("question: {}", cli.question);
    let start = Orchestration::new(config, "research")
        .signal("START")
        .field("question", cli.question);
    let finished = engine.orchestrate(start).await?;

    // What the agent did is in the events.
    for event in engine.telemetry(&finished.execution, 0, 10_000).await? {
        match event.kind {
            EventKind::AgentToolCall {
                tool_name, tool_args, ..
            } => println!("calls {tool_name} {tool_args}"),
            EventKind::AgentToolResult { result_preview, .. } => println!("  gets {}", first_line(&result_preview)),
            EventKind::NodeError { error, .. } => println!("  error: {error}"),
            _ => {}
        }
    }
    let context = engine.context(&finished.execution).await?;
    let answer = context.value("answer").context("the agent gave no answer")?;
    println!("answer: {}", answer.get("text").map(plain).unwrap_or_default());
    for source in answer
        .get("sources")
        .and_then(|list| list.as_list())
        .unwrap_or_default()
    {
        println!("source: {}", plain(source));
    }
    match context.operational.signals.contains("SOURCES_FOUND") {
        true => println!("all sources exist"),
        false => println!("sources are missing: don't trust the answer"),
    }
    println!("{}", costs(&context));
    Ok(())
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match text.lines().count() {
        0 | 1 => line.to_owned(),
        lines => format!("{line} ... ({lines} lines)"),
    }
}
