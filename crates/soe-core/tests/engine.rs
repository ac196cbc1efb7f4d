//! The engine from outside, as an application uses it.

use serde_json::{Value, json};
use soe_core::config::Config;
use soe_core::runtime::{Engine, Orchestration};
use soe_core::tools::{ToolContext, ToolError, raw_tool};

async fn double(arguments: Value, _: ToolContext) -> Result<Value, ToolError> {
    Ok(json!(arguments["n"].as_i64().unwrap_or(0) * 2))
}

#[tokio::test]
async fn a_router_a_tool_and_a_router_run_to_rest() {
    let config = Config::from_yaml(
        "
flow:
  Start:
    node_type: router
    event_triggers: [START]
    event_emissions: [{signal_name: GO}]
  Double:
    node_type: tool
    event_triggers: [GO]
    tool_name: double
    parameters: {n: 21}
    output_field: doubled
    event_emissions: [{signal_name: DOUBLED}]
  End:
    node_type: router
    event_triggers: [DOUBLED]
    event_emissions: [{signal_name: DONE}]
",
    )
    .unwrap();
    let engine = Engine::builder()
        .tool(raw_tool("double", "Doubles.", double))
        .build()
        .unwrap();
    let finished = engine
        .orchestrate(Orchestration::new(config, "flow").signal("START"))
        .await
        .unwrap();
    let context = engine.context(&finished.execution).await.unwrap();
    assert_eq!(context.value("doubled").unwrap().as_i64(), Some(42));
    let signals: Vec<_> = context.operational.signals.iter().map(AsRef::as_ref).collect();
    assert_eq!(signals, ["START", "GO", "DOUBLED", "DONE"]);
}
