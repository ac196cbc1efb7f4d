//! The examples that the `soe` command runs.

use std::fs;

use serde_json::Value;

use super::support::{examples, soe, stdout};

/// The result of a run: the last line of what `--json` prints.
fn run(example: &str, arguments: &[&str]) -> Value {
    let workflow = examples().join(example).join("workflow.yaml");
    let mut all = vec!["run", workflow.to_str().unwrap(), "--json", "--quiet"];
    all.extend(arguments);
    let printed = stdout(soe(), &all);
    serde_json::from_str(printed.trim_end().lines().last().unwrap()).unwrap()
}
