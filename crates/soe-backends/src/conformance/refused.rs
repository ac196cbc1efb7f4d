//! Checks of what a [`ContextBackend`](crate::ContextBackend) must not take: commits from another version, under another fence,
//! and batches of which a part doesn't fit.

use std::sync::Arc;

use super::compare::same_state;
use super::conversations::turn;
use super::fixture::{
    Must, Writer, appended, at, commit, created, dispatched, document, event, finished, id, must_conflict, of, owned,
    registry, started,
};
use super::{Factory, Finding, Outcome, ensure};
use crate::{Backends, Change, Commit, Definitions, ExecutionChange, ExecutionId, Value};

/// Commits that were not computed from the stored version.
pub async fn versions(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let fresh = id("fresh");
    let before_creation = commit(&fresh, 1, vec![appended("a", 1_i64)]);
    must_conflict(
        backends.commit(vec![before_creation], None).await,
        &fresh,
        "a commit to a tree that doesn't exist",
    )?;
    let late = commit(&fresh, 2, vec![created(&fresh)]);
    must_conflict(
        backends.commit(vec![late], None).await,
        &fresh,
        "a creation with version 2",
    )?;
    ensure!(
        backends.context().load(&fresh).await.must("loading")?.is_none(),
        "a refused commit left a state"
    );

    let mut writer = Writer::create(&backends, "versions").await?;
    writer.commit(vec![appended("a", 1_i64)]).await?;
    let tree = writer.id.clone();
    let append = |version| commit(&tree, version, vec![appended("a", 2_i64)]);
    let refused = [
        ("a second creation", commit(&tree, 1, vec![created(&tree)])),
        ("a creation of the next version", commit(&tree, 3, vec![created(&tree)])),
        ("a commit of a version that was made", append(2)),
        ("a commit from an old version", append(1)),
        ("a commit that leaves out a version", append(4)),
        ("a commit of version 0", append(0)),
    ];
    for (what, mut commit) in refused {
        commit.events = vec![event(&tree, 0)];
        refuse(&backends, &writer, vec![commit], what).await?;
    }
    let gap = vec![append(3), append(5)];
    refuse(&backends, &writer, gap, "a batch that leaves out a version").await?;
    no_events(&backends, &tree).await?;
    writer.commit(vec![appended("a", 2_i64)]).await?;
    writer.verify("after the commit that fits").await
}

/// The store must refuse commits as a conflict, whether the state after them is given or not.
async fn refuse(backends: &Backends, writer: &Writer<'_>, commits: Vec<Commit>, what: &str) -> Outcome {
    let after = writer.state.clone().map(Arc::new);
    for after in [None, after] {
        must_conflict(backends.commit(commits.clone(), after).await, &writer.id, what)?;
        writer.verify(&format!("after {what}")).await?;
    }
    Ok(())
}

/// Commits that were computed under another owner.
pub async fn fences(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let tree = id("fences");
    let mut foreign = commit(&tree, 1, vec![created(&tree)]);
    foreign.fence = 1;
    let creation = backends.commit(vec![foreign], None).await;
    must_conflict(creation, &tree, "a creation under a fence")?;
    let mut writer = Writer::create(&backends, "fences").await?;
    let with = |writer: &Writer<'_>, fence: u64| Commit {
        fence,
        ..writer.next(vec![started(&tree, 1), of(1, appended("a", fence))])
    };
    let early = vec![with(&writer, 1)];
    refuse(
        &backends,
        &writer,
        early,
        "a commit under a fence that nobody has raised",
    )
    .await?;
    for fence in [1, 2, 7] {
        let before = writer.next(Vec::new()).fence;
        writer.commit(vec![owned(&format!("engine-{fence}"), fence)]).await?;
        for (other, what) in [
            (before, "a commit of the owner before"),
            (0, "a commit of nobody"),
            (fence + 1, "a commit under a later fence"),
        ] {
            let mut commit = with(&writer, other);
            commit.events = vec![event(&tree, 0)];
            refuse(&backends, &writer, vec![commit], what).await?;
        }
        writer.commit(vec![appended("fence", fence)]).await?;
        writer.verify("after a commit of the owner").await?;
    }
    no_events(&backends, &tree).await
}

