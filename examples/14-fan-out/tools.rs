//! What a backup does for one host, and what is reported of all of them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use soe_core::tools::{ToolContext, ToolDefinition, ToolError, tool_fn};
use tokio::time::sleep;

#[derive(Deserialize, JsonSchema)]
struct BackUp {
    host: String,
}

#[derive(Deserialize, Serialize, JsonSchema)]
struct Stored {
    host: String,
    gigabytes: u64,
}

/// A child's outcome: what its tool returned, or the text of the tool's error.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Outcome {
    Stored(Stored),
    Failed(String),
}

#[derive(Deserialize, JsonSchema)]
struct Outcomes {
    outcomes: Vec<Outcome>,
}

#[derive(Default, Serialize)]
struct Report {
    stored: usize,
    gigabytes: u64,
    failed: Vec<String>,
}

/// Both tools. At most eight hosts are backed up at a time, whatever the length of the list: the others wait.
pub fn tools() -> [ToolDefinition; 2] {
    let back_up = tool_fn("back_up", "Backs a host up.", back_up);
    let report = tool_fn("report", "Adds the outcomes up.", report);
    [back_up.retries(1).failure_signal("FAILED").concurrency(8), report]
}

/// Stands for a real backup. A host whose name begins with `old` never answers, and a `db` breaks off once.
async fn back_up(args: BackUp, context: ToolContext) -> Result<Stored, ToolError> {
    let kind = args.host.split('-').next().unwrap_or_default();
    let (millis, gigabytes) = if kind == "db" { (300, 120) } else { (100, 15) };
    sleep(Duration::from_millis(millis)).await;
    match kind {
        "old" => Err(ToolError::new(format!("{} doesn't answer", args.host))),
        "db" if context.attempt() == 1 => Err(ToolError::new(format!("{} broke off", args.host))),
        _ => Ok(Stored {
            host: args.host,
            gigabytes,
        }),
    }
}

/// The children end in any order. Sums don't depend on it, lists have to be sorted.
async fn report(args: Outcomes, _: ToolContext) -> Result<Report, ToolError> {
    let mut report = Report::default();
    for outcome in args.outcomes {
        match outcome {
            Outcome::Stored(stored) => {
                report.stored += 1;
                report.gigabytes += stored.gigabytes;
            }
            Outcome::Failed(error) => report.failed.push(error),
        }
    }
    report.failed.sort();
    Ok(report)
}
