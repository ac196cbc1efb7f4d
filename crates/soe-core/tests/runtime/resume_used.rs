//! What a tree has used, after a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use soe_backends::*;
use soe_core::llm::llm_fn;

use crate::common::*;

#[tokio::test]
async fn what_a_tree_has_used_is_known_again_after_a_restart() {
    const TALKERS: &str = "
flow:
  Fan:
    node_type: child
    event_triggers: [START]
    child_workflow_name: talker
    child_initial_signals: [GO]
    fan_out_field: tasks
    child_input_field: task
talker:
  Say: {node_type: llm, event_triggers: [GO], prompt: Say it, output_field: said, event_emissions: [{signal_name: SAID}]}
  Work: {node_type: tool, event_triggers: [SAID], tool_name: work, output_field: result, event_emissions: [{signal_name: MORE}]}
  More: {node_type: llm, event_triggers: [MORE], prompt: Say more, output_field: said}
";
    let backends = Backends::memory();
    let (now, gates) = (Arc::new(AtomicU64::new(1)), [Gate::new(), Gate::new()]);
    let asked = Arc::new(AtomicUsize::new(0));
    let engines = [0, 1].map(|i| {
        let (now, asked) = (now.clone(), asked.clone());
        let clock = move || Timestamp::from_micros(now.load(Ordering::SeqCst));
        let llm = llm_fn(move |_, _| {
            asked.fetch_add(1, Ordering::SeqCst);
            async { Ok(r#"{"said": "it"}"#.to_owned()) }
        });
        let builder = builder().backends(backends.clone()).clock(clock).llm(llm);
        builder.tool(gates[i].tool("work")).build().unwrap()
    });
    let limits = Limits {
        llm_calls: Some(4),
        ..Limits::default()
    };
    let flow = start(TALKERS)
        .id(id("x"))
        .field("tasks", soe_backends::Value::from(&json!([1, 2, 3])));
    engines[0].start(flow.limits(limits)).await.unwrap();
    for _ in 0..3 {
        gates[0].called().await;
    }
    engines[0].shutdown(Duration::ZERO).await;
    let told = backends.context().load(&id("x")).await.unwrap().unwrap();
    assert_eq!(told.used.llm_calls, 3);

    assert_eq!(engines[1].recover().await.unwrap().taken_up, 1);
    gates[1].open(3);
    let error = soon(engines[1].wait(&id("x"))).await.unwrap_err();
    assert!(error.to_string().contains("llm_calls"), "{error}");
    let tree = engines[1].tree(&id("x")).await.unwrap();
    assert_eq!(tree.used.llm_calls, 4, "three before, one after");
    // The last one isn't made if the limit failed the tree in the same moment.
    assert!((3..=4).contains(&asked.load(Ordering::SeqCst)));
}

const ASKING: &str = "
flow:
  Ask: {node_type: llm, event_triggers: [START], prompt: Say it, output_field: text, event_emissions: [{signal_name: SAID}]}
  Fan: {node_type: child, event_triggers: [SAID], child_workflow_name: worker, child_initial_signals: [GO]}
worker:
  Gate: {node_type: tool, event_triggers: [GO], tool_name: work, event_emissions: [{signal_name: ON}]}
  Ask: {node_type: llm, event_triggers: [ON], prompt: Say it, output_field: text}
";

#[tokio::test]
async fn what_a_tree_has_used_counts_for_children_that_have_used_nothing() {
    let backends = Backends::memory();
    let (asked, gates) = (Arc::new(AtomicUsize::new(0)), [Gate::new(), Gate::new()]);
    let [one, two] = [0, 1].map(|i| {
        let asked = asked.clone();
        let llm = llm_fn(move |_, _| {
            asked.fetch_add(1, Ordering::SeqCst);
            async { Ok(r#"{"text": 7}"#.to_owned()) }
        });
        let builder = builder().backends(backends.clone()).llm(llm);
        builder.tool(gates[i].tool("work")).build().unwrap()
    });
    let limits = Limits {
        llm_calls: Some(1),
        ..Limits::default()
    };
    one.start(start(ASKING).id(id("x")).limits(limits)).await.unwrap();
    soon(gates[0].called()).await;
    one.shutdown(Duration::ZERO).await;
    // The child has asked nothing yet.
    assert_eq!(two.recover().await.unwrap().taken_up, 1);
    gates[1].open(1);
    let error = soon(two.wait(&id("x"))).await.unwrap_err();
    assert!(error.to_string().contains("llm_calls"), "{error}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}
