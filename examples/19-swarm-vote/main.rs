//! A swarm: twelve voters are asked at the same time, an exact join counts them, and a chair breaks a tie.
//!
//! `cargo run -q -p soe-examples --bin 19-swarm-vote`, and a tie: `-- --voters 10`

mod voters;

use std::time::Instant;

use clap::Parser;
use soe_core::config::Config;
use soe_core::runtime::{Engine, Orchestration};
use soe_examples::{LlmArgs, count, errors, plain, signals};

/// Has twelve citizens vote on a proposal.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    llm: LlmArgs,
    /// What they vote on; with the mocked LLM, leave it as it is
    #[arg(long, default_value = "On Sundays, Mill Lane is closed to cars.")]
    proposal: String,
    /// How many of the twelve vote
    #[arg(long, default_value_t = 12)]
    voters: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    // At most so many requests at a time; the others wait. Endpoints have limits too.
    let llm = cli.llm.caller(include_str!("replies.yaml"))?;
    let engine = Engine::builder().llm(llm).max_llm_calls(12).build()?;
    let config = Config::from_yaml(include_str!("workflow.yaml"))?;

    println!("proposal: {}", cli.proposal);
    let began = Instant::now();
    let start = Orchestration::new(config, "council")
        .signal("START")
        .field("proposal", cli.proposal)
        .field("voters", serde_json::to_value(voters::voters(cli.voters))?);
    let finished = engine.orchestrate(start).await?;
    let elapsed = began.elapsed();

    let context = engine.context(&finished.execution).await?;
    let show = |field: &str, [yes, no]: [&str; 2]| {
        for vote in context.history(field).into_iter().flat_map(|votes| votes.iter()) {
            let is_yes = vote.get("yes").and_then(|yes| yes.as_bool()).unwrap_or(false);
            let reason = vote.get("reason").map(plain).unwrap_or_default();
            println!("{}: {reason}", if is_yes { yes } else { no });
        }
    };
    show("vote", ["for", "against"]);
    show("casting_vote", ["the chair is for it", "the chair is against it"]);
    for error in errors(&engine, &finished.execution).await? {
        println!("error: {error}");
    }
    let runs = |node: &str| count(context.operational.nodes.get(node).copied().unwrap_or(0), "time");
    println!("Tally was evaluated {}, Decide {}", runs("Tally"), runs("Decide"));
    println!("signals: {}", signals(&context));
    // The requests were made in the children: `tree` has the totals.
    let tree = &context.operational.tree;
    println!(
        "{}, {}; {} ms",
        count(tree.llm_calls, "request"),
        count(tree.tokens, "token"),
        elapsed.as_millis()
    );
    Ok(())
}
