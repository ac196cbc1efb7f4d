//! Checks of kept commits. Skipped for a store that keeps the present state only.

use std::sync::Arc;

use super::compare::{difference, json, same_state};
use super::fixture::{
    Must, Writer, appended, at, broadcast, commit, created, dispatched, document, event, finished, guard, id, of,
    owned, snapshot, started,
};
use super::{Factory, Finding, Outcome, ensure};
use crate::{BackendErrorKind, Backends, Commit, Definitions, ExecutionChange, ExecutionId, TreeState};

/// Past a few checkpoints of any store that makes some.
const COMMITS: u64 = 150;

/// A fresh store that keeps commits. One that doesn't must say so when it is asked all the same.
async fn keeping(factory: &dyn Factory) -> Result<Backends, Finding> {
    let backends = factory.fresh().await;
    let store = backends.context();
    if store.keeps_commits() {
        return Ok(backends);
    }
    let nobody = id("nobody");
    let errors = [
        store.commits(&nobody, 1, 1).await.err(),
        store.load_at(&nobody, 1).await.err(),
    ];
    for error in errors {
        let kind = error.map(|error| error.kind());
        ensure!(
            kind == Some(BackendErrorKind::Unsupported),
            "a store that keeps no commits gives {kind:?} when asked for them"
        );
    }
    Err(Finding::Skipped("the store keeps no commits"))
}

/// A tree with commits of several kinds, stored one by one and in batches. Gives them, without what is kept elsewhere.
async fn written(backends: &Backends, name: &str) -> Result<Vec<Commit>, Finding> {
    let mut writer = Writer::new(backends, name);
    let mut all = Vec::new();
    while (all.len() as u64) < COMMITS {
        let size = if all.len() % 10 == 5 { 3 } else { 1 };
        let mut batch: Vec<Commit> = (1..=size)
            .map(|n| arbitrary(&writer.id, all.len() as u64 + n))
            .collect();
        // The owner changes once, in a commit of its own.
        let fence = writer.next(Vec::new()).fence;
        batch.iter_mut().for_each(|commit| commit.fence = fence);
        writer.store(batch.clone()).await?;
        all.extend(batch);
    }
    for commit in &mut all {
        (commit.registries, commit.definitions, commit.turns) = (Vec::new(), None, Vec::new());
    }
    Ok(all)
}

/// Every version has a commit of its own kind, one event, and now and then something for the other stores.
fn arbitrary(tree: &ExecutionId, version: u64) -> Commit {
    let run = version.div_ceil(5);
    let changes = match version % 5 {
        1 if version == 1 => vec![created(tree), dispatched(1, 1), snapshot(1)],
        1 => vec![appended("n", version), dispatched(run, run), snapshot(run)],
        2 => vec![
            broadcast(&["GO"]),
            appended("text", format!("ü\u{0}{version}")),
            started(tree, run),
        ],
        3 if version == 23 => vec![owned("engine", 1)],
        3 => Vec::new(),
        4 => vec![
            of(run, broadcast(&["IN"])),
            at(run, ExecutionChange::Routed { node: "route".into() }),
        ],
        _ => vec![finished(run), appended("n", version), of(1, appended("n", version))],
    };
    let mut commit = commit(tree, version, changes);
    commit.events = vec![event(tree, version - 1)];
    if version % 20 == 1 {
        commit.registries = vec![Arc::new(document(1))];
        commit.definitions = Some(Arc::new(Definitions {
            identities: [("helper".into(), format!("version {version}").into())].into(),
            ..Definitions::default()
        }));
    }
    commit
}

async fn same_commits(backends: &Backends, id: &ExecutionId, from: u64, limit: usize, all: &[Commit]) -> Outcome {
    let found = backends.context().commits(id, from, limit).await;
    let mut found = found.must("reading commits")?;
    let mut expected = all.to_vec();
    expected.retain(|commit| commit.version >= from);
    expected.truncate(limit);
    if !backends.sections().events {
        // Whether it has events that another store takes is its own affair.
        let both = found.iter_mut().chain(&mut expected);
        both.for_each(|commit| commit.events.clear());
    }
    let (found, expected) = (json(&found), json(&expected));
    ensure!(
        found == expected,
        "asked for {limit} commits from version {from} on, it gives others: {}",
        difference(&found, &expected)
    );
    Ok(())
}

