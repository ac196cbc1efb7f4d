//! Tools that misbehave, side by side with one that doesn't.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use soe_backends::Status;
use soe_core::runtime::Engine;
use soe_core::tools::{ToolContext, ToolError, raw_tool};
use tokio::sync::Notify;

use crate::common::*;

#[tokio::test]
async fn panics_hangs_and_errors_leave_the_others_alone() {
    let yaml = "
flow:
  Panics: {node_type: tool, event_triggers: [START], tool_name: panics, output_field: panics}
  Hangs: {node_type: tool, event_triggers: [START], tool_name: hangs, output_field: hangs}
  Fails: {node_type: tool, event_triggers: [START], tool_name: fails, output_field: fails}
  Works: {node_type: tool, event_triggers: [START], tool_name: works, output_field: works}
";
    let engine = Engine::builder()
        .tool(raw_tool("panics", "", |_: Json, _: ToolContext| async {
            panic!("a defect") as Result<Json, ToolError>
        }))
        .tool(
            raw_tool("hangs", "", |_: Json, _: ToolContext| {
                std::future::pending::<Result<Json, ToolError>>()
            })
            .timeout(Duration::from_millis(50)),
        )
        .tool(raw_tool("fails", "", |_: Json, _: ToolContext| async {
            Err::<Json, _>(ToolError::new("no luck"))
        }))
        .tool(raw_tool("works", "", |_: Json, _: ToolContext| async { Ok(json!(1)) }))
        .build()
        .unwrap();
    let execution = engine.start(start(yaml)).await.unwrap();
    assert_eq!(soon(execution.wait()).await.unwrap().status, Status::Rested);
    for (field, text) in [
        ("panics", "a defect"),
        ("hangs", "no answer within 50ms"),
        ("fails", "no luck"),
        ("works", "1"),
    ] {
        let value = last(&execution, field).await.to_string();
        assert!(value.contains(text), "{field}: {value}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_returns_after_the_cancel_changes_nothing() {
    let (started, go) = (Arc::new(Notify::new()), std::sync::mpsc::channel::<()>());
    let (go, gone) = (go.0, Arc::new(std::sync::Mutex::new(go.1)));
    let tool = raw_tool("work", "", {
        let started = started.clone();
        move |_: Json, _: ToolContext| {
            let (started, gone) = (started.clone(), gone.clone());
            async move {
                started.notify_one();
                // Holds its thread: nobody can drop it before it returns.
                let _ = gone.lock().unwrap().recv();
                Ok(json!("late"))
            }
        }
    });
    let engine = engine_with(tool);
    let execution = engine.start(start(WORK)).await.unwrap();
    soon(started.notified()).await;
    soon(execution.cancel()).await.unwrap();
    let before = execution.status().await.unwrap();
    go.send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(execution.status().await.unwrap(), before);
    assert_eq!(before.status, Status::Cancelled);
    assert!(execution.history("result").await.unwrap().is_empty());
    assert!(
        execution
            .signal(["START"])
            .await
            .unwrap_err()
            .to_string()
            .contains("cancelled")
    );
}
