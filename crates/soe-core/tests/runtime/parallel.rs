//! Listeners run in parallel; limits delay, and drop nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use soe_core::nodes::{NodeInput, NodeOutput};
use soe_core::tools::{NoArguments, ToolContext, ToolDefinition, raw_tool, tool_fn};
use tokio::time::Instant;

use crate::common::*;

const STEP: Duration = Duration::from_millis(50);

/// A tool that takes a step, and the most calls of it that were in flight at a time.
fn slow() -> (ToolDefinition, Arc<AtomicUsize>) {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = most.clone();
    let tool = raw_tool("work", "", move |_: Value, _: ToolContext| {
        let (now, most) = (now.clone(), most.clone());
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(STEP).await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(json!(1))
        }
    });
    (tool, seen)
}

fn hundred() -> soe_core::runtime::Orchestration {
    let node = |i| {
        format!(
            "  N{i}: {{node_type: tool, event_triggers: [START], tool_name: work, output_field: r, event_emissions: [{{signal_name: DONE}}]}}\n"
        )
    };
    start(&format!("flow:\n{}", (0..100).map(node).collect::<String>()))
}

async fn took(engine: soe_core::runtime::Engine) -> Duration {
    let began = Instant::now();
    let finished = engine.orchestrate(hundred()).await.unwrap();
    let took = began.elapsed();
    let context = engine.context(&finished.execution).await.unwrap();
    assert_eq!(context.history("r").unwrap().len(), 100);
    assert_eq!(context.operational.tool_calls, 100);
    assert_eq!(context.operational.nodes.iter().map(|(_, n)| n).sum::<u64>(), 100);
    assert_eq!(count(&context, "DONE"), 100);
    took
}

#[tokio::test(start_paused = true)]
async fn a_hundred_tools_take_as_long_as_one() {
    let (tool, most) = slow();
    let took = took(engine_with(tool)).await;
    assert!(took >= STEP && took < STEP * 2, "{took:?}");
    assert_eq!(most.load(Ordering::SeqCst), 100);
}

#[tokio::test(start_paused = true)]
async fn limits_delay_and_drop_nothing() {
    let (tool, most) = slow();
    let in_ten = took(builder().max_tasks(10).tool(tool).build().unwrap()).await;
    assert!(in_ten >= STEP * 10 && in_ten < STEP * 12, "{in_ten:?}");
    assert_eq!(most.load(Ordering::SeqCst), 10);

    let (tool, most) = slow();
    let engine = builder().max_tasks(10).tool(tool.concurrency(4)).build().unwrap();
    let in_four = took(engine).await;
    assert!(in_four >= STEP * 25 && in_four < STEP * 28, "{in_four:?}");
    assert_eq!(most.load(Ordering::SeqCst), 4);
}

#[tokio::test(start_paused = true)]
async fn a_custom_node_that_calls_a_limited_tool_blocks_nobody() {
    let call = |input: NodeInput| async move {
        tokio::time::sleep(STEP).await;
        input.call_tool("work", json!({})).await?;
        Ok(NodeOutput::new())
    };
    let (tool, _) = slow();
    let engine = builder()
        .max_tasks(1)
        .tool(tool.concurrency(1))
        .node_type("caller", call)
        .build()
        .unwrap();
    let both = start(
        "
flow:
  A: {node_type: caller, event_triggers: [START]}
  B: {node_type: tool, event_triggers: [START], tool_name: work}
  C: {node_type: caller, event_triggers: [START]}
  D: {node_type: tool, event_triggers: [START], tool_name: work}
",
    );
    tokio::time::timeout(Duration::from_secs(10), engine.orchestrate(both))
        .await
        .expect("a node that holds one permit and a tool that holds another wait for each other")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counters_add_up_on_several_threads() {
    let engine = engine_with(tool_fn("work", "", |_: NoArguments, _| async {
        tokio::task::yield_now().await;
        Ok(1)
    }));
    for _ in 0..20 {
        soon(took(engine.clone())).await;
    }
}

#[tokio::test]
async fn more_completions_than_the_mailbox_holds() {
    let node = |i| format!("  N{i}: {{node_type: tool, event_triggers: [START], tool_name: work, output_field: r}}\n");
    let yaml = format!("flow:\n{}", (0..1_000).map(node).collect::<String>());
    let engine = engine_with(tool_fn("work", "", |_: NoArguments, _| async { Ok(1) }));
    let finished = soon(engine.orchestrate(start(&yaml))).await.unwrap();
    assert_eq!(engine.history(&finished.execution, "r").await.unwrap().len(), 1_000);
}

#[tokio::test]
async fn a_completion_is_not_lost_that_arrives_together_with_one_that_goes_on_for_long() {
    let yaml = "
flow:
  A: {node_type: tool, event_triggers: [START], tool_name: work, event_emissions: [{signal_name: LOOP}]}
  B: {node_type: tool, event_triggers: [START], tool_name: work, event_emissions: [{signal_name: DONE}]}
  Loop:
    node_type: router
    event_triggers: [LOOP]
    event_emissions: [{signal_name: LOOP, condition: '{{ context.__operational__.nodes.Loop < 2500 }}'}]
";
    let engine = engine_with(raw_tool("work", "", |_: Value, _: ToolContext| async { Ok(json!(1)) }));
    let finished = soon(engine.orchestrate(start(yaml))).await.unwrap();
    let context = engine.context(&finished.execution).await.unwrap();
    assert_eq!((count(&context, "DONE"), count(&context, "LOOP")), (1, 2_500));
}
