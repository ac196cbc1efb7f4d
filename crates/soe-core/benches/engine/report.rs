//! The table of ratios, and what an execution leaves in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use soe_backends::Backends;
use soe_core::config::Config;
use soe_core::runtime::{Engine, Orchestration};
use soe_core::tools::{ToolContext, ToolError, raw_tool};
use tokio::runtime::Runtime;

use crate::workloads;

/// Prints what criterion has measured in this run, per unit.
pub(crate) fn print() {
    let folder = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
    let here = Path::new(&folder);
    let above = Path::new("../..").join(here);
    let root = if here.join("criterion").exists() {
        here.join("criterion")
    } else {
        above.join("criterion")
    };
    let mut rows = BTreeMap::<(String, u64), [Option<f64>; 2]>::new();
    let Ok(groups) = std::fs::read_dir(&root) else { return };
    for group in groups.flatten() {
        for (column, kind) in ["baseline", "soe"].into_iter().enumerate() {
            let Ok(sizes) = std::fs::read_dir(group.path().join(kind)) else {
                continue;
            };
            for size in sizes.flatten() {
                let Ok(units) = size.file_name().to_string_lossy().parse::<u64>() else {
                    continue;
                };
                let name = group.file_name().to_string_lossy().into_owned();
                let median = median(&size.path().join("new/estimates.json"));
                rows.entry((name, units)).or_default()[column] = median.map(|nanos| nanos / units as f64);
            }
        }
    }
    println!(
        "\n{:<28} {:>8} {:>14} {:>14} {:>7}",
        "workload", "units", "baseline us", "soe us", "ratio"
    );
    for ((name, units), [baseline, soe]) in rows {
        if let (Some(baseline), Some(soe)) = (baseline, soe) {
            let ratio = soe / baseline;
            println!(
                "{name:<28} {units:>8} {:>14.3} {:>14.3} {ratio:>7.2}",
                baseline / 1e3,
                soe / 1e3
            );
        }
    }
}

fn median(file: &Path) -> Option<f64> {
    let estimates: Value = serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()?;
    estimates["median"]["point_estimate"].as_f64()
}

/// Prints the memory that a finished execution holds in the memory store.
pub(crate) fn memory(runtime: &Runtime) {
    const EXECUTIONS: u64 = 20_000;
    async fn nothing(_: Value, _: ToolContext) -> Result<Value, ToolError> {
        Ok(1.into())
    }
    let config = Config::from_yaml(&workloads::three_nodes()).unwrap_or_else(|error| panic!("{error}"));
    let config = Arc::new(config);
    let tool = raw_tool("nothing", "Does nothing.", nothing);
    let engine = Engine::builder()
        .backends(Backends::memory())
        .tool(tool)
        .build()
        .expect("an engine");
    runtime.block_on(async {
        let run = async |count: u64| {
            let mut last = None;
            for _ in 0..count {
                let orchestration = Orchestration::new(config.clone(), "w").signal("START");
                last = Some(engine.orchestrate(orchestration).await.expect("it rests").execution);
            }
            last
        };
        run(1_000).await;
        let before = resident();
        let last = run(EXECUTIONS).await.expect("there was one");
        let held = resident().saturating_sub(before) / EXECUTIONS;
        let events = engine.telemetry(&last, 0, 1_000).await.expect("memory can be read").len() as u64;
        println!(
            "\na finished execution of router, tool, router holds {held} bytes, {events} events included ({} without 150 each)",
            held.saturating_sub(events * 150)
        );
    });
}

/// The resident memory of this process in bytes; 0 where it can't be read.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok())
        .unwrap_or(0)
        * 4_096
}
