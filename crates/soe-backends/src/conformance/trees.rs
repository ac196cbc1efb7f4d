//! Checks of trees with more than their root.

use std::sync::Arc;

use super::compare::same_state;
use super::fixture::{
    Must, Writer, appended, at, broadcast, child_of, dispatched, finished, id, of, run, snapshot, started, status, time,
};
use super::{Factory, Finding, Outcome, ensure};
use crate::{
    Backends, Change, ExecutionChange, ExecutionId, Failure, ListQuery, Progress, Run, Spawning, Status, TreeTotals,
    Value,
};

/// A run of the root that starts children.
fn spawning(spawned: Spawning) -> Change {
    at(
        0,
        ExecutionChange::Dispatched(Arc::new(Run {
            node: "fan".into(),
            progress: Progress::Child(spawned),
            ..(*run(1, 1)).clone()
        })),
    )
}

fn progressed(spawned: Spawning) -> Change {
    let progress = Progress::Child(spawned);
    at(0, ExecutionChange::Progressed { run: 1, progress })
}

/// Children, and children of theirs.
pub async fn children(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "children").await?;
    let root = writer.id.clone();
    let first = root.child(&root, 1, 0, 1);
    let below = first.child(&root, 3, 0, 4);
    let steps = [
        vec![spawning(Spawning::default()), snapshot(1)],
        vec![started(&root, 1), started(&root, 2), of(1, status(Status::Running, 2))],
        vec![
            progressed(Spawning {
                total: Some(150),
                due: Some(time(9)),
            }),
            child_of(&root, (0, &root), 2, 0, 3),
        ],
        vec![child_of(&root, (1, &first), 3, 0, 4), of(4, appended("r", "deep"))],
        vec![child_of(&root, (4, &below), 1, 7, 5), of(5, status(Status::Running, 3))],
        vec![finished(1), of(1, status(Status::Rested, 4)), of(3, broadcast(&["GO"]))],
    ];
    for (number, changes) in steps.into_iter().enumerate() {
        writer.commit(changes).await?;
        writer.verify(&format!("after step {number} with children")).await?;
    }
    let loaded = backends.context().load(&root).await.must("loading")?;
    let names = [first.clone(), below.clone(), below.child(&root, 1, 7, 5)];
    for name in names {
        let found = loaded.as_ref().and_then(|state| state.find(&name));
        ensure!(found.is_some(), "execution {name} isn't found by its name");
        let alone = backends.context().load(&name).await.must("loading a child's name")?;
        ensure!(alone.is_none(), "a child is stored as a tree of its own");
    }
    let page = backends.context().list(&ListQuery::default()).await.must("listing")?;
    ensure!(
        page.executions.len() == 1,
        "the list of trees has {} of one",
        page.executions.len()
    );
    Ok(())
}

/// What children have for their parents.
pub async fn unsent(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::with_children(&backends, "unsent", 2).await?;
    let used = TreeTotals {
        llm_calls: 1,
        tool_calls: 2,
        tokens: u64::MAX - 3,
        children: 4,
    };
    let delivered = |value: &str| {
        let value = Value::from(value);
        at(
            0,
            ExecutionChange::Appended {
                field: "result".into(),
                size: value.size(),
                value,
                delivered: true,
            },
        )
    };
    let steps = [
        vec![of(1, appended("result", 1_i64)), of(1, appended("other", 2_i64))],
        vec![of(1, appended("result", Value::Null)), of(2, appended("result", "b"))],
        vec![
            at(1, ExecutionChange::Sent),
            delivered("1"),
            delivered("null"),
            at(0, ExecutionChange::Used(used)),
        ],
        vec![of(1, appended("result", "later")), at(2, ExecutionChange::Used(used))],
        vec![at(2, ExecutionChange::Sent), at(1, ExecutionChange::Sent)],
    ];
    for (number, changes) in steps.into_iter().enumerate() {
        writer.commit(changes).await?;
        writer
            .verify(&format!("after step {number} with values for the parent"))
            .await?;
    }
    Ok(())
}

/// Ends at several places of a tree.
pub async fn ends(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::with_children(&backends, "ends", 3).await?;
    let root = writer.id.clone();
    let first = root.child(&root, 1, 0, 1);
    writer.commit(vec![child_of(&root, (1, &first), 1, 0, 4)]).await?;
    let failed = ExecutionChange::Status {
        status: Status::Failed,
        at: time(7),
        failure: Some(Arc::new(Failure {
            message: "it \"broke\"\nbadly".to_owned(),
            node: Some("summarize".into()),
            limit: None,
        })),
    };
    let steps = [
        vec![
            status(Status::Running, 1),
            of(1, status(Status::Running, 1)),
            of(4, status(Status::Running, 2)),
        ],
        vec![at(1, failed), of(2, status(Status::Cancelled, 8))],
        vec![status(Status::Cancelled, 9)],
        vec![of(1, status(Status::Running, 10)), status(Status::Rested, 10)],
    ];
    for (number, changes) in steps.into_iter().enumerate() {
        writer.commit(changes).await?;
        writer.verify(&format!("after step {number} with ends")).await?;
        let loaded = backends.context().load(&root).await.must("loading")?;
        for execution in 0..5 {
            let (found, expected) = (
                loaded.as_ref().and_then(|state| state.status(execution)),
                writer.state.as_ref().and_then(|state| state.status(execution)),
            );
            ensure!(
                found == expected,
                "execution {execution} is {found:?} instead of {expected:?}"
            );
        }
    }
    Ok(())
}

/// A thousand children, created in parts, of which some change.
pub async fn many(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    grown(&backends).await?.verify("with 1,000 children").await
}

async fn grown(backends: &Backends) -> Result<Writer<'_>, Finding> {
    let mut writer = Writer::create(backends, "many").await?;
    let root = writer.id.clone();
    for part in 0..4 {
        let numbers = part * 250 + 1..=part * 250 + 250;
        let born = numbers.flat_map(|number| [started(&root, number), of(number, status(Status::Running, number))]);
        writer.commit(born.collect()).await?;
    }
    for number in [1, 17, 256, 257, 999, 1_000] {
        writer
            .commit(vec![
                of(number, dispatched(1, 1)),
                of(number, snapshot(1)),
                of(number, appended("n", number)),
            ])
            .await?;
        let over = [
            of(number, finished(1)),
            of(number, status(Status::Rested, number)),
            broadcast(&["ONE"]),
        ];
        writer.commit(over.into()).await?;
    }
    Ok(writer)
}

/// Deep trees, whose names are shortened.
pub async fn deep(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "a-name-that-is-not-short").await?;
    let root = writer.id.clone();
    let (mut parent, mut above): (u64, ExecutionId) = (0, root.clone());
    for number in 1..=60 {
        let name = above.child(&root, 1, 0, number);
        let born = child_of(&root, (parent, &above), 1, 0, number);
        writer.commit(vec![born, of(number, appended("depth", number))]).await?;
        (parent, above) = (number, name);
    }
    writer.verify("with 60 generations").await?;
    let loaded = backends.context().load(&root).await.must("loading")?;
    let found = loaded.and_then(|state| state.number_of(&above));
    ensure!(found == Some(60), "{above} is execution {found:?} instead of 60");
    Ok(())
}

/// All of it, after the store was closed.
pub async fn survives(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let expected = grown(&backends).await?.state;
    let reopened = factory.reopen(backends).await;
    let backends = reopened.ok_or(Finding::Skipped("the factory can't re-open a store"))?;
    let loaded = backends.context().load(&id("many")).await.must("loading")?;
    same_state(&id("many"), loaded.as_deref(), expected.as_ref(), "after re-opening")
}
