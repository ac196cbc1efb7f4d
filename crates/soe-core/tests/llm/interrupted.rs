//! A process that ends between an agent's own calls: what has arrived is not asked for again.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use soe_backends::{Backends, ExecutionId, MemoryStore, Status};
use soe_core::llm::{LlmReply, Stage, ToolRequest};
use soe_core::runtime::{Engine, Orchestration};
use soe_core::testing::{MockLlm, any, stage};

use crate::common::*;

fn engine(llm: &MockLlm, store: &Arc<MemoryStore>) -> Engine {
    builder(llm).backends(Backends::single(store.clone())).build().unwrap()
}

/// Runs until the request `hanging`, which never comes back, is made; then stops the engine.
async fn until_it_hangs(llm: &MockLlm, store: &Arc<MemoryStore>, flow: Orchestration, hanging: usize) -> ExecutionId {
    let engine = engine(llm, store);
    let execution = engine.start(flow).await.unwrap();
    while llm.calls() < hanging {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    engine.shutdown(Duration::ZERO).await;
    let status = Backends::single(store.clone())
        .context()
        .load(execution.id())
        .await
        .unwrap()
        .unwrap()
        .status(0);
    assert_eq!(status, Some(Status::Running));
    execution.id().clone()
}

/// Takes it up with another signal, and waits until it rests.
async fn taken_up(llm: &MockLlm, store: &Arc<MemoryStore>, id: &ExecutionId) -> Done {
    let engine = engine(llm, store);
    engine.broadcast_signals(id, ["WAKE"]).await.unwrap();
    let result = engine.wait(id).await.map(|_| ());
    Done {
        context: engine.context(id).await.unwrap(),
        events: engine.telemetry(id, 0, 1_000).await.unwrap(),
        engine,
        id: id.clone(),
        result,
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn an_agent_goes_on_at_the_request_that_was_in_flight() {
    // router, parameter, (tool), router, response: each of the four requests hangs once.
    for hanging in 1..=4 {
        let store = Arc::new(MemoryStore::new());
        let first = MockLlm::new();
        let script = |llm: &MockLlm, hangs: usize| {
            let late = |n: usize| if n == hangs { HOUR } else { Duration::ZERO };
            llm.on(stage(Stage::Router))
                .call_tool("echo")
                .after(late(1))
                .finish()
                .after(late(3));
            llm.on(stage(Stage::Parameter))
                .arguments(json!({"text": "hi"}))
                .after(late(2));
            llm.on(stage(Stage::Response)).output("done").after(late(4));
        };
        script(&first, hanging);
        let id = until_it_hangs(&first, &store, agent(", tools: [echo]"), hanging).await;

        // What has arrived by then is not in the script of the second.
        let second = MockLlm::new();
        match hanging {
            1 => script(&second, 0),
            _ => {
                second.on(stage(Stage::Parameter)).arguments(json!({"text": "hi"}));
                second.on(stage(Stage::Router)).finish();
                second.on(stage(Stage::Response)).output("done");
            }
        }
        let done = taken_up(&second, &store, &id).await;
        done.result.as_ref().unwrap();
        assert_eq!(done.value("answer"), "done");
        assert_eq!(done.counters()[..2], [5, 1], "a request that is repeated counts again");
        assert_eq!((first.calls(), second.calls()), (hanging, 5 - hanging));
        let (hung, again) = (first.requests().pop().unwrap(), second.requests().remove(0));
        assert_eq!((hung.key, hung.text), (again.key, again.text));
    }
}

#[tokio::test(start_paused = true)]
async fn an_llm_node_keeps_its_invalid_replies() {
    let store = Arc::new(MemoryStore::new());
    let first = MockLlm::new();
    first.on(any()).text("bad").text("worse").output("x").after(HOUR);
    let flow = llm_node(", prompt: p, output_field: x, retries: 2");
    let id = until_it_hangs(&first, &store, flow, 3).await;
    let second = MockLlm::new();
    second.on(any()).text("worst");
    let failed = taken_up(&second, &store, &id).await;
    assert!(
        failed.failure().contains("no valid reply in 3 attempts"),
        "{}",
        failed.failure()
    );
    assert_eq!((second.calls(), failed.counters()), (1, [4, 0, 3, 0]));
    assert!(second.requests()[0].text.contains("worse"));
}

#[tokio::test(start_paused = true)]
async fn results_of_tools_that_have_arrived_are_not_asked_for_again() {
    let store = Arc::new(MemoryStore::new());
    let request = |id: &str, text: &str| ToolRequest {
        id: id.to_owned(),
        name: "maybe".to_owned(),
        arguments: format!(r#"{{"text": "{text}"}}"#),
    };
    let native = || MockLlm::new().with_native_tools();
    let first = native();
    first
        .on(any())
        .reply(LlmReply::tool_calls([request("a", "quick"), request("b", "slow")]));
    let calls: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let maybe = |hangs: bool| {
        let calls = calls.clone();
        soe_core::tools::raw_tool(
            "maybe",
            "",
            move |arguments: serde_json::Value, context: soe_core::tools::ToolContext| {
                let calls = calls.clone();
                async move {
                    let text = arguments["text"].as_str().unwrap_or_default().to_owned();
                    calls.lock().unwrap().push(format!(
                        "{text} {}",
                        context.idempotency_key().rsplit(':').next().unwrap()
                    ));
                    if hangs && text == "slow" {
                        std::future::pending::<()>().await;
                    }
                    Ok(text)
                }
            },
        )
    };
    let at = |llm: &MockLlm, hangs| {
        let engine = Engine::builder().llm(llm.clone()).tool(maybe(hangs));
        engine.backends(Backends::single(store.clone())).build().unwrap()
    };
    let engine = at(&first, true);
    let execution = engine.start(agent(", tools: [maybe]")).await.unwrap();
    let id = execution.id().clone();
    let answered = async || {
        let events = engine.telemetry(&id, 0, 100).await.unwrap();
        events.iter().any(|event| event.kind.name() == "agent_tool_result")
    };
    while !answered().await {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    engine.shutdown(Duration::ZERO).await;

    let second = native();
    second.on(any()).output("both");
    let engine = at(&second, false);
    engine.broadcast_signals(&id, ["WAKE"]).await.unwrap();
    engine.wait(&id).await.unwrap();
    assert_eq!(*calls.lock().unwrap(), ["quick 1.0", "slow 1.1", "slow 1.1"]);
    assert_eq!(second.calls(), 1);
    assert_eq!(second.requests()[0].messages.len(), 4);
}
