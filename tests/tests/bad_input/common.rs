//! Small workflows and engines.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use soe_backends::{History, Value};
use soe_core::config::Config;
use soe_core::runtime::{Engine, Execution, Orchestration};
use soe_core::tools::{ToolContext, ToolDefinition, raw_tool};

/// A router that ends at once.
pub(crate) const ROUTER: &str =
    "flow: {Start: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: DONE}]}}";

/// One tool node that runs `work` on START and emits DONE.
pub(crate) const WORK: &str = "
flow:
  Work:
    node_type: tool
    event_triggers: [START]
    tool_name: work
    output_field: result
    event_emissions: [{signal_name: DONE}]
";

pub(crate) fn start(yaml: &str) -> Orchestration {
    Orchestration::new(Arc::new(Config::from_yaml(yaml).unwrap()), "flow").signal("START")
}

pub(crate) fn engine() -> Engine {
    Engine::builder().build().unwrap()
}

pub(crate) fn engine_with(tool: ToolDefinition) -> Engine {
    Engine::builder().tool(tool).build().unwrap()
}

/// A tool `work` that returns what `make` makes.
pub(crate) fn returns(make: impl Fn() -> Json + Send + Sync + 'static) -> ToolDefinition {
    raw_tool("work", "", move |_: Json, _: ToolContext| {
        let made = make();
        async move { Ok(made) }
    })
}

/// The result of a run of `work`, or the error that was written in its place.
pub(crate) async fn result(engine: &Engine, orchestration: Orchestration) -> Value {
    let finished = soon(engine.orchestrate(orchestration)).await.unwrap();
    last(&engine.execution(finished.execution), "result").await
}

pub(crate) async fn last(execution: &Execution, field: &str) -> Value {
    let history: History = execution.history(field).await.unwrap();
    history.last().cloned().unwrap_or_default()
}

/// Fails the test instead of hanging.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(240), future)
        .await
        .expect("it hangs")
}
