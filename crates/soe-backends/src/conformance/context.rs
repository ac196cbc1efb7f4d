//! Checks of [`ContextBackend`](crate::ContextBackend): commits and states.

use super::arbitrary::{Random, changes};
use super::fixture::{
    Must, Writer, appended, at, broadcast, child_of, commit, created, dispatched, field, finished, frame, genesis, id,
    of, owned, registry, snapshot, stack, started, status, version,
};
use super::{Factory, Outcome, ensure};
use crate::{
    Change, Definitions, Deletion, ExecutionChange, Guard, Limits, ListQuery, Message, Owed, Post, Progress, Request,
    Schedule, Status, TreeGenesis, TreeTotals, Value,
};

/// Nothing is there before anything is stored.
pub async fn missing(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let nobody = id("nobody");
    let context = backends.context();
    ensure!(
        context.load(&nobody).await.must("loading")?.is_none(),
        "a state was loaded from an empty store"
    );
    let guard = Guard { version: 0, fence: 0 };
    let deletion = context.delete(&nobody, guard).await.must("deleting")?;
    ensure!(
        deletion == Deletion::NoSuchTree,
        "deleting from an empty store gives {deletion:?}"
    );
    let page = context.list(&ListQuery::default()).await.must("listing")?;
    ensure!(
        page.executions.is_empty() && page.next.is_none(),
        "an empty store lists {page:?}"
    );
    let message = Message {
        id: "m".into(),
        at: super::fixture::time(0),
        execution: nobody.clone(),
        request: Request::Cancel,
    };
    let post = context.post(&nobody, &message).await.must("posting")?;
    ensure!(post == Post::NoSuchTree, "posting to no tree gives {post:?}");
    let inbox = context.inbox(&nobody, 0, 10).await.must("reading an inbox")?;
    ensure!(inbox.is_empty(), "a tree that isn't there has the messages {inbox:?}");
    ensure!(
        context.load(&nobody).await.must("loading")?.is_none(),
        "a message made a tree"
    );
    backends.commit(Vec::new(), None).await.must("storing no commits")?;
    Ok(())
}

/// The kinds of changes, one commit after the other.
fn steps(writer: &Writer<'_>) -> Vec<Vec<Change>> {
    let root = &writer.id;
    let first = root.child(root, 1, 0, 1);
    let progress = Progress::Tool { attempt: 3 };
    let mut all = vec![
        vec![status(Status::Running, 2), broadcast(&["START", "GO", "START"])],
        vec![at(0, ExecutionChange::Routed { node: "route".into() })],
        vec![dispatched(1, 1), dispatched(2, 1), snapshot(1)],
        vec![started(root, 1), started(root, 2), child_of(root, (1, &first), 1, 0, 3)],
        vec![
            at(0, ExecutionChange::Progressed { run: 1, progress }),
            at(0, ExecutionChange::Error),
            at(0, ExecutionChange::ToolCalled),
        ],
        vec![
            finished(1),
            appended("result", vec![1_i64, 2]),
            appended("zeta", "later"),
        ],
        vec![version(&registry(9))],
        vec![stack(vec![frame(0), frame(2)])],
        vec![stack(Vec::new())],
    ];
    // In a child, whose values are the parent's too.
    all.push(vec![of(1, status(Status::Running, 3)), of(3, broadcast(&["GO"]))]);
    all.push(vec![of(1, dispatched(1, 1)), of(1, snapshot(1))]);
    all.push(vec![
        of(1, appended("result", "kept")),
        of(3, appended("result", Value::Null)),
    ]);
    all.push(vec![of(1, finished(1)), at(1, ExecutionChange::Sent)]);
    let used = TreeTotals {
        tokens: 7,
        ..TreeTotals::default()
    };
    all.push(vec![
        at(0, ExecutionChange::Used(used)),
        of(1, status(Status::Rested, 5)),
    ]);
    // Of the tree.
    let runs = Limits {
        runs: 5,
        ..Limits::default()
    };
    let definitions = Definitions {
        identities: [("zeta".into(), "a".into()), ("alpha".into(), "".into())].into(),
        context_schema: [("a".into(), Value::Null)].into(),
    };
    all.push(vec![Change::Limits(runs.into()), Change::Defined(definitions.into())]);
    all.push(vec![owned("engine-1", 1)]);
    let owed = Owed {
        definitions: true,
        turns: vec![super::conversations::turn("owed", Some("a:1/0"))],
        events: super::fixture::events(root, 0..3),
    };
    all.push(vec![Change::Owed(Box::new(owed)), owned("engine-2", 2)]);
    all.push(vec![Change::Paid {
        definitions: true,
        turns: 1,
        events: 2,
    }]);
    all.push(vec![finished(2), status(Status::Rested, 9)]);
    all
}

