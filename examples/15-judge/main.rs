//! The judge pattern: several LLMs write at the same time, another picks the best and has it revised until it is good.
//!
//! `cargo run -q -p soe-examples --bin 15-judge`

use clap::Parser;
use soe_core::config::Config;
use soe_core::runtime::{Engine, Orchestration};
use soe_examples::{LlmArgs, costs, errors, plain, signals};

/// Has three LLMs write a slogan, and a fourth judge.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    llm: LlmArgs,
    /// What the slogan is for; with the mocked LLMs, leave it as it is
    #[arg(long, default_value = "a bicycle workshop with a coffee bar")]
    product: String,
    /// A slogan with this score is accepted
    #[arg(long, default_value_t = 8)]
    good: u32,
    /// The judge is asked so many times at most
    #[arg(long, default_value_t = 4)]
    max_rounds: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    // With `--llm openai --model w,x,y,z`, each writer is another model, and the judge is the fourth.
    let [a, b, c, judge] = cli.llm.callers(include_str!("replies.yaml"))?;
    let engine = Engine::builder()
        .named_llm("a", a)
        .named_llm("b", b)
        .named_llm("c", c)
        .named_llm("judge", judge)
        .build()?;
    let config = Config::from_yaml(include_str!("workflow.yaml"))?;

    let start = Orchestration::new(config, "contest")
        .signal("START")
        .field("product", cli.product)
        .field("words", 12)
        .field("good", cli.good)
        .field("max_rounds", cli.max_rounds);
    let finished = engine.orchestrate(start).await?;

    let context = engine.context(&finished.execution).await?;
    let history = |field: &str| context.history(field).into_iter().flat_map(|values| values.iter());
    for (number, slogan) in (1..).zip(history("slogans")) {
        println!("slogan {number}: {}", plain(slogan));
    }
    for verdict in history("verdict") {
        let part = |key: &str| verdict.get(key).map(plain).unwrap_or_default();
        println!(
            "verdict: number {}, score {}: {}",
            part("best"),
            part("score"),
            part("advice")
        );
    }
    for error in errors(&engine, &finished.execution).await? {
        println!("error: {error}");
    }
    let signals = signals(&context);
    println!("signals: {signals}");
    let best = context
        .value("verdict")
        .and_then(|verdict| verdict.get("best")?.as_i64());
    let best = best.and_then(|number| history("slogans").nth(usize::try_from(number).ok()?.checked_sub(1)?));
    match (best, signals.ends_with("ACCEPTED")) {
        (Some(best), true) => println!("accepted: {}", plain(best)),
        (Some(best), false) => println!("the best so far, not accepted: {}", plain(best)),
        (None, _) => println!("there is no winner"),
    }
    println!("{}", costs(&context));
    Ok(())
}
