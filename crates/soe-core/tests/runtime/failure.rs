//! Tools and nodes that fail, panic or hang.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use soe_backends::EventKind;
use soe_core::nodes::{CustomNode, NodeError, NodeInput, NodeOutput};
use soe_core::runtime::EngineErrorKind;
use soe_core::tools::{Tool, ToolContext, ToolDefinition, ToolError, raw_tool};

use crate::common::*;

/// The text that a failing tool leaves, and what was broadcast.
async fn outcome(tool: ToolDefinition) -> (String, Vec<String>) {
    let engine = engine_with(tool);
    let finished = soon(engine.orchestrate(start(WORK))).await.unwrap();
    let context = engine.context(&finished.execution).await.unwrap();
    let text = context.value("result").unwrap().as_str().unwrap().to_owned();
    (text, signals(&context))
}

#[tokio::test]
async fn an_error_is_written_and_emits_nothing() {
    let tool = raw_tool("work", "", |_: Value, _: ToolContext| async {
        Err::<(), _>(ToolError::new("no luck"))
    });
    assert_eq!(outcome(tool).await, ("no luck".to_owned(), vec!["START".to_owned()]));
}

/// Panics before it makes a future, as a hand-written implementation can.
struct PanicsAtOnce;

impl Tool for PanicsAtOnce {
    fn call<'a, 'b>(
        &'a self,
        _: Value,
        _: ToolContext,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Value, ToolError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        panic!("at once")
    }
}

impl CustomNode for PanicsAtOnce {
    fn run<'a, 'b>(
        &'a self,
        _: NodeInput,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<NodeOutput, NodeError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        panic!("at once")
    }
}

#[tokio::test]
async fn panics_are_failures_whenever_they_happen() {
    let (text, _) = outcome(raw_tool("work", "", PanicsAtOnce)).await;
    assert_eq!(text, "tool 'work' panicked: at once");
    let tool = raw_tool("work", "", |_: Value, _: ToolContext| async {
        tokio::task::yield_now().await;
        let i: usize = "7".parse()?;
        Ok([1, 2][i])
    });
    let (text, signals) = outcome(tool.failure_signal("BROKEN")).await;
    assert!(text.contains("panicked: index out of bounds"), "{text}");
    assert_eq!(signals, ["START", "BROKEN"]);

    let engine = builder().node_type("bomb", PanicsAtOnce).build().unwrap();
    let error = soon(engine.orchestrate(one_node("bomb", ""))).await.unwrap_err();
    assert!(error.to_string().ends_with("node 'N': it panicked: at once"), "{error}");
}

/// An error whose own text panics.
#[derive(Debug)]
struct Unprintable;

impl std::fmt::Display for Unprintable {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("no words")
    }
}

impl std::error::Error for Unprintable {}

