//! Rate limits, with the clock stopped.

use std::task::Poll;
use std::time::Duration;

use futures::poll;
use serde_json::json;
use soe_core::llm::{LlmCaller, LlmRequest};
use tokio::time::advance;

use crate::support::{ask, builder, completion, count, hold_the_clock, ok, server};

#[tokio::test(start_paused = true)]
async fn the_second_request_of_a_minute_waits() {
    let _held = hold_the_clock();
    let server = server(ok(completion("hi"))).await;
    let caller = builder(&server.uri()).requests_per_minute(1).build().unwrap();
    ask(&caller).await.unwrap();
    let clone = caller.clone();
    let mut second = Box::pin(ask(&clone));
    assert!(poll!(&mut second).is_pending());
    advance(Duration::from_secs(59)).await;
    assert!(poll!(&mut second).is_pending());
    assert_eq!(count(&server).await, 1);
    advance(Duration::from_secs(2)).await;
    assert_eq!(second.await.unwrap().text, "hi");
    assert_eq!(count(&server).await, 2);
}

#[tokio::test(start_paused = true)]
async fn the_reported_usage_replaces_the_estimate() {
    let _held = hold_the_clock();
    // Each reply took 13 tokens; each request may take 500.
    let server = server(ok(completion("hi"))).await;
    let limited = |tokens: u64| {
        let caller = builder(&server.uri()).option("max_tokens", json!(500));
        caller.tokens_per_minute(tokens).build().unwrap()
    };
    let caller = limited(700);
    for _ in 0..5 {
        ask(&caller).await.unwrap();
    }
    // Two at a time are too many, as far as one can know.
    let (mut first, mut second) = (Box::pin(ask(&caller)), Box::pin(ask(&caller)));
    assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!(count(&server).await, 7);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_leaves_its_turn_to_the_next() {
    let _held = hold_the_clock();
    let server = server(ok(completion("hi"))).await;
    let caller = builder(&server.uri()).requests_per_minute(1).build().unwrap();
    ask(&caller).await.unwrap();
    let (mut dropped, mut next) = (Box::pin(ask(&caller)), Box::pin(ask(&caller)));
    assert!(poll!(&mut dropped).is_pending() && poll!(&mut next).is_pending());
    drop(dropped);
    assert!(poll!(&mut next).is_pending());
    advance(Duration::from_secs(61)).await;
    next.await.unwrap();
    assert_eq!(count(&server).await, 2);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_turn_takes_nothing_of_the_time_for_the_call() {
    let _held = hold_the_clock();
    let server = server(ok(completion("hi"))).await;
    let caller = builder(&server.uri())
        .requests_per_minute(1)
        .timeout(Duration::from_secs(30))
        .build()
        .unwrap();
    ask(&caller).await.unwrap();
    let mut second = Box::pin(caller.call(LlmRequest::new("hello")));
    assert!(matches!(poll!(&mut second), Poll::Pending));
    advance(Duration::from_secs(61)).await;
    second.await.unwrap();
}
