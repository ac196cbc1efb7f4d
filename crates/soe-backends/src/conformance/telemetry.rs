//! Checks of [`TelemetryBackend`].

use std::sync::Arc;

use super::fixture::{Must, Writer, appended, event, id};
use super::{Factory, Finding, Outcome, ensure};
use crate::{Backends, Event, ExecutionId, TelemetryBackend};

fn telemetry(backends: &Backends) -> Result<Arc<dyn TelemetryBackend>, Finding> {
    backends
        .telemetry()
        .cloned()
        .ok_or(Finding::Skipped("there is no store of telemetry"))
}

async fn holds(store: &Arc<dyn TelemetryBackend>, execution: &ExecutionId, expected: &[Event], when: &str) -> Outcome {
    let found = store.events(execution, 0, usize::MAX).await.must("reading events")?;
    ensure!(
        found == expected,
        "{when} there are the events {found:?} instead of {expected:?}"
    );
    Ok(())
}

/// Order, and parts of it.
pub async fn order(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let store = telemetry(&backends)?;
    let execution = id("observed");
    holds(&store, &execution, &[], "before anything was stored").await?;
    store.append_events(&execution, &[]).await.must("appending nothing")?;
    let all: Vec<_> = (0..1000).map(event).collect();
    for part in all.chunks(300) {
        store.append_events(&execution, part).await.must("appending events")?;
    }
    holds(&store, &execution, &all, "after four appends").await?;
    for (from, limit) in [
        (0, 0),
        (0, 1),
        (0, 1000),
        (999, 5),
        (1000, 5),
        (u64::MAX, 5),
        (298, 4),
        (500, usize::MAX),
    ] {
        let found = store.events(&execution, from, limit).await.must("reading events")?;
        let expected: Vec<_> = all
            .iter()
            .filter(|event| event.seq >= from)
            .take(limit)
            .cloned()
            .collect();
        ensure!(
            found == expected,
            "asked for {limit} events from {from}, it gives {} others",
            found.len()
        );
    }
    Ok(())
}

/// Appending again.
pub async fn numbers(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let store = telemetry(&backends)?;
    let execution = id("repeated");
    let all: Vec<_> = (0..20).map(event).collect();
    store.append_events(&execution, &all[..10]).await.must("appending")?;
    store
        .append_events(&execution, &all[..10])
        .await
        .must("appending the same again")?;
    holds(&store, &execution, &all[..10], "after appending the same again").await?;
    store
        .append_events(&execution, &all[5..])
        .await
        .must("appending some again")?;
    store
        .append_events(&execution, &all[19..])
        .await
        .must("appending the last again")?;
    holds(&store, &execution, &all, "after appending some again").await
}

/// Events in commits.
pub async fn committed(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let store = telemetry(&backends)?;
    let mut writer = Writer::create(&backends, "committed").await?;
    let mut all = Vec::new();
    for round in 0..10 {
        let mut batch = Vec::new();
        for offset in 0..3_u64 {
            let mut commit = writer.next(vec![appended("n", round)]);
            commit.version += offset;
            // One commit of three has no events.
            commit.events = (0..offset).map(|n| event(all.len() as u64 + n)).collect();
            all.extend(commit.events.iter().cloned());
            batch.push(commit);
        }
        writer.store(batch).await?;
        holds(&store, &writer.id, &all, "after a commit").await?;
    }
    let tail = store.events(&writer.id, 28, 10).await.must("reading events")?;
    ensure!(tail == all[28..], "the last events are {tail:?}");
    writer.verify("with events").await
}

/// Deleting.
pub async fn deleted(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let store = telemetry(&backends)?;
    let (execution, other) = (id("observed"), id("observed-2"));
    let all: Vec<_> = (0..5).map(event).collect();
    store.append_events(&execution, &all).await.must("appending")?;
    store.append_events(&other, &all).await.must("appending")?;
    for _ in 0..2 {
        store.delete_events(&execution).await.must("deleting (again)")?;
        holds(&store, &execution, &[], "after deleting").await?;
    }
    holds(&store, &other, &all, "of another execution").await?;
    let mut writer = Writer::create(&backends, "running").await?;
    let mut commit = writer.next(Vec::new());
    commit.events = all;
    writer.store(vec![commit]).await?;
    store.delete_events(&writer.id).await.must("deleting")?;
    holds(&store, &writer.id, &[], "after deleting those of a stored execution").await?;
    writer.verify("after its events were deleted").await
}
