//! Checks of what forks need: trees that begin as copies of others, and earlier conversation histories.

use std::sync::Arc;

use super::compare::{difference, json};
use super::conversations::turn;
use super::fixture::{
    Must, Writer, appended, at, broadcast, child_of, dispatched, finished, frame, guard, id, of, run, snapshot, stack,
    started, status, version,
};
use super::inbox::{post, signal};
use super::{Factory, Finding, Outcome, ensure};
use crate::{
    Backends, Change, Context, ExecutionChange, ExecutionId, ExecutionState, NumberMap, ParentInfo, Status, TreeState,
    Turn,
};

/// The state with which a fork begins: the same paths below another root.
fn fork_of(state: &TreeState, root: &ExecutionId) -> TreeState {
    let name = |old: &ExecutionId| match old.path_below(&state.root) {
        Some(path) => id(&format!("{root}.{path}")),
        None => root.clone(),
    };
    let context = |old: &Context| {
        let mut context = old.clone();
        context.operational.main_execution_id = Some(root.clone());
        context.parent = old.parent.as_ref().map(|parent| {
            Arc::new(ParentInfo {
                parent_execution_id: name(&parent.parent_execution_id),
                main_execution_id: root.clone(),
                ..(**parent).clone()
            })
        });
        Arc::new(context)
    };
    let executions = state.executions.iter().map(|(number, old)| {
        let execution = ExecutionState {
            id: name(&old.id),
            context: context(&old.context),
            snapshots: NumberMap::default(),
            runs: NumberMap::default(),
            ..(**old).clone()
        };
        (number, Arc::new(execution))
    });
    TreeState {
        root: root.clone(),
        version: 0,
        owner: None,
        next_event: 0,
        inbox: 0,
        executions: executions.collect(),
        ..state.clone()
    }
}

/// A tree with something of everything.
async fn source(backends: &Backends) -> Result<Writer<'_>, Finding> {
    let mut source = Writer::with_children(backends, "source", 2).await?;
    let root = source.id.clone();
    let first = root.child(&root, 1, 0, 1);
    source
        .commit(vec![
            child_of(&root, (1, &first), 1, 0, 3),
            of(3, appended("deep", true)),
        ])
        .await?;
    let running = vec![
        status(Status::Running, 1),
        broadcast(&["GO"]),
        dispatched(1, 1),
        snapshot(1),
    ];
    source.commit(running).await?;
    let in_child = vec![
        of(1, dispatched(1, 1)),
        of(1, snapshot(1)),
        super::fixture::owned("engine", 2),
    ];
    source.commit(in_child).await?;
    let seq = post(backends, &root, &signal(&root, "taken")).await?;
    post(backends, &root, &signal(&root, "waits")).await?;
    source
        .commit(vec![
            stack(vec![frame(1)]),
            appended("n", 1_u64),
            version(&super::fixture::registry(2)),
            Change::Taken(seq),
        ])
        .await?;
    Ok(source)
}

