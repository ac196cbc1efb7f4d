//! Limits end executions, with an error that names the limit.

use std::time::Duration;

use serde_json::{Value, json};
use soe_backends::{Limits, Timestamp};
use soe_core::runtime::{Engine, EngineErrorKind};
use soe_core::tools::{ToolContext, raw_tool};
use tokio::time::Instant;

use crate::common::*;

const LOOP: &str = "
flow:
  A: {node_type: router, event_triggers: [START, PONG], event_emissions: [{signal_name: PING}]}
  B: {node_type: router, event_triggers: [PING], event_emissions: [{signal_name: PONG}]}
";

async fn exceeded(engine: &Engine, orchestration: soe_core::runtime::Orchestration) -> String {
    let error = soon(engine.orchestrate(orchestration)).await.unwrap_err();
    let EngineErrorKind::Failed(failure) = kind(&error) else {
        panic!("{error}");
    };
    let limit = failure.limit.clone().expect("names a limit");
    assert!(error.to_string().contains(limit.as_ref()), "{error}");
    assert!(std::error::Error::source(&error).is_none());
    limit.to_string()
}

#[tokio::test]
async fn loops_end_at_a_limit() {
    let engine = builder().build().unwrap();
    let limits = Limits {
        broadcasts: 5_000,
        ..Limits::default()
    };
    assert_eq!(exceeded(&engine, start(LOOP).limits(limits)).await, "broadcasts");
    let limits = Limits {
        runs: 5_000,
        ..Limits::default()
    };
    let engine = builder().limits(limits).build().unwrap();
    assert_eq!(exceeded(&engine, start(LOOP)).await, "runs");
}

#[tokio::test]
async fn values_and_contexts_have_a_size() {
    let tool = raw_tool("work", "", |_: Value, _: ToolContext| async {
        Ok(json!("x".repeat(1_000)))
    });
    let engine = engine_with(tool);
    let limits = Limits {
        value_bytes: 500,
        ..Limits::default()
    };
    assert_eq!(exceeded(&engine, start(WORK).limits(limits)).await, "value_bytes");
    let limits = Limits {
        context_bytes: 1_500,
        ..Limits::default()
    };
    let orchestration = start(WORK).field("x", "y".repeat(900)).limits(limits);
    assert_eq!(exceeded(&engine, orchestration).await, "context_bytes");
}

#[tokio::test]
async fn the_text_of_an_error_meets_limits_too_and_is_no_source() {
    let tool = raw_tool("work", "", |_: Value, _: ToolContext| async {
        Err::<(), _>(soe_core::tools::ToolError::new("x".repeat(1_000)))
    });
    let limits = Limits {
        value_bytes: 500,
        ..Limits::default()
    };
    assert_eq!(
        exceeded(&engine_with(tool), start(WORK).limits(limits)).await,
        "value_bytes"
    );
}

#[tokio::test]
async fn fifty_megabytes_are_taken_and_a_hundred_refused() {
    let engine = builder().build().unwrap();
    let large = |megabytes: usize| start(ROUTER).field("x", "x".repeat(megabytes * 1024 * 1024));
    engine.orchestrate(large(50)).await.unwrap();
    let error = engine.orchestrate(large(100)).await.unwrap_err();
    assert_eq!(kind(&error), &EngineErrorKind::Refused);
    assert!(error.to_string().contains("value_bytes"), "{error}");
}

/// An engine whose clock is Tokio's, which tests can pause.
fn on_tokio_time(tool: soe_core::tools::ToolDefinition) -> Engine {
    let began = Instant::now();
    let clock = move || Timestamp::from_micros(1_000_000 + began.elapsed().as_micros() as u64);
    builder().clock(clock).tool(tool).build().unwrap()
}

fn active(seconds: u64) -> Limits {
    Limits {
        active_time: Some(Duration::from_secs(seconds)),
        ..Limits::default()
    }
}

#[tokio::test(start_paused = true)]
async fn active_time_ends_what_hangs_and_waiting_does_not_count() {
    let hangs = raw_tool("work", "", |_: Value, _: ToolContext| {
        std::future::pending::<Result<Value, _>>()
    });
    let engine = on_tokio_time(hangs);
    let began = Instant::now();
    assert_eq!(exceeded(&engine, start(WORK).limits(active(10))).await, "active_time");
    assert_eq!(began.elapsed().as_secs(), 10);

    let slow = raw_tool("work", "", |_: Value, _: ToolContext| async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        Ok(json!(1))
    });
    let engine = on_tokio_time(slow);
    let execution = engine.start(start(WORK).limits(active(10))).await.unwrap();
    execution.wait().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1_000)).await;
    execution.signal(["START"]).await.unwrap();
    execution.wait().await.unwrap();
    // The third stretch of four seconds is too long.
    execution.signal(["START"]).await.unwrap();
    let error = execution.wait().await.unwrap_err();
    assert!(error.to_string().contains("active_time"), "{error}");
    assert_eq!(execution.history("result").await.unwrap().len(), 2);
}

#[tokio::test]
async fn active_time_ends_a_loop_that_awaits_nothing() {
    let limits = Limits {
        active_time: Some(Duration::from_millis(20)),
        broadcasts: u64::MAX,
        runs: u64::MAX,
        ..Limits::default()
    };
    let engine = builder().build().unwrap();
    assert_eq!(exceeded(&engine, start(LOOP).limits(limits)).await, "active_time");
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_all_time_is_none() {
    let tool = raw_tool("work", "", |_: Value, _: ToolContext| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(json!(1))
    });
    let limits = Limits {
        active_time: Some(Duration::MAX),
        ..Limits::default()
    };
    on_tokio_time(tool)
        .orchestrate(start(WORK).limits(limits))
        .await
        .unwrap();
}
