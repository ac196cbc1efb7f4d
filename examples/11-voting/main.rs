//! Three LLMs vote at the same time, and an exact join counts the ballots.
//!
//! `cargo run -q -p soe-examples --bin 11-voting`

use std::time::Instant;

use clap::Parser;
use soe_core::config::Config;
use soe_core::runtime::{Engine, Orchestration};
use soe_examples::{LlmArgs, costs, count, errors, plain, signals};

/// Has three LLMs decide whether a comment is published.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    llm: LlmArgs,
    /// What the comment is about
    #[arg(
        long,
        default_value = "Small shops in the old town are closing, one after the other."
    )]
    article: String,
    /// The comment; with the mocked LLMs, leave it as it is
    #[arg(
        long,
        default_value = "Not all of them: the bakery in Mill Lane is open again, and its bread is the best."
    )]
    comment: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    // With `--llm openai --model x,y,z`, each voter is another model.
    let [a, b, c] = cli.llm.callers(include_str!("replies.yaml"))?;
    let engine = Engine::builder()
        .named_llm("a", a)
        .named_llm("b", b)
        .named_llm("c", c)
        .build()?;
    let config = Config::from_yaml(include_str!("workflow.yaml"))?;

    println!("comment: {}", cli.comment);
    let started = Instant::now();
    let start = Orchestration::new(config, "moderation")
        .signal("START")
        .field("article", cli.article)
        .field("comment", cli.comment)
        .field("voters", 3);
    let finished = engine.orchestrate(start).await?;
    let elapsed = started.elapsed();

    let context = engine.context(&finished.execution).await?;
    for vote in context.history("votes").into_iter().flat_map(|votes| votes.iter()) {
        let keep = vote.get("keep").and_then(|keep| keep.as_bool()).unwrap_or(false);
        let reason = vote.get("reason").map(plain).unwrap_or_default();
        println!("{}: {reason}", if keep { "keep" } else { "drop" });
    }
    for error in errors(&engine, &finished.execution).await? {
        println!("error: {error}");
    }
    println!("signals: {}", signals(&context));
    let times = |wanted: &str| {
        context
            .operational
            .signals
            .iter()
            .filter(|name| name.as_ref() == wanted)
            .count() as u64
    };
    let looked = context.operational.nodes.get("Tally").copied().unwrap_or(0);
    println!(
        "Tally was evaluated {} and passed {}",
        count(looked, "time"),
        count(times("TALLIED"), "time")
    );
    println!("{}; {} ms", costs(&context), elapsed.as_millis());
    Ok(())
}
