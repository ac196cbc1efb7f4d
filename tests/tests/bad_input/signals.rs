//! Signals without end, without names and without measure.

use std::fmt::Write as _;
use std::sync::Arc;

use soe_backends::{ExecutionId, Limits};
use soe_core::config::Config;
use soe_core::runtime::{EngineErrorKind, Orchestration};

use crate::common::*;

#[tokio::test]
async fn a_loop_without_a_guard_ends_at_a_limit_whatever_grows() {
    let one = "flow: {A: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: START}]}}";
    let two = one.replace(
        "flow: {",
        "flow: {B: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: START}]}, ",
    );
    for yaml in [one, &two] {
        let engine = engine();
        let execution = engine.start(start(yaml)).await.unwrap();
        let error = soon(execution.wait()).await.unwrap_err();
        let EngineErrorKind::Failed(failure) = error.kind() else {
            panic!("{error}")
        };
        assert_eq!(failure.limit.as_deref(), Some("broadcasts"));
        assert!(
            error
                .to_string()
                .contains("limit broadcasts exceeded: 1000000 broadcasts"),
            "{error}"
        );
        assert_eq!(execution.context().await.unwrap().operational.signals.len(), 1_000_000);
    }
}

#[tokio::test]
async fn names_of_every_kind() {
    let engine = engine();
    let execution = engine.start(start(ROUTER)).await.unwrap();
    for empty in [vec![], vec![""], vec!["START", ""]] {
        let error = execution.signal(empty.clone()).await.unwrap_err();
        assert_eq!(error.kind(), &EngineErrorKind::Refused, "{empty:?}");
        assert!(error.to_string().contains("signal"), "{error}");
    }
    let huge = "s".repeat(10 << 20);
    for name in [huge.as_str(), "größe 🎉", "\0", "{{ context.x }}", " ", "../../x"] {
        execution.signal([name]).await.unwrap();
        execution.wait().await.unwrap();
        assert!(execution.context().await.unwrap().operational.signals.contains(name));
    }
}

#[tokio::test]
async fn a_hundred_thousand_signals_in_one_batch() {
    let engine = engine();
    let execution = engine.start(start(ROUTER)).await.unwrap();
    execution.signal((0..100_000).map(|i| format!("S{i}"))).await.unwrap();
    soon(execution.wait()).await.unwrap();
    execution.signal(vec!["START"; 100_000]).await.unwrap();
    soon(execution.wait()).await.unwrap();
    let context = execution.context().await.unwrap();
    assert_eq!(context.operational.nodes.get("Start"), Some(&2), "once for a batch");

    let limits = Limits {
        broadcasts: 1,
        ..Limits::default()
    };
    let execution = engine.prepare(start(ROUTER).limits(limits)).await.unwrap();
    execution.signal(["X"]).await.unwrap();
    let _ = execution
        .signal((0..100_000).map(|i| "long".repeat(100) + &i.to_string()))
        .await;
    let error = execution.wait().await.unwrap_err().to_string();
    assert!(
        error.contains("broadcasts") && error.contains("99995 more"),
        "{}",
        error.len()
    );
    assert!(error.len() < 1_000);
}

#[tokio::test]
async fn ten_thousand_listeners_on_one_signal() {
    let mut yaml = String::from("flow:\n");
    for i in 0..10_000 {
        writeln!(
            yaml,
            "  n{i}: {{node_type: router, event_triggers: [START], event_emissions: [{{signal_name: S{i}, condition: '{{{{ context.x }}}}'}}]}}"
        )
        .unwrap();
    }
    let engine = engine();
    let execution = engine.start(start(&yaml).field("x", true)).await.unwrap();
    soon(execution.wait()).await.unwrap();
    let context = execution.context().await.unwrap();
    assert_eq!(
        (context.operational.nodes.len(), context.operational.signals.len()),
        (10_000, 10_001)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_storm_of_broadcasts_is_handled_once_each() {
    let engine = engine();
    let execution = engine.prepare(start(ROUTER)).await.unwrap();
    let senders = (0..50).map(|_| {
        let execution = execution.clone();
        tokio::spawn(async move {
            for _ in 0..200 {
                execution.signal(["START"]).await.unwrap();
            }
        })
    });
    soon(futures::future::join_all(senders))
        .await
        .into_iter()
        .for_each(Result::unwrap);
    soon(execution.wait()).await.unwrap();
    let context = execution.context().await.unwrap();
    assert_eq!(context.operational.nodes.get("Start"), Some(&10_000));
    assert_eq!(context.operational.signals.len(), 20_000);
}

#[test]
fn ids_that_lead_elsewhere() {
    let long = "a".repeat(300);
    let refused = [
        "../../x", "", &long, "größe", "a\0b", "a/b", "a\\b", ".", "..", "~", "a b", "a\n", "%2e%2e",
    ];
    for id in refused {
        let error = ExecutionId::new(id).unwrap_err().to_string();
        assert!(error.len() < 400, "{error}");
        let json = serde_json::to_string(id).unwrap();
        assert!(serde_json::from_str::<ExecutionId>(&json).is_err());
    }
    assert!(ExecutionId::new("a".repeat(128)).is_ok());
}

#[tokio::test]
async fn workflows_that_are_not_there() {
    let config = Arc::new(Config::from_yaml(ROUTER).unwrap());
    for name in ["", "x", "../flow", "flow\0"] {
        let orchestration = Orchestration::new(config.clone(), name).signal("START");
        let error = engine().orchestrate(orchestration).await.unwrap_err();
        assert!(error.to_string().contains("not found in config"), "{error}");
    }
}