/// Batches of which one commit doesn't fit.
pub async fn atomicity(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let writer = Writer::with_children(&backends, "atomic", 3).await?;
    let (tree, other) = (writer.id.clone(), id("other"));
    let unknown = at(9, ExecutionChange::Error);
    let late = |changes: Vec<Change>| commit(&tree, 4, changes);
    let bad = [
        ("of a version too high", commit(&tree, 9, Vec::new())),
        ("of another tree", commit(&other, 4, Vec::new())),
        ("that finishes a run that isn't in flight", late(vec![finished(4)])),
        ("that finishes another execution's run", late(vec![of(3, finished(1))])),
        (
            "that dispatches a run under a wrong number",
            late(vec![dispatched(7, 7)]),
        ),
        ("that changes an execution that isn't there", late(vec![unknown])),
        ("that creates a child again", late(vec![started(&tree, 2)])),
        ("that creates the tree again", late(vec![created(&tree)])),
    ];
    for (what, last) in bad {
        // Several executions change in the first commit: none of them may stay so.
        let first = vec![
            appended("a", 1_i64),
            dispatched(1, 1),
            of(1, appended("a", 1_i64)),
            of(2, appended("b", 1_i64)),
            started(&tree, 4),
            of(4, appended("c", 1_i64)),
        ];
        let first = laden(commit(&tree, 3, first));
        refused_as_a_whole(&backends, vec![first, last], what).await?;
        writer.verify(&format!("after a batch with a commit {what}")).await?;
    }
    let creation = laden(commit(&other, 1, vec![created(&other)]));
    let last = commit(&other, 2, vec![finished(1)]);
    refused_as_a_whole(&backends, vec![creation, last], "that doesn't fit a creation").await?;
    let state = backends.context().load(&other).await.must("loading")?;
    same_state(&other, state.as_deref(), None, "after a batch that failed")
}

/// The commit with something in each other section.
fn laden(commit: Commit) -> Commit {
    let definitions = Definitions {
        identities: [("a".into(), "b".into())].into(),
        context_schema: [("a".into(), Value::Null)].into(),
    };
    Commit {
        registries: vec![Arc::new(document(77))],
        definitions: Some(Arc::new(definitions)),
        turns: vec![turn("hello", Some("a:1/0"))],
        events: vec![event(&commit.tree, 0)],
        ..commit
    }
}

async fn refused_as_a_whole(backends: &Backends, commits: Vec<Commit>, what: &str) -> Outcome {
    let tree = commits[0].tree.clone();
    if backends.commit(commits, None).await.is_ok() {
        return Err(Finding::Violated(format!("a batch with a commit {what} was stored")));
    }
    no_events(backends, &tree).await?;
    let sections = backends.sections();
    if sections.registry {
        let stored = backends.workflows().registry(&registry(77)).await;
        ensure!(
            stored.must("reading a registry")?.is_none(),
            "a batch with a commit {what} left its registry"
        );
    }
    if let (true, Some(store)) = (sections.definitions, backends.identities()) {
        let stored = store.identities(&tree).await.must("reading identities")?;
        ensure!(stored.is_empty(), "a batch with a commit {what} left its identities");
    }
    if let (true, Some(store)) = (sections.definitions, backends.schemas()) {
        let stored = store.schemas(&tree).await.must("reading schemas")?;
        ensure!(stored.is_empty(), "a batch with a commit {what} left its schemas");
    }
    if let (true, Some(store)) = (sections.turns, backends.conversations()) {
        let stored = store.turns(&tree).await.must("reading turns")?;
        ensure!(stored.is_empty(), "a batch with a commit {what} left its turns");
    }
    Ok(())
}

async fn no_events(backends: &Backends, tree: &ExecutionId) -> Outcome {
    if let Some(telemetry) = backends.telemetry() {
        let events = telemetry.events(tree, 0, 10).await.must("reading events")?;
        ensure!(events.is_empty(), "a commit that was refused left its events");
    }
    Ok(())
}
