//! Many requests at a time: joins, limits, streams, cancelling.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use soe_backends::Status;
use soe_core::llm::{Capabilities, Llm, LlmCaller, LlmError, LlmReply, LlmRequest};
use soe_core::runtime::{Engine, EngineErrorKind, Tokens};
use soe_core::testing::{MockLlm, any, node};
use tokio::time::Instant;

use crate::common::*;

fn wide(nodes: usize, more: &str) -> String {
    let mut yaml = "flow:\n".to_owned();
    for n in 0..nodes {
        yaml += &format!(
            "  N{n}: {{node_type: llm, event_triggers: [START], prompt: p, output_field: x, event_emissions: [{{signal_name: VOTED}}]{more}}}\n"
        );
    }
    yaml + "  Tally: {node_type: router, event_triggers: [VOTED], event_emissions: [{signal_name: DONE, \
            condition: '{{ context.x | accumulated | length == context.voters }}'}]}\n"
}

#[tokio::test(start_paused = true)]
async fn all_nodes_of_a_signal_ask_at_the_same_time_and_the_tally_is_exact() {
    for nodes in [1, 3, 100] {
        let llm = MockLlm::new();
        for n in 0..nodes {
            // They come back in any order.
            let latency = 10 + (n * 37 + 11) % 41;
            llm.on(node(format!("N{n}")))
                .output(n)
                .after(Duration::from_millis(latency));
        }
        let begun = Instant::now();
        let nodes = usize::try_from(nodes).unwrap();
        let done = run_with(&llm, start(&wide(nodes, "")).field("voters", nodes as i64)).await;
        assert!(begun.elapsed() <= Duration::from_millis(55), "{:?}", begun.elapsed());
        let signals = done.signals();
        assert_eq!(
            (signals.matches("VOTED").count(), signals.matches("DONE").count()),
            (nodes, 1)
        );
        assert!(signals.ends_with("DONE"));
    }
}

/// Counts how many requests are in flight.
#[derive(Clone, Default)]
struct Counting {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

#[async_trait]
impl LlmCaller for Counting {
    async fn call(&self, _: LlmRequest) -> Result<LlmReply, LlmError> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        Ok(LlmReply::text(r#"{"x": 1}"#))
    }
}

#[tokio::test(start_paused = true)]
async fn limits_delay_and_drop_nothing() {
    let (first, second) = (Counting::default(), Counting::default());
    let yaml = wide(20, "")
        + &wide(20, ", llm: other")
            .replace("flow:\n", "")
            .replace("  N", "  M")
            .replace("  Tally", "  Tally2");
    let named = Llm::new(second.clone()).max_concurrency(3);
    for (engine, most) in [
        (
            Engine::builder().llm(first.clone()).named_llm("other", named.clone()),
            [20, 3],
        ),
        (
            Engine::builder()
                .llm(first.clone())
                .named_llm("other", named.clone())
                .max_llm_calls(5),
            [5, 3],
        ),
        (
            Engine::builder()
                .llm(first.clone())
                .named_llm("other", named.clone())
                .max_tasks(4),
            [4, 3],
        ),
    ] {
        first.most.store(0, Ordering::SeqCst);
        second.most.store(0, Ordering::SeqCst);
        let done = run(engine.build().unwrap(), start(&yaml).field("voters", 40)).await;
        done.result.as_ref().unwrap();
        assert_eq!(done.context.history("x").unwrap().len(), 40);
        let seen = [&first, &second].map(|llm| llm.most.load(Ordering::SeqCst));
        assert!(
            seen[0] <= most[0] && seen[1] <= most[1] && seen[0] + seen[1] > 0,
            "{seen:?} of {most:?}"
        );
    }
}

/// Streams its reply in three pieces.
struct Streaming;

#[async_trait]
impl LlmCaller for Streaming {
    async fn call(&self, request: LlmRequest) -> Result<LlmReply, LlmError> {
        for piece in [r#"{"x": "#, r#""ü!""#, "}"] {
            request.tokens.send(piece);
        }
        Ok(LlmReply::text(r#"{"x": "ü!"}"#))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().streaming(true)
    }
}

#[tokio::test]
async fn text_arrives_as_it_is_written() {
    let engine = Engine::builder().llm(Streaming).build().unwrap();
    let id = soe_backends::ExecutionId::new("streamed").unwrap();
    let mut others = engine.tokens(&soe_backends::ExecutionId::new("other").unwrap());
    let flow = llm_node(", prompt: p, output_field: x").id(id);
    let (execution, mut tokens) = engine.start_streamed(flow).await.unwrap();
    execution.wait().await.unwrap();
    assert_eq!(
        execution.context().await.unwrap().value("x").unwrap().as_str(),
        Some("ü!")
    );
    let mut text = String::new();
    for _ in 0..3 {
        let Some(Tokens::Piece(piece)) = tokens.next().await else {
            panic!("a piece is missing")
        };
        assert_eq!(
            (piece.run.to_string(), piece.node.as_ref(), piece.call),
            ("streamed:1".to_owned(), "N", 1)
        );
        text += &piece.text;
    }
    assert_eq!(text, r#"{"x": "ü!"}"#);
    let mut late = execution.tokens();
    engine.shutdown(Duration::ZERO).await;
    assert_eq!(others.next().await, None, "there was nothing for it");
    assert_eq!((tokens.next().await, late.next().await), (None, None));
    assert_eq!(engine.all_tokens().next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_execution_drops_its_requests() {
    let llm = MockLlm::new();
    llm.on(any()).output("x").after(Duration::from_secs(3600));
    let engine = builder(&llm).build().unwrap();
    let execution = engine.start(llm_node(", prompt: p, output_field: x")).await.unwrap();
    while llm.calls() == 0 {
        tokio::task::yield_now().await;
    }
    execution.cancel().await.unwrap();
    let error = execution.wait().await.unwrap_err();
    assert_eq!(*error.kind(), EngineErrorKind::Ended(Status::Cancelled));
    assert!(execution.context().await.unwrap().value("x").is_none());
    let report = engine.shutdown(Duration::from_secs(1)).await;
    assert_eq!(report.stopped, [], "{report:?}");
}