/// Every kind of change comes back.
pub async fn round_trip(factory: &dyn Factory) -> Outcome {
    for gives_after in [true, false] {
        let backends = factory.fresh().await;
        let mut writer = Writer::new(&backends, "round-trip");
        writer.gives_after = Some(gives_after);
        let mut genesis = TreeGenesis {
            schedule: Schedule::DepthFirst,
            limits: Limits {
                llm_calls: Some(7),
                ..Limits::default()
            }
            .into(),
            ..genesis(&writer.id)
        };
        genesis.root.fields = vec![
            field("zeta", [Value::from(1_i64)]),
            field("alpha", [Value::from("a"), Value::Null]),
        ];
        genesis.root.context_bytes = 99;
        writer.commit(vec![Change::Created(Box::new(genesis))]).await?;
        writer.verify("after its creation").await?;
        for changes in steps(&writer) {
            let when = format!("after {changes:?}");
            writer.commit(changes).await?;
            writer.verify(&when).await?;
        }
    }
    Ok(())
}

/// A long sequence of commits that nobody thought up; each of them twice, with the state after it and without.
pub async fn arbitrary(factory: &dyn Factory) -> Outcome {
    let (given, left) = (factory.fresh().await, factory.fresh().await);
    let mut with = Writer::create(&given, "arbitrary").await?;
    let mut without = Writer::create(&left, "arbitrary").await?;
    (with.gives_after, without.gives_after) = (Some(true), Some(false));
    let mut random = Random::new(7);
    for round in 0..100 {
        let Some(state) = &with.state else { break };
        let picks: Vec<u64> = (0..4).map(|_| random.number()).collect();
        let changes = changes(state, picks);
        with.commit(changes.clone()).await?;
        without.commit(changes).await?;
        if round % 10 == 0 {
            let when = format!("after commit {}", with.version());
            with.verify(&format!("{when}, with the state after each")).await?;
            without.verify(&format!("{when}, without")).await?;
        }
    }
    with.verify("at the end, with the state after each").await?;
    without.verify("at the end, without").await
}

/// Batches of several commits.
pub async fn batches(factory: &dyn Factory) -> Outcome {
    for gives_after in [true, false] {
        let backends = factory.fresh().await;
        let mut writer = Writer::new(&backends, "batches");
        writer.gives_after = Some(gives_after);
        let tree = writer.id.clone();
        let commits = |from: u64, to: u64| (from..=to).map(|v| commit(&tree, v, vec![appended("n", v)]));
        let mut first = vec![commit(&tree, 1, vec![created(&tree)])];
        first.extend(commits(2, 20));
        writer.store(first).await?;
        writer.verify("after a batch that begins with the creation").await?;
        let across = vec![
            commit(&tree, 21, vec![dispatched(1, 1), snapshot(1), started(&tree, 1)]),
            commit(
                &tree,
                22,
                vec![finished(1), of(1, appended("n", 22_u64)), dispatched(2, 2), snapshot(2)],
            ),
        ];
        writer.store(across).await?;
        writer.store(commits(23, 40).collect()).await?;
        writer.verify("after three batches").await?;
        // A tree that changes hands in the middle of a batch.
        let mut owning: Vec<_> = commits(41, 43).collect();
        owning[0].changes.push(owned("engine", 1));
        (owning[1].fence, owning[2].fence) = (1, 1);
        writer.store(owning).await?;
        writer.commit(vec![appended("n", "last")]).await?;
        writer.verify("after a batch with a new owner").await?;
    }
    Ok(())
}

/// Ids that a careless store mixes up.
pub async fn isolation(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let long = "x".repeat(128);
    let longer = format!("{}y", "x".repeat(127));
    let names = [
        "a",
        "A",
        "aa",
        "a.",
        "a.b",
        "a-b",
        "a_b",
        "a.json",
        "a_workflows",
        "a_current",
        "-",
        "_",
        "0",
        "00",
        "con",
        "NUL",
        "null",
        "a.tmp",
        "aux.1",
        "t",
        "t.1",
        "t.1x",
        "t.1.0x",
        "t.x.0.1.0x",
        long.as_str(),
        longer.as_str(),
    ];
    let mut writers = Vec::new();
    for name in names {
        let mut writer = Writer::with_children(&backends, name, 2).await?;
        writer
            .commit(vec![appended("name", name), of(2, appended("child", name))])
            .await?;
        writers.push(writer);
    }
    for writer in &mut writers {
        let mine = appended("again", writer.id.as_str());
        writer.commit(vec![of(1, mine)]).await?;
    }
    for writer in &writers {
        writer.verify("beside trees with similar ids").await?;
    }
    let page = backends.context().list(&ListQuery::default()).await.must("listing")?;
    ensure!(
        page.executions.len() == names.len(),
        "{} of {} trees are listed",
        page.executions.len(),
        names.len()
    );
    // All but one are deleted; that one stays as it is.
    let Some((kept, gone)) = writers.split_last() else {
        return Ok(());
    };
    for writer in gone {
        writer.delete().await?;
        kept.verify("after a tree with a similar id was deleted").await?;
    }
    Ok(())
}
