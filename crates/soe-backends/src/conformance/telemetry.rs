//! Checks of [`TelemetryBackend`].

use std::sync::Arc;

use super::fixture::{Must, Writer, appended, event, events, id};
use super::{Factory, Finding, Outcome, ensure};
use crate::{Backends, Event, ExecutionId, TelemetryBackend};

fn telemetry(backends: &Backends) -> Result<Arc<dyn TelemetryBackend>, Finding> {
    backends
        .telemetry()
        .cloned()
        .ok_or(Finding::Skipped("there is no store of telemetry"))
}

async fn holds(store: &Arc<dyn TelemetryBackend>, tree: &ExecutionId, expected: &[Event], when: &str) -> Outcome {
    let found = store.events(tree, 0, usize::MAX).await.must("reading events")?;
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
    let tree = id("observed");
    holds(&store, &tree, &[], "before anything was stored").await?;
    store.append_events(&tree, &[]).await.must("appending nothing")?;
    let all = events(&tree, 0..1000);
    for part in all.chunks(300) {
        store.append_events(&tree, part).await.must("appending events")?;
    }
    holds(&store, &tree, &all, "after four appends").await?;
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
        let found = store.events(&tree, from, limit).await.must("reading events")?;
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
    let tree = id("repeated");
    let all = events(&tree, 0..20);
    store.append_events(&tree, &all[..10]).await.must("appending")?;
    store
        .append_events(&tree, &all[..10])
        .await
        .must("appending the same again")?;
    holds(&store, &tree, &all[..10], "after appending the same again").await?;
    store
        .append_events(&tree, &all[5..])
        .await
        .must("appending some again")?;
    store
        .append_events(&tree, &all[19..])
        .await
        .must("appending the last again")?;
    holds(&store, &tree, &all, "after appending some again").await
}

/// Events in commits.
pub async fn committed(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let store = telemetry(&backends)?;
    if !backends.sections().events {
        return Err(Finding::Skipped("commits don't take events here"));
    }
    let mut writer = Writer::create(&backends, "committed").await?;
    let mut all = Vec::new();
    for round in 0..10 {
        let mut batch = Vec::new();
        for offset in 0..3_u64 {
            let mut commit = writer.next(vec![appended("n", round)]);
            commit.version += offset;
            // One commit of three has no events.
            commit.events = (0..offset).map(|n| event(&writer.id, all.len() as u64 + n)).collect();
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
    let (tree, other) = (id("observed"), id("observed-2"));
    let all = events(&tree, 0..5);
    store.append_events(&tree, &all).await.must("appending")?;
    store.append_events(&other, &all).await.must("appending")?;
    for _ in 0..2 {
        store.delete_events(&tree).await.must("deleting (again)")?;
        holds(&store, &tree, &[], "after deleting").await?;
    }
    holds(&store, &other, &all, "of another tree").await?;
    let mut writer = Writer::create(&backends, "running").await?;
    let mut commit = writer.next(Vec::new());
    commit.events = all;
    writer.store(vec![commit]).await?;
    store.delete_events(&writer.id).await.must("deleting")?;
    holds(&store, &writer.id, &[], "after deleting those of a stored tree").await?;
    writer.verify("after its events were deleted").await
}
