//! Values that nest without end.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use soe_backends::{Backends, Value};
use soe_core::config::Config;
use soe_core::nodes::{NodeInput, NodeOutput};
use soe_core::runtime::{ContextExport, Engine, EngineErrorKind};
use soe_core::tools::{ToolContext, raw_tool};

use crate::common::*;

const FIELD: &str = "
flow:
  Work:
    node_type: tool
    event_triggers: [START]
    tool_name: work
    context_parameter_field: arguments
    output_field: result
";

/// Without `json!`, which would serialise what it is given.
fn nested(levels: usize) -> Json {
    (0..levels).fold(Json::Null, |inner, _| Json::Array(vec![inner]))
}

fn nested_value(levels: usize) -> Value {
    (0..levels).fold(Value::Null, |inner, _| Value::list([inner]))
}

#[tokio::test]
async fn a_tools_result() {
    for levels in [129, 1_000, 100_000] {
        let tool = returns(move || nested(levels)).retries(3);
        let engine = engine_with(tool);
        let execution = engine.start(start(WORK)).await.unwrap();
        execution.wait().await.unwrap();
        let error = last(&execution, "result").await;
        assert_eq!(
            error.as_str(),
            Some("the result of tool 'work' is nested deeper than 100 levels")
        );
        let context = execution.context().await.unwrap();
        assert!(!context.operational.signals.contains("DONE"));
        assert_eq!(context.operational.errors, 1, "no retry would help");
    }
    let engine = engine_with(returns(|| nested(Value::MAX_DEPTH)));
    assert_eq!(result(&engine, start(WORK)).await.to_json(), nested(Value::MAX_DEPTH));
}

#[tokio::test]
async fn an_initial_context() {
    let engine = engine();
    for value in [
        Value::from(nested(129)),
        Value::from(nested(10_000)),
        nested_value(100_000),
    ] {
        let error = engine
            .orchestrate(start(ROUTER).field("deep", value))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), &EngineErrorKind::Refused);
        let text = error.to_string();
        assert!(text.contains("field 'deep' is nested deeper than 100 levels"), "{text}");
    }
    engine
        .orchestrate(start(ROUTER).field("deep", nested(Value::MAX_DEPTH)))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_imported_context() {
    let text = format!(
        r#"{{"execution": "e", "workflow": "flow", "fields": {{"deep": [{}{}]}}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    assert!(serde_json::from_str::<ContextExport>(&text).is_err());
    let mut export: ContextExport =
        serde_json::from_str(r#"{"execution": "e", "workflow": "flow", "fields": {}}"#).unwrap();
    let history = [nested_value(200)].into_iter().collect();
    export.fields.insert("deep".into(), history);
    let error = engine().orchestrate(start(ROUTER).import(export)).await.unwrap_err();
    assert!(error.to_string().contains("nested deeper"), "{error}");
}

#[tokio::test]
async fn what_a_custom_node_writes() {
    let deep = |_: NodeInput| async { Ok(NodeOutput::new().write("deep", nested_value(100_000))) };
    let engine = Engine::builder().node_type("deep", deep).build().unwrap();
    let error = engine
        .orchestrate(start("flow: {N: {node_type: deep, event_triggers: [START]}}"))
        .await
        .unwrap_err();
    assert!(matches!(error.kind(), EngineErrorKind::Failed(_)));
    let text = error.to_string();
    assert!(text.contains("field 'deep' is nested deeper than 100 levels"), "{text}");
}

#[tokio::test]
async fn arguments_as_text() {
    let engine = engine_with(returns(|| json!("called")));
    for text in [
        format!("{{\"a\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000)),
        "[".repeat(100_000),
        format!("a: {}", "- ".repeat(10_000)),
        "{a: ".repeat(50_000),
        (0..10_000).fold(String::new(), |text, level| text + &" ".repeat(level.min(300)) + "a:\n"),
    ] {
        let error = result(&engine, start(FIELD).field("arguments", text)).await;
        let text = error.as_str().unwrap();
        assert!(text.contains("is not YAML or JSON"), "{text}");
        assert!(text.len() < 1_000, "{}", text.len());
    }
}

#[tokio::test]
async fn a_value_that_grows_by_a_level_in_each_round() {
    let tool = raw_tool("work", "", |arguments: Json, _: ToolContext| async move {
        Ok(json!([arguments["x"]]))
    });
    let yaml = "
flow:
  Work:
    node_type: tool
    event_triggers: [START, AGAIN]
    tool_name: work
    parameters: {x: '{{ context.result }}'}
    output_field: result
    event_emissions: [{signal_name: AGAIN}]
";
    let engine = engine_with(tool);
    let execution = engine.start(start(yaml)).await.unwrap();
    soon(execution.wait()).await.unwrap();
    assert_eq!(execution.history("result").await.unwrap().len(), Value::MAX_DEPTH + 1);
    let error = last(&execution, "result").await;
    assert!(error.as_str().unwrap().contains("nested deeper"), "{error}");
}

#[tokio::test]
async fn the_deepest_value_is_stored_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let engine = |folder| {
        let builder = Engine::builder().backends(Backends::file(folder).unwrap());
        builder.tool(returns(|| nested(Value::MAX_DEPTH))).build().unwrap()
    };
    let first = engine(folder.path());
    let finished = first
        .orchestrate(start(WORK).field("x", nested(Value::MAX_DEPTH)))
        .await
        .unwrap();
    let again = engine(folder.path()).execution(finished.execution);
    assert_eq!(last(&again, "x").await.to_json(), nested(Value::MAX_DEPTH));
    again.signal(["START"]).await.unwrap();
    again.wait().await.unwrap();
    assert_eq!(again.history("result").await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_configuration_that_is_parsed_already() {
    let node = Json::Object([("data".to_owned(), nested(100_000))].into_iter().collect());
    let flow = Json::Object([("N".to_owned(), node)].into_iter().collect());
    let config = Json::Object([("flow".to_owned(), flow)].into_iter().collect());
    let error = Config::from_value(config).unwrap_err();
    assert!(error.to_string().contains("nested more deeply"), "{error}");
}

#[tokio::test]
async fn templates_on_the_deepest_value() {
    let yaml = "
flow:
  N:
    node_type: router
    event_triggers: [START]
    event_emissions:
      - {signal_name: PRINTED, condition: '{{ context.x | tojson }}'}
      - {signal_name: EQUAL, condition: '{{ context.x == context.y }}'}
      - {signal_name: DEFINED, condition: '{{ context.x is defined }}'}
";
    let engine = Arc::new(engine());
    let orchestration = start(yaml)
        .field("x", nested(Value::MAX_DEPTH))
        .field("y", nested(Value::MAX_DEPTH));
    let finished = engine.orchestrate(orchestration).await.unwrap();
    let context = engine.context(&finished.execution).await.unwrap();
    assert!(context.operational.signals.contains("DEFINED"));
}
