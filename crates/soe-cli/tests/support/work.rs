//! Work that takes a while and is of all kinds, and what must come of it whatever happens meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Soe;

/// A loop of steps, three branches with a join, children with a join, and a last step.
const WORKFLOW: &str = r#"
work:
  Step:
    node_type: tool
    event_triggers: [START, AGAIN]
    tool_name: effect
    output_field: step
    event_emissions:
      - {signal_name: AGAIN, condition: "{{ context.step | history | length < 120 }}"}
      - {signal_name: BRANCH, condition: "{{ context.step | history | length == 120 }}"}
  Left: {node_type: tool, event_triggers: [BRANCH], tool_name: effect, output_field: branch, event_emissions: [{signal_name: BRANCHED}]}
  Right: {node_type: tool, event_triggers: [BRANCH], tool_name: effect, output_field: branch, event_emissions: [{signal_name: BRANCHED}]}
  Middle: {node_type: tool, event_triggers: [BRANCH], tool_name: effect, output_field: branch, event_emissions: [{signal_name: BRANCHED}]}
  Together:
    node_type: router
    event_triggers: [BRANCHED]
    event_emissions:
      - {signal_name: TOGETHER, condition: "{{ context.branch | history | length == 3 }}"}
  Each:
    node_type: child
    event_triggers: [TOGETHER]
    child_workflow_name: part
    child_initial_signals: [GO]
    fan_out_field: items
    child_input_field: item
    signals_to_parent: [PART_DONE]
    context_updates_to_parent: [part]
  Join:
    node_type: router
    event_triggers: [PART_DONE]
    event_emissions:
      - {signal_name: ALL_PARTS, condition: "{{ context.part | history | length == context.items | accumulated | length }}"}
  Last: {node_type: tool, event_triggers: [ALL_PARTS], tool_name: effect, output_field: last, event_emissions: [{signal_name: FINISHED}]}
part:
  One: {node_type: tool, event_triggers: [GO], tool_name: effect, output_field: one, event_emissions: [{signal_name: ONE}]}
  Two: {node_type: tool, event_triggers: [ONE], tool_name: effect, output_field: two, event_emissions: [{signal_name: TWO}]}
  Three: {node_type: tool, event_triggers: [TWO], tool_name: effect, output_field: part, event_emissions: [{signal_name: PART_DONE}]}
"#;

/// Makes a file by the key of its run, so that doing it again changes nothing; the calls are counted beside it.
const TOOLS: &str = r#"
tools:
  effect:
    type: command
    command: [sh, -c, 'echo "$SOE_RUN_ID" >> calls; echo done > "effects/$SOE_RUN_ID"; echo 1']
    stdin: none
"#;

pub(crate) fn folder() -> Soe {
    let soe = Soe::with(&[("w.yaml", WORKFLOW), ("tools.yaml", TOOLS)]);
    std::fs::create_dir(soe.path("effects")).unwrap();
    soe
}

pub(crate) const RUN: [&str; 12] = [
    "run",
    "w.yaml",
    "-w",
    "work",
    "--set",
    "items=[1,2,3,4,5,6,7,8,9,10]",
    "-q",
    "--store",
    "x.db",
    "--tools",
    "tools.yaml",
    "--id",
];

pub(crate) const RESUME: [&str; 6] = ["resume", "-q", "--store", "x.db", "--tools", "tools.yaml"];

/// What came of an execution, of its whole tree.
#[derive(Debug, PartialEq)]
pub(crate) struct Ending {
    /// By execution, without its id: status, context with all values, signals, counts.
    pub(crate) executions: BTreeMap<String, Value>,
    /// The effects in the world, by the key of their runs.
    effects: BTreeSet<String>,
}

impl Ending {
    /// As of an execution of another id.
    pub(crate) fn renamed(&self, id: &str) -> Self {
        let name = |text: &String| text.replacen('e', id, 1);
        Self {
            executions: self
                .executions
                .iter()
                .map(|(key, value)| (name(key), value.clone()))
                .collect(),
            effects: self.effects.iter().map(name).collect(),
        }
    }
}

pub(crate) fn outcome(soe: &Soe, id: &str) -> Ending {
    let listed = soe
        .run(&["list", "--store", "x.db", "--tree", id, "--json"])
        .exits_with(0)
        .json_lines();
    let executions = listed.iter().map(|listed| {
        let id = listed["id"].as_str().unwrap();
        let mut shown = soe
            .run(&["show", id, "--store", "x.db", "--history", "--json"])
            .exits_with(0)
            .json();
        for varying in ["execution", "created_at", "updated_at", "version", "children"] {
            shown.as_object_mut().unwrap().remove(varying);
        }
        (id.to_owned(), shown)
    });
    let begins = |name: &String| {
        name.strip_prefix(id)
            .is_some_and(|rest| rest.starts_with(['.', '-', '_', '~', ':']))
    };
    let effects = std::fs::read_dir(soe.path("effects")).unwrap();
    let effects = effects
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(begins);
    Ending {
        executions: executions.collect(),
        effects: effects.collect(),
    }
}
