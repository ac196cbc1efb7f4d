//! Checks of what a state says of an execution's children and its parent.

use std::sync::Arc;

use super::fixture::{Must, Writer, appended, child_of, frame, id};
use super::{Factory, Finding, Outcome, ensure};
use crate::{
    Backends, Batch, Change, ChildStatus, ExecutionId, Frame, Incoming, Progress, Received, Run, Spawning, Started,
    Tell, Then, Told, TreeTotals, Value,
};

fn totals(number: u64) -> TreeTotals {
    TreeTotals {
        llm_calls: number,
        tool_calls: 2 * number,
        tokens: u64::MAX - number,
        children: number,
    }
}

fn batch(signals: &[&str]) -> Batch {
    signals.iter().map(|signal| Arc::from(*signal)).collect()
}

fn started(run: u64, failure_signal: Option<&str>, children: &[&str]) -> Change {
    Change::Children(Box::new(Started {
        run,
        node: "fan \u{1f600}".into(),
        failure_signal: failure_signal.map(Arc::from),
        children: children.iter().map(|child| id(child)).collect(),
    }))
}

fn received(child: &str, number: u64, status: Option<ChildStatus>) -> Change {
    Change::Received {
        child: id(child),
        message: Received {
            number,
            status,
            totals: totals(number),
        },
    }
}

fn tell(signals: &[&str], status: Option<ChildStatus>, error: Option<&str>, joined: bool) -> Change {
    Change::Told(Box::new(Tell {
        signals: Some(batch(signals)).filter(|signals| !signals.is_empty()),
        status,
        error: error.map(Arc::from),
        joined,
    }))
}

fn kept(child: &str, number: u64) -> Change {
    Change::Kept(Arc::new(Incoming {
        child: id(child),
        message: Arc::new(Told {
            number,
            signals: Some(batch(&["A", "B\n"])),
            updates: vec![
                ("result".into(), Value::from(0.1)),
                (
                    "result".into(),
                    Value::from(serde_json::json!({"b": [1, null], "a": {}})),
                ),
            ],
            status: Some(ChildStatus::Failed),
            error: Some("it \"broke\"".into()),
            totals: totals(number),
        }),
    }))
}

/// A run that starts children, dispatched by the second commit.
fn spawning() -> Change {
    Change::Dispatched(Arc::new(Run {
        number: 1,
        node: "fan".into(),
        workflow: "main_workflow".into(),
        registry: super::fixture::registry(1),
        snapshot: 2,
        started_at: super::fixture::time(2),
        progress: Progress::Child(Spawning::default()),
    }))
}

async fn child<'a>(backends: &'a Backends, execution: &str) -> Result<Writer<'a>, Finding> {
    let mut writer = Writer::new(backends, execution);
    let parent = ExecutionId::new("parent").expect("it is a valid id");
    writer.commit(vec![child_of(&parent, &parent)]).await?;
    Ok(writer)
}

/// Children, and where they stand.
pub async fn children(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "children").await?;
    let spawned = Spawning {
        from: 64,
        next: 128,
        total: 150,
        due: Some(super::fixture::time(9)),
        created: true,
    };
    let steps = [
        vec![spawning(), started(1, None, &["c.1.0", "c.1.1"])],
        vec![
            Change::Progressed {
                run: 1,
                progress: Progress::Child(spawned),
            },
            started(2, Some("LOST"), &["c.2.0"]),
        ],
        vec![received("c.1.0", 1, Some(ChildStatus::Rested)), appended("r", 1_i64)],
        vec![
            received("c.2.0", 1, None),
            received("c.1.1", 7, Some(ChildStatus::Failed)),
        ],
        vec![received("c.1.0", 2, Some(ChildStatus::Active))],
        vec![
            received("c.1.0", 3, Some(ChildStatus::Cancelled)),
            Change::Finished { run: 1 },
        ],
    ];
    for (number, changes) in steps.into_iter().enumerate() {
        writer.commit(changes).await?;
        writer.verify(&format!("after step {number} with children")).await?;
    }
    Ok(())
}

/// What waits for the parent.
pub async fn outbox(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = child(&backends, "outbox").await?;
    let steps = [
        vec![appended("result", 1_i64), appended("other", 2_i64)],
        vec![appended("result", Value::Null)],
        vec![
            tell(&["DONE"], None, None, false),
            appended("result", "later"),
            tell(&[], Some(ChildStatus::Rested), None, true),
        ],
        vec![tell(&["DONE", "DONE"], Some(ChildStatus::Active), None, false)],
        vec![tell(&[], Some(ChildStatus::Failed), Some("no\u{0}"), false)],
        vec![Change::Acknowledged(1), appended("result", true)],
        vec![Change::Acknowledged(3)],
        vec![Change::Acknowledged(2)],
    ];
    for (number, changes) in steps.into_iter().enumerate() {
        writer.commit(changes).await?;
        writer
            .verify(&format!("after step {number} with messages to the parent"))
            .await?;
    }
    Ok(())
}

/// What children have told, and nobody has dealt with.
pub async fn inbox(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "inbox").await?;
    let with = |then| Frame {
        then: Some(Box::new(then)),
        ..frame(2)
    };
    let answer = Then::Acknowledge {
        child: id("c.1.1"),
        number: u64::MAX,
    };
    let steps = [
        vec![started(1, None, &["c.1.0", "c.1.1"]), kept("c.1.0", 1)],
        vec![kept("c.1.1", 1), kept("c.1.0", 2)],
        vec![Change::Stack {
            kept: 0,
            frames: vec![with(answer), frame(0), with(Then::Tell(batch(&["DONE"])))],
        }],
        vec![Change::TakenIn, received("c.1.0", 1, Some(ChildStatus::Failed))],
        vec![Change::TakenIn, Change::TakenIn, Change::TakenIn],
    ];
    for (number, changes) in steps.into_iter().enumerate() {
        writer.commit(changes).await?;
        writer
            .verify(&format!("after step {number} with messages that wait"))
            .await?;
    }
    Ok(())
}

/// Messages that don't fit.
pub async fn strangers(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "strangers").await?;
    writer.commit(vec![started(1, None, &["c.1.0"])]).await?;
    let good = writer.next(vec![received("c.1.0", 1, None), appended("r", 1_i64)]);
    let mut bad = writer.next(vec![received("c.1.1", 1, None)]);
    bad.version += 1;
    let stored = backends.commit(vec![good, bad]).await;
    ensure!(stored.is_err(), "a message of no child was stored");
    writer.verify("after a message of no child").await
}

/// All of it, after the store was closed.
pub async fn survives(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let expected = {
        let mut writer = child(&backends, "family").await?;
        writer
            .commit(vec![
                spawning(),
                started(1, Some("LOST"), &["c.1.0", "c.1.1"]),
                received("c.1.0", 4, Some(ChildStatus::Rested)),
                kept("c.1.1", 1),
                appended("result", 1_i64),
                tell(&["DONE"], None, None, false),
                appended("result", 2_i64),
            ])
            .await?;
        writer.state
    };
    let reopened = factory.reopen(backends).await;
    let backends = reopened.ok_or(Finding::Skipped("the factory can't re-open a store"))?;
    let loaded = backends.context().load(&id("family")).await.must("loading")?;
    super::fixture::same_state(&id("family"), loaded.as_ref(), expected.as_ref(), "after re-opening")
}
