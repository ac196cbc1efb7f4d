//! What the engine can do here. The agent is granted the first of these tools; the last is forbidden to it.

use std::sync::atomic::{AtomicUsize, Ordering};

use schemars::JsonSchema;
use serde::Deserialize;
use soe_core::tools::{NoArguments, ToolDefinition, ToolError, tool_fn};

const ARTICLES: [&str; 3] = [
    "The bakery in Mill Lane is open again.",
    "The river is high, but nobody has to leave the house.",
    "Two trains a day are enough, says the council.",
];

#[derive(Deserialize, JsonSchema)]
struct Text {
    text: String,
}

/// The tools, with three articles to fetch.
pub fn tools() -> [ToolDefinition; 3] {
    let fetched = AtomicUsize::new(0);
    [
        tool_fn(
            "count_words",
            "Counts the words of a text.",
            |args: Text, _| async move { Ok(args.text.split_whitespace().count()) },
        ),
        tool_fn("next_article", "The next article.", move |_: NoArguments, _| {
            let article = ARTICLES.get(fetched.fetch_add(1, Ordering::Relaxed));
            async move { article.ok_or_else(|| ToolError::new("there are no more articles").no_retry()) }
        }),
        tool_fn(
            "publish",
            "Prints a text in tomorrow's paper.",
            |args: Text, _| async move {
                println!("PUBLISHED: {}", args.text);
                Ok(true)
            },
        ),
    ]
}
