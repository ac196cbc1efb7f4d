//! Checks of what forks need: their first commits, and what trees shared earlier.

use std::sync::Arc;

use super::conversations::turn;
use super::fixture::{
    Must, Writer, appended, broadcast, child_of, difference, dispatched, genesis, json, registry, version,
};
use super::{Factory, Finding, Outcome, ensure};
use crate::{
    Change, Definitions, ExecutionState, Forked, Frame, Genesis, Operational, Run, Status, TreeShared, TreeTurns, Turn,
};

/// An execution that begins with another's state.
pub async fn begun(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut source = Writer::create(&backends, "source").await?;
    let status = Change::Status {
        status: Status::Running,
        at: super::fixture::time(1),
        failure: None,
    };
    let stack = Change::Stack {
        kept: 0,
        frames: vec![Frame {
            signals: [Arc::from("GO")].into(),
            registry: registry(1),
            next: 1,
            then: None,
        }],
    };
    let pending = Change::Accepted([Arc::from("LATER"), Arc::from("ü")].into());
    source
        .commit(vec![status, broadcast(&["GO"]), dispatched(1, 2)])
        .await?;
    let changed = Change::Registry(version(&registry(2)));
    source
        .commit(vec![stack, pending, appended("n", 1_u64), changed])
        .await?;
    let Some(state) = source.state.clone() else {
        return Ok(());
    };
    let mut fork = Writer::new(&backends, "fork");
    let changes = vec![fork_of(&state, &fork), restarted(&state)];
    fork.commit(changes).await?;
    fork.verify("after a fork began").await?;
    let Some(begun) = &fork.state else { return Ok(()) };
    let own = |operational: &Operational| Operational {
        main_execution_id: None,
        ..operational.clone()
    };
    ensure!(
        own(&begun.context.operational)
            == Operational {
                tree: begun.context.operational.tree,
                ..own(&state.context.operational)
            }
            && (begun.broadcasts, begun.runs_started) == (state.broadcasts, state.runs_started),
        "a fork counts anew"
    );
    fork.commit(vec![Change::Finished { run: 2 }, appended("n", 2_u64)])
        .await?;
    fork.verify("after a fork went on").await?;
    source.verify("after it was forked").await
}

fn fork_of(state: &ExecutionState, fork: &Writer<'_>) -> Change {
    let fields = state.context.fields.iter();
    Change::Created(Box::new(Genesis {
        registry: state.registry.clone(),
        fields: fields.map(|(name, history)| (name.clone(), history.clone())).collect(),
        context_bytes: state.context_bytes,
        forked: Some(Box::new(Forked::of(state))),
        ..genesis(&fork.id)
    }))
}

fn restarted(state: &ExecutionState) -> Change {
    let Change::Dispatched(run) = dispatched(state.next_run, 1) else {
        return Change::Error;
    };
    Change::Restarted(Arc::new(Run { ..(*run).clone() }))
}

/// What a tree shared at each commit.
pub async fn shared(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let (store, sections) = (backends.context().clone(), backends.sections());
    let mut root = Writer::create(&backends, "root").await?;
    if !(sections.definitions && sections.turns) || shared_at(&backends, &root, 1).await?.is_none() {
        return Err(Finding::Skipped("the store doesn't keep what trees shared earlier"));
    }
    let of_root = |n: u64| turn(&format!("turn {n}"), Some(&format!("root:{n}/0")));
    for n in 2..=4 {
        let mut commit = root.next(vec![appended("n", n)]);
        let identities = [("helper".into(), format!("at {n}").into())].into();
        commit.definitions = (n % 2 == 0).then(|| {
            Box::new(Definitions {
                identities,
                ..Definitions::default()
            })
        });
        commit.turns = tree_turns(&root, of_root(n));
        root.store(vec![commit]).await?;
    }
    // A child's commits are placed by their times: its third comes with the root's third.
    let mut child = Writer::new(&backends, "root.1.0");
    for n in 1..=3 {
        let changes = match n {
            1 => vec![child_of(&root.id, &root.id)],
            _ => vec![appended("n", n)],
        };
        let mut commit = child.next(changes);
        commit.turns = (n == 3)
            .then(|| tree_turns(&root, turn("of the child", None)))
            .flatten();
        child.store(vec![commit]).await?;
    }
    let Some(conversations) = backends.conversations() else {
        return Ok(());
    };
    conversations
        .replace_turns(&root.id, &[turn("now", None)])
        .await
        .must("replacing")?;
    let of_child = turn("of the child", None);
    let expected = [
        (1, None, vec![]),
        (2, Some("at 2"), vec![of_root(2)]),
        (3, Some("at 2"), vec![of_root(2), of_root(3), of_child.clone()]),
        (4, Some("at 4"), vec![of_root(2), of_root(3), of_root(4), of_child]),
    ];
    for (version, identity, turns) in expected {
        let found = shared_at(&backends, &root, version).await?.unwrap_or_default();
        let identities = identity.map(|text| ("helper".into(), text.into()));
        let definitions = Definitions {
            identities: identities.into_iter().collect(),
            ..Definitions::default()
        };
        let expected = TreeShared { definitions, turns };
        ensure!(
            found == expected,
            "what was shared at version {version} differs: {found:?} instead of {expected:?}"
        );
    }
    ensure!(
        shared_at(&backends, &root, 5).await?.is_none(),
        "something was shared at a version that isn't there"
    );
    let (now, only) = (
        conversations.turns(&root.id).await.must("reading")?,
        [turn("now", None)],
    );
    ensure!(now == only, "the present: {}", difference(&json(&now), &json(&only)));
    store.delete(&root.id).await.must("deleting")?;
    ensure!(
        shared_at(&backends, &root, 2).await?.is_none(),
        "a deleted execution shares something"
    );
    Ok(())
}

fn tree_turns(root: &Writer<'_>, turn: Turn) -> Option<Box<TreeTurns>> {
    let (main, turns) = (root.id.clone(), vec![turn]);
    Some(Box::new(TreeTurns { main, turns }))
}

async fn shared_at(
    backends: &crate::Backends,
    writer: &Writer<'_>,
    version: u64,
) -> Result<Option<TreeShared>, Finding> {
    let shared = backends.context().shared_at(&writer.id, version).await;
    shared.must("reading what was shared")
}
