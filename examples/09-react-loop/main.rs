//! ReAct from parts: an llm node thinks, a router chooses the tool, the tool's result is the next observation.
//!
//! `cargo run -q -p soe-examples --bin 09-react-loop`

mod tools;

use clap::Parser;
use soe_core::config::Config;
use soe_core::runtime::{Engine, EngineBuilder, Orchestration};
use soe_examples::{LlmArgs, costs, count, errors, plain};

const QUESTION: &str = "By how much is a cube of gold of 10 cm heavier than one of aluminium?";

/// Answers a question about materials, step by step.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    llm: LlmArgs,
    /// The question; with the mocked LLM, leave it as it is
    #[arg(long, default_value = QUESTION)]
    question: String,
    /// After so many thoughts without an answer, it is given up
    #[arg(long, default_value_t = 8)]
    max_steps: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let llm = cli.llm.caller(include_str!("replies.yaml"))?;
    let builder = tools::tools().into_iter().fold(Engine::builder(), EngineBuilder::tool);
    let engine = builder.llm(llm).build()?;
    let config = Config::from_yaml(include_str!("workflow.yaml"))?;

    println!("question: {}", cli.question);
    let start = Orchestration::new(config, "react")
        .signal("START")
        .field("question", cli.question)
        .field("max_steps", cli.max_steps);
    let finished = engine.orchestrate(start).await?;

    let context = engine.context(&finished.execution).await?;
    let history = |field: &str| context.history(field).into_iter().flat_map(|values| values.iter());
    let mut observations = history("observation");
    let mut answer = None;
    for step in history("step") {
        let part = |key: &str| step.get(key).map(plain).unwrap_or_default();
        println!("\nthought: {}", part("thought"));
        if part("action") == "answer" {
            answer = Some(part("input"));
            continue;
        }
        println!("action: {}({})", part("action"), part("input"));
        match observations.next() {
            Some(observation) => println!("observation: {}", plain(observation)),
            None => println!("this action is not taken: the steps are used up"),
        }
    }
    for error in errors(&engine, &finished.execution).await? {
        println!("error: {error}");
    }
    match answer {
        Some(answer) => println!("\nanswer: {answer}"),
        None => println!("\ngave up after {}", count(history("step").count() as u64, "thought")),
    }
    println!("{}", costs(&context));
    Ok(())
}