/// A tree that begins as a copy of another.
pub async fn begun(factory: &dyn Factory) -> Outcome {
    for gives_after in [true, false] {
        let backends = factory.fresh().await;
        let source = source(&backends).await?;
        let Some(state) = source.state.clone() else {
            return Ok(());
        };
        let mut fork = Writer::new(&backends, "fork");
        fork.gives_after = Some(gives_after);
        let again = |execution| {
            let number = state.get(execution).map_or(1, |state| state.next_run);
            let restarted = ExecutionChange::Restarted(run(number, number));
            [at(execution, restarted), of(execution, snapshot(number))]
        };
        let copy = Change::Forked(Box::new(fork_of(&state, &fork.id)));
        let mut first = fork.next([copy].into_iter().chain(again(0)).chain(again(1)).collect());
        first.events = super::fixture::events(&fork.id, 0..2);
        fork.store(vec![first]).await?;
        fork.verify("after a fork began").await?;
        let used = fork.state.as_ref().map(|fork| fork.used);
        ensure!(used == Some(state.used), "a fork counts anew");
        let copied = backends
            .context()
            .inbox(&fork.id, 0, 10)
            .await
            .must("reading an inbox")?;
        ensure!(copied.is_empty(), "a fork has the messages of the other: {copied:?}");
        let root = fork.id.clone();
        fork.commit(vec![
            finished(2),
            of(1, finished(2)),
            appended("n", 2_u64),
            of(3, appended("deep", 2_u64)),
        ])
        .await?;
        fork.commit(vec![child_of(&root, (0, &root), 9, 0, 4)]).await?;
        fork.verify("after a fork went on").await?;
        source.verify("after it was forked").await?;
        let waits = backends
            .context()
            .inbox(&source.id, 0, 10)
            .await
            .must("reading an inbox")?;
        ensure!(
            waits.len() == 1,
            "after a fork, the other has {} of one message",
            waits.len()
        );
        fork.delete().await?;
        source.verify("after its fork was deleted").await?;
    }
    Ok(())
}

/// A fork under a name that is taken.
pub async fn taken(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let source = source(&backends).await?;
    let other = Writer::with_children(&backends, "other", 1).await?;
    let Some(state) = source.state.clone() else {
        return Ok(());
    };
    for version in [1, 3] {
        let mut commit = other.next(vec![Change::Forked(Box::new(fork_of(&state, &other.id)))]);
        commit.version = version;
        let result = backends.commit(vec![commit], None).await;
        super::fixture::must_conflict(result, &other.id, "a fork under the name of another tree")?;
        other.verify("after a fork under its name").await?;
    }
    Ok(())
}

/// The conversation history at each commit.
pub async fn turns(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut root = Writer::create(&backends, "root").await?;
    let tree = root.id.clone();
    if !backends.sections().turns || turns_at(&backends, &tree, 1).await?.is_none() {
        return Err(Finding::Skipped(
            "the store doesn't keep earlier conversation histories",
        ));
    }
    let at = |n: u64| turn(&format!("turn {n}"), Some(&format!("root:{n}/0")));
    for n in 2..=4 {
        let changes = match n {
            3 => vec![started(&tree, 1), of(1, appended("n", n))],
            _ => vec![appended("n", n)],
        };
        let mut commit = root.next(changes);
        commit.turns = vec![at(n)];
        root.store(vec![commit]).await?;
    }
    root.commit(Vec::new()).await?;
    let Some(conversations) = backends.conversations() else {
        return Ok(());
    };
    let replaced = conversations.replace_turns(&tree, &[turn("now", None)]).await;
    replaced.must("replacing")?;
    let all: Vec<Turn> = (2..=4).map(at).collect();
    for (version, expected) in [
        (1, &all[..0]),
        (2, &all[..1]),
        (3, &all[..2]),
        (4, &all[..3]),
        (5, &all[..3]),
    ] {
        let found = turns_at(&backends, &tree, version).await?;
        ensure!(
            found.as_deref() == Some(expected),
            "the history at version {version} is {found:?} instead of {expected:?}"
        );
    }
    let none = turns_at(&backends, &tree, 6).await?;
    ensure!(none.is_none(), "there is a history at a version that isn't there");
    let (now, only) = (conversations.turns(&tree).await.must("reading")?, [turn("now", None)]);
    ensure!(now == only, "the present: {}", difference(&json(&now), &json(&only)));
    let Some(state) = &root.state else { return Ok(()) };
    backends.context().delete(&tree, guard(state)).await.must("deleting")?;
    let none = turns_at(&backends, &tree, 2).await?;
    ensure!(none.is_none(), "a deleted tree has an earlier history");
    Ok(())
}

async fn turns_at(backends: &Backends, tree: &ExecutionId, version: u64) -> Result<Option<Vec<Turn>>, Finding> {
    let turns = backends.context().turns_at(tree, version).await;
    turns.must("reading an earlier conversation history")
}
