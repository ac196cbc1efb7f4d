//! Checks of what a tree has still to do: its work list.

use std::sync::Arc;

use super::fixture::{Must, Writer, appended, frame, stack, work};
use super::{Factory, Outcome, ensure};
use crate::{
    Accepted, Batch, Change, Delivery, ExecutionChange, Frame, Spawn, Stopped, Then, TreeTotals, Value, WorkChange,
};

fn batch(signals: &[&str]) -> Batch {
    signals.iter().map(|signal| Arc::from(*signal)).collect()
}

fn delivery(child: u64, error: Option<&str>) -> Arc<Delivery> {
    Arc::new(Delivery {
        child,
        signals: child.is_multiple_of(2).then(|| batch(&["A", "B\n"])),
        updates: vec![
            ("result".into(), Value::from(0.1)),
            (
                "result".into(),
                Value::from(serde_json::json!({"b": [1, null], "a": {}})),
            ),
        ],
        used: TreeTotals {
            tokens: u64::MAX - child,
            ..TreeTotals::default()
        },
        error: error.map(Arc::from),
    })
}

/// The work list in a chain of commits.
fn links() -> Vec<WorkChange> {
    let in_child = |execution, then| Frame {
        execution,
        then: Some(Box::new(then)),
        ..frame(2)
    };
    let accepted = |execution, signals: &[&str]| Accepted {
        execution,
        signals: batch(signals),
    };
    let spawns = [(0, 1), (2, u64::MAX)].map(|(execution, run)| Spawn { execution, run });
    let none = || work(Vec::new());
    vec![
        WorkChange {
            deliveries: vec![delivery(1, None), delivery(2, Some("it \"broke\""))],
            accepted: vec![accepted(0, &["X", "Y"]), accepted(2, &[])],
            ..work(vec![frame(1), frame(0), frame(7)])
        },
        // Two frames stay, one goes, two come.
        WorkChange {
            kept: 2,
            spawns: Some(spawns.into()),
            accepted: vec![accepted(1, &["Z"])],
            ..work(vec![
                in_child(1, Then::Spawn { run: 3 }),
                in_child(2, Then::Deliver(batch(&["A", "B\n"]))),
            ])
        },
        WorkChange {
            kept: 4,
            delivered: 1,
            deliveries: vec![delivery(1, None)],
            ..none()
        },
        WorkChange {
            kept: 3,
            taken: 1,
            accepted: vec![accepted(0, &["W"])],
            ..none()
        },
        WorkChange {
            spawns: Some(spawns[1..].into()),
            taken: 2,
            ..none()
        },
        WorkChange {
            delivered: 2,
            spawns: Some(Vec::new()),
            taken: 1,
            ..none()
        },
    ]
}

/// The rest of what has to be done, as a chain of commits leaves it.
pub async fn list(factory: &dyn Factory) -> Outcome {
    for gives_after in [true, false] {
        let backends = factory.fresh().await;
        let mut writer = Writer::with_children(&backends, "work", 2).await?;
        writer.gives_after = Some(gives_after);
        for (number, link) in links().into_iter().enumerate() {
            writer
                .commit(vec![Change::Work(Box::new(link)), appended("n", number)])
                .await?;
            writer.verify(&format!("after link {number} of a chain")).await?;
        }
        let loaded = backends.context().load(&writer.id).await.must("loading")?;
        ensure!(
            loaded.is_some_and(|state| state.work.is_empty()),
            "something is left on the work list"
        );
        writer.commit(vec![stack(vec![frame(3); 500])]).await?;
        writer.verify("with a high stack").await?;
        let top = WorkChange {
            kept: 499,
            ..work(vec![frame(4)])
        };
        writer.commit(vec![Change::Work(Box::new(top))]).await?;
        writer.verify("with another frame on top of a high stack").await?;
    }
    Ok(())
}

/// What an execution had to do when it failed.
pub async fn stopped(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::with_children(&backends, "stopped", 2).await?;
    let kept = Stopped {
        stack: vec![frame(1), frame(4)],
        deliveries: vec![delivery(1, None), delivery(2, Some("no"))],
        accepted: vec![Accepted {
            execution: 1,
            signals: batch(&["X"]),
        }],
    };
    for (execution, stopped) in [(1, Some(Arc::new(kept))), (0, Some(Arc::default())), (1, None)] {
        let change = ExecutionChange::Stopped(stopped);
        writer.commit(vec![Change::In { execution, change }]).await?;
        writer.verify("with what an execution had to do when it failed").await?;
    }
    Ok(())
}
