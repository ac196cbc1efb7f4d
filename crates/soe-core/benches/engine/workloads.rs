//! The workflows, and how they are run.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::{Value, json};
use soe_core::config::Config;
use soe_core::runtime::{Engine, Orchestration};
use soe_core::tools::{ToolContext, ToolError, raw_tool};

/// A configuration that is built once, and engines with everything a user gets by default.
pub(crate) struct Subject {
    config: Arc<Config>,
}

async fn nothing(_: Value, _: ToolContext) -> Result<Value, ToolError> {
    Ok(json!(1))
}

async fn wait(_: Value, _: ToolContext) -> Result<Value, ToolError> {
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok(json!(1))
}

impl Subject {
    pub(crate) fn new(workflow: &str) -> Self {
        let config = Config::from_yaml(workflow).unwrap_or_else(|error| panic!("{error}"));
        Self {
            config: Arc::new(config),
        }
    }

    /// Runs `count` executions, so many at a time, and says how long they took. They stay in the store, as they do for a
    /// user; the engine is made before and goes after the time that is measured.
    pub(crate) async fn run(&self, count: u64, at_a_time: u64) -> Duration {
        let tools = Engine::builder().tool(raw_tool("nothing", "Does nothing.", nothing));
        let engine = tools
            .tool(raw_tool("wait", "Waits 50 ms.", wait))
            .build()
            .expect("an engine");
        let start = Instant::now();
        let one = async || {
            let orchestration = Orchestration::new(self.config.clone(), "w").signal("START");
            engine.orchestrate(orchestration).await.expect("it rests");
        };
        let mut started = at_a_time.min(count);
        let mut running: FuturesUnordered<_> = (0..started).map(|_| one()).collect();
        while running.next().await.is_some() {
            if started < count {
                started += 1;
                running.push(one());
            }
        }
        start.elapsed()
    }
}

pub(crate) fn chain(routers: u64) -> String {
    let mut workflow = "w:\n".to_owned();
    for i in 0..routers {
        let trigger = if i == 0 { "START".to_owned() } else { format!("S{i}") };
        let next = i + 1;
        let _ = writeln!(
            workflow,
            "  R{i}: {{node_type: router, event_triggers: [{trigger}], \
             event_emissions: [{{signal_name: S{next}, condition: '{{{{ context.missing is undefined }}}}'}}]}}"
        );
    }
    workflow
}

pub(crate) fn guarded_loop(steps: u64) -> String {
    format!(
        "w: {{Loop: {{node_type: router, event_triggers: [START, AGAIN], event_emissions: \
         [{{signal_name: AGAIN, condition: '{{{{ context.__operational__.nodes.Loop < {steps} }}}}'}}]}}}}"
    )
}

pub(crate) fn fan_in(tools: u64) -> String {
    let mut workflow = "w:\n".to_owned();
    for i in 0..tools {
        let _ = writeln!(
            workflow,
            "  T{i}: {{node_type: tool, tool_name: nothing, event_triggers: [START], output_field: results, \
             event_emissions: [{{signal_name: DONE}}]}}"
        );
    }
    let _ = writeln!(
        workflow,
        "  Join: {{node_type: router, event_triggers: [DONE], event_emissions: [{{signal_name: ALL_DONE, \
         condition: '{{{{ context.results | accumulated | length == {tools} }}}}'}}]}}"
    );
    workflow
}

pub(crate) fn three_nodes() -> String {
    "
w:
  Start: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: GO}]}
  Work: {node_type: tool, tool_name: nothing, event_triggers: [GO], output_field: result, event_emissions: [{signal_name: WORKED}]}
  End:
    node_type: router
    event_triggers: [WORKED]
    event_emissions: [{signal_name: DONE, condition: '{{ context.result == 1 }}'}]
"
    .to_owned()
}

pub(crate) fn append(appends: u64) -> String {
    format!(
        "w: {{Append: {{node_type: tool, tool_name: nothing, event_triggers: [START, AGAIN], output_field: values, event_emissions: \
         [{{signal_name: AGAIN, condition: '{{{{ context.values | accumulated | length < {appends} }}}}'}}]}}}}"
    )
}

pub(crate) fn waiting(nodes: u64) -> String {
    let mut workflow = "w:\n".to_owned();
    for i in 0..nodes {
        let _ = writeln!(
            workflow,
            "  T{i}: {{node_type: tool, tool_name: wait, event_triggers: [START]}}"
        );
    }
    workflow
}