/// Parts of a history.
pub async fn commits(factory: &dyn Factory) -> Outcome {
    let backends = keeping(factory).await?;
    let all = written(&backends, "history").await?;
    let other = written(&backends, "history-2").await?;
    let execution = id("history");
    for (from, limit) in [
        (0, usize::MAX),
        (1, 1),
        (1, 0),
        (2, 7),
        (COMMITS, 5),
        (COMMITS * 2, 5),
        (u64::MAX, usize::MAX),
    ] {
        same_commits(&backends, &execution, from, limit, &all).await?;
    }
    same_commits(&backends, &id("history-2"), 1, usize::MAX, &other).await?;
    same_commits(&backends, &id("nobody"), 0, usize::MAX, &[]).await?;
    // What commits brought for other stores isn't their business any more; events that were deleted are not given.
    if let (Some(telemetry), true) = (backends.telemetry(), backends.sections().events) {
        telemetry.delete_events(&execution).await.must("deleting events")?;
        let mut bare = all.clone();
        bare.iter_mut().for_each(|commit| commit.events.clear());
        same_commits(&backends, &execution, 1, usize::MAX, &bare).await?;
        every_state(&backends, &all).await?;
    }
    Ok(())
}

/// The state at every version.
pub async fn states(factory: &dyn Factory) -> Outcome {
    let backends = keeping(factory).await?;
    let all = written(&backends, "history").await?;
    every_state(&backends, &all).await?;
    let (store, execution) = (backends.context(), id("history"));
    let last = all.len() as u64;
    for version in [0, last + 1, u64::MAX] {
        let state = store.load_at(&execution, version).await.must("loading a version")?;
        ensure!(state.is_none(), "there is a state at version {version} of {last}");
    }
    let nobody = store.load_at(&id("nobody"), 1).await.must("loading a version")?;
    ensure!(nobody.is_none(), "a tree that was never created has a version 1");
    Ok(())
}

async fn every_state(backends: &Backends, commits: &[Commit]) -> Outcome {
    let mut state: Option<TreeState> = None;
    for commit in commits {
        let folded = match &mut state {
            Some(state) => state.apply(commit),
            None => TreeState::create(commit).map(|created| state = Some(created)),
        };
        ensure!(folded.is_ok(), "the store took a commit that doesn't fit: {commit:?}");
        let loaded = backends.context().load_at(&commit.tree, commit.version).await;
        let when = format!("at version {}", commit.version);
        same_state(
            &commit.tree,
            loaded.must("loading a version")?.as_deref(),
            state.as_ref(),
            &when,
        )?;
    }
    Ok(())
}

/// Deleted trees.
pub async fn gone(factory: &dyn Factory) -> Outcome {
    let backends = keeping(factory).await?;
    written(&backends, "gone").await?;
    let kept = written(&backends, "kept").await?;
    let (store, execution) = (backends.context(), id("gone"));
    let Some(state) = store.load(&execution).await.must("loading")? else {
        return Err(Finding::Violated("a tree is missing".to_owned()));
    };
    store.delete(&execution, guard(&state)).await.must("deleting")?;
    same_commits(&backends, &execution, 0, usize::MAX, &[]).await?;
    let state = store.load_at(&execution, 3).await.must("loading a version")?;
    ensure!(state.is_none(), "a deleted tree has a version 3");
    every_state(&backends, &kept).await?;
    let mut again = commit(&execution, 1, vec![created(&execution), appended("again", true)]);
    again.events = vec![event(&execution, 0)];
    if let Some(telemetry) = backends.telemetry() {
        telemetry.delete_events(&execution).await.must("deleting events")?;
    }
    backends
        .commit(vec![again.clone()], None)
        .await
        .must("creating it anew")?;
    same_commits(&backends, &execution, 0, usize::MAX, std::slice::from_ref(&again)).await?;
    every_state(&backends, &[again]).await
}

/// After a restart.
pub async fn survives(factory: &dyn Factory) -> Outcome {
    let backends = keeping(factory).await?;
    let all = written(&backends, "history").await?;
    let Some(backends) = factory.reopen(backends).await else {
        return Err(Finding::Skipped("the factory can't re-open a store"));
    };
    same_commits(&backends, &id("history"), 1, usize::MAX, &all).await?;
    every_state(&backends, &all).await
}