#[tokio::test]
async fn an_error_that_cannot_be_printed_is_a_failure() {
    let tool = raw_tool("work", "", |_: Value, _: ToolContext| async {
        Err::<(), _>(Unprintable.into())
    });
    let (text, _) = outcome(tool).await;
    assert!(text.contains("no words"));
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_hangs_ends_at_its_timeout() {
    for limit in [Duration::from_secs(3), Duration::MAX] {
        let tool = raw_tool("work", "", move |_: Value, _: ToolContext| async move {
            if limit == Duration::MAX {
                return Ok(json!("in time"));
            }
            std::future::pending().await
        });
        let (text, _) = outcome(tool.timeout(limit)).await;
        let expected = if limit == Duration::MAX {
            "in time"
        } else {
            "no answer within 3s"
        };
        assert_eq!(text, expected);
    }
}

#[tokio::test]
async fn retries_have_the_same_key_and_end_with_success_or_the_failure_signal() {
    let calls = Arc::new(AtomicU32::new(0));
    let seen = calls.clone();
    let tool = raw_tool("work", "", move |_: Value, context: ToolContext| {
        let call = seen.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            assert_eq!(context.attempt(), call);
            assert!(context.idempotency_key().ends_with(":1"));
            if call < 3 {
                Err(ToolError::new("again"))
            } else {
                Ok(json!("third time"))
            }
        }
    });
    let (text, signals) = outcome(tool.retries(2).failure_signal("FAILED")).await;
    assert_eq!(
        (text.as_str(), signals.last().unwrap().as_str()),
        ("third time", "DONE")
    );

    let calls = Arc::new(AtomicU32::new(0));
    let seen = calls.clone();
    let tool = raw_tool("work", "", move |_: Value, _: ToolContext| {
        seen.fetch_add(1, Ordering::SeqCst);
        async { Err::<(), _>(ToolError::new("never").no_retry()) }
    });
    let (text, signals) = outcome(tool.retries(5).failure_signal("FAILED")).await;
    assert_eq!((text.as_str(), signals.last().unwrap().as_str()), ("never", "FAILED"));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[derive(Debug, thiserror::Error)]
#[error("order {0} is lost")]
struct Lost(u32);

struct Loses;

#[async_trait]
impl CustomNode for Loses {
    async fn run(&self, _: NodeInput) -> Result<NodeOutput, NodeError> {
        Err(Lost(7).into())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_applications_error_is_the_source_however_fast_it_fails() {
    let engine = builder().node_type("loses", Loses).build().unwrap();
    for _ in 0..300 {
        let error = engine.orchestrate(one_node("loses", "")).await.unwrap_err();
        let source = std::error::Error::source(&error).expect("has a source");
        assert_eq!(source.downcast_ref::<Lost>().unwrap().0, 7);
        let handle = engine.start(one_node("loses", "")).await.unwrap();
        tokio::task::yield_now().await;
        let error = handle.wait().await.unwrap_err();
        assert!(std::error::Error::source(&error).unwrap().is::<Lost>());
        assert_eq!(error.execution(), Some(handle.id()));
    }
}

#[tokio::test]
async fn an_error_that_was_handled_is_no_source_of_a_later_failure() {
    let tool = raw_tool("work", "", |_: Value, _: ToolContext| async {
        Err::<(), _>(Lost(1).into())
    });
    let engine = builder()
        .tool(tool.failure_signal("GO"))
        .node_type("bomb", PanicsAtOnce)
        .build()
        .unwrap();
    let flow = start(
        "
flow:
  Work: {node_type: tool, event_triggers: [START], tool_name: work}
  Bomb: {node_type: bomb, event_triggers: [GO]}
",
    );
    let error = engine.orchestrate(flow).await.unwrap_err();
    assert!(matches!(kind(&error), EngineErrorKind::Failed(failure) if failure.node.as_deref() == Some("Bomb")));
    assert!(std::error::Error::source(&error).is_none());
}

#[tokio::test]
async fn what_was_dispatched_by_the_event_that_failed_is_not_begun() {
    let gate = Gate::new();
    let engine = builder()
        .tool(gate.tool("work"))
        .node_type("loses", Loses)
        .build()
        .unwrap();
    let flow = start(
        "
flow:
  Loses: {node_type: loses, event_triggers: [START]}
  Work: {node_type: tool, event_triggers: [START], tool_name: work}
",
    );
    let error = soon(engine.orchestrate(flow)).await.unwrap_err();
    let id = error.execution().unwrap();
    let state = engine.state(id).await.unwrap();
    assert_eq!(state.runs.len(), 2, "kept for a resumption");
    let events = engine.telemetry(id, 0, 100).await.unwrap();
    assert!(matches!(events.last().unwrap().kind, EventKind::ExecutionFailed { .. }));
}

struct Nests;

#[async_trait]
impl Tool for Nests {
    async fn call(&self, _: Value, _: ToolContext) -> Result<Value, ToolError> {
        Ok((0..200_000).fold(json!(1), |deep, _| Value::Array(vec![deep])))
    }
}

#[tokio::test]
async fn a_result_that_nests_without_end_is_the_tools_failure() {
    let tool = raw_tool("work", "", Nests);
    let engine = engine_with(tool);
    let finished = soon(engine.orchestrate(start(WORK))).await.unwrap();
    let context = engine.context(&finished.execution).await.unwrap();
    let error = "the result of tool 'work' is nested deeper than 100 levels";
    assert_eq!(context.value("result"), Some(&error.into()));
    assert_eq!(context.operational.errors, 1);
}

#[tokio::test]
async fn a_tool_may_send_signals_from_a_thread_of_its_own() {
    let tool = raw_tool("work", "", |_: Value, context: ToolContext| async move {
        let own = context.execution_id().clone();
        let sent = std::thread::spawn(move || context.signal(&own, ["FROM_A_THREAD"])).join();
        sent.map_err(|_| ToolError::new("it panicked"))??;
        Ok(json!("sent"))
    });
    let (text, signals) = outcome(tool).await;
    assert_eq!(
        (text.as_str(), signals),
        ("sent", vec!["START".into(), "FROM_A_THREAD".into(), "DONE".into()])
    );
}

#[tokio::test]
async fn signals_to_its_own_execution_keep_their_order_or_are_refused() {
    let tool = raw_tool("work", "", |_: Value, context: ToolContext| async move {
        // Without an await in between, the coordinator has no chance to read them on this test's only thread.
        let sent = (0..400).take_while(|i| context.signal(context.execution_id(), [format!("S{i}")]).is_ok());
        Ok(json!(sent.count().to_string()))
    });
    let (count, signals) = outcome(tool).await;
    let taken: Vec<String> = (0..count.parse().unwrap()).map(|i: usize| format!("S{i}")).collect();
    assert!(taken.len() < 400);
    assert_eq!(signals[1..], [taken, vec!["DONE".to_owned()]].concat());
}
