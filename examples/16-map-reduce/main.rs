//! Map and reduce over real files: a child counts each file's words, the parent adds them up.
//!
//! `cargo run -q -p soe-examples --bin 16-map-reduce`, and over other files: `-- docs --most 10`

mod tools;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use soe_backends::Value;
use soe_core::config::Config;
use soe_core::runtime::{Engine, EngineBuilder, Orchestration};
use soe_examples::{errors, plain};

const TEXTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/16-map-reduce/texts");

/// Counts the words of the text files (.txt, .md) in a folder.
#[derive(Parser)]
struct Cli {
    /// The folder
    #[arg(default_value = TEXTS)]
    folder: PathBuf,
    /// So many of the most frequent words are shown
    #[arg(long, default_value_t = 5)]
    most: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let engine = tools::tools().into_iter().fold(Engine::builder(), EngineBuilder::tool);
    let engine = engine.build()?;
    let config = Config::from_yaml(include_str!("workflow.yaml"))?;
    let folder = cli.folder.to_str().context("the folder's name is no text")?;

    let start = Orchestration::new(config, "word_count")
        .signal("START")
        .field("folder", folder)
        .field("most", cli.most);
    let finished = engine.orchestrate(start).await?;

    let context = engine.context(&finished.execution).await?;
    for error in errors(&engine, &finished.execution).await? {
        println!("error: {error}");
    }
    let total = context.value("total").context("nothing was counted")?;
    let rows = |key: &str| total.get(key).and_then(|rows| rows.as_list()).unwrap_or_default();
    let part = |row: &Value, key: &str| row.get(key).map(plain).unwrap_or_default();
    for file in rows("files") {
        println!(
            "{:>7} {:>5} {}",
            part(file, "words"),
            part(file, "lines"),
            part(file, "file")
        );
    }
    for file in rows("unreadable") {
        println!("      -     - {} can't be read", plain(file));
    }
    println!("{:>7} {:>5} total", part(total, "words"), part(total, "lines"));
    for word in rows("most_frequent") {
        println!(
            "{:>7} {} (files: {})",
            part(word, "times"),
            part(word, "word"),
            part(word, "files")
        );
    }
    Ok(())
}
