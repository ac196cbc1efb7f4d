//! Checks of [`ContextBackend`](crate::ContextBackend): commits and states.

use std::sync::Arc;

use super::conversations::turn;
use super::fixture::{
    Must, Writer, appended, broadcast, child_of, commit, created, dispatched, document, event, field, frame, id,
    must_conflict, registry, same_state, time, version,
};
use super::{Factory, Finding, Outcome, ensure};
use crate::{Change, Commit, Definitions, Genesis, Limits, ListQuery, Progress, Schedule, Status, TreeTurns, Value};

/// Nothing is there before anything is stored.
pub async fn missing(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let nobody = id("nobody");
    let context = backends.context();
    ensure!(
        context.load(&nobody).await.must("loading")?.is_none(),
        "a state was loaded from an empty store"
    );
    ensure!(
        !context.delete(&nobody).await.must("deleting")?,
        "an execution was deleted from an empty store"
    );
    let page = context.list(&ListQuery::default()).await.must("listing")?;
    ensure!(
        page.executions.is_empty() && page.next.is_none(),
        "an empty store lists {page:?}"
    );
    backends.commit(Vec::new()).await.must("storing no commits")?;
    Ok(())
}

/// Every kind of change comes back.
pub async fn round_trip(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::new(&backends, "child-1");
    let creation = match child_of(&id("parent"), &id("root")) {
        Change::Created(genesis) => Change::Created(Box::new(Genesis {
            schedule: Schedule::DepthFirst,
            limits: Arc::new(Limits {
                llm_calls: Some(7),
                ..Limits::default()
            }),
            fields: vec![
                field("zeta", [Value::from(1_i64)]),
                field("alpha", [Value::from("a"), Value::Null]),
            ],
            context_bytes: 99,
            ..*genesis
        })),
        other => other,
    };
    writer.commit(vec![creation]).await?;
    writer.verify("after its creation").await?;
    let status = |status| Change::Status {
        status,
        at: time(2),
        failure: None,
    };
    let steps = [
        vec![status(Status::Running), broadcast(&["START", "GO", "START"])],
        vec![
            Change::Routed { node: "route".into() },
            Change::Routed { node: "route".into() },
        ],
        vec![dispatched(1, 4), dispatched(2, 4)],
        vec![
            Change::Progressed {
                run: 1,
                progress: Progress::Tool { attempt: 3 },
            },
            Change::Error,
        ],
        vec![
            Change::Finished { run: 1 },
            appended("result", vec![1_i64, 2]),
            appended("zeta", "later"),
        ],
        vec![
            Change::Accepted([Arc::from("OUTSIDE")].into()),
            Change::Stack {
                kept: 0,
                frames: vec![frame(0), frame(2)],
            },
        ],
        vec![
            Change::TakenUp,
            Change::Stack {
                kept: 0,
                frames: Vec::new(),
            },
        ],
        vec![
            Change::Registry(version(&registry(9))),
            Change::Limits(Arc::new(Limits {
                runs: 5,
                ..Limits::default()
            })),
        ],
        vec![Change::Finished { run: 2 }, status(Status::Rested)],
    ];
    for changes in steps {
        let when = format!("after {changes:?}");
        writer.commit(changes).await?;
        writer.verify(&when).await?;
    }
    Ok(())
}

/// A long sequence of commits that nobody thought up.
pub async fn arbitrary(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "arbitrary").await?;
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..60 {
        let Some(state) = writer.state.clone() else { break };
        let (mut next_run, mut changes) = (state.next_run, Vec::new());
        let mut in_flight: Vec<u64> = state.runs.keys().copied().collect();
        for _ in 0..3 {
            // xorshift: the same sequence each time.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let pick = (random >> 33) as usize;
            changes.push(match random % 7 {
                0 | 1 => {
                    next_run += 1;
                    dispatched(next_run - 1, state.version + 1)
                }
                2 | 3 if !in_flight.is_empty() => Change::Finished {
                    run: in_flight.swap_remove(pick % in_flight.len()),
                },
                4 => broadcast(&["A", "B", "C"][pick % 3..]),
                5 => Change::Stack {
                    kept: 0,
                    frames: vec![frame(pick % 5); pick % 3],
                },
                _ => appended(["a", "b", "c"][pick % 3], pick),
            });
        }
        writer.commit(changes).await?;
        writer.verify(&format!("after commit {}", writer.version())).await?;
    }
    Ok(())
}

/// Commits that were not computed from the stored version.
pub async fn versions(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let fresh = id("fresh");
    let before_creation = commit(&fresh, 1, vec![appended("a", 1_i64)]);
    must_conflict(
        backends.commit(vec![before_creation]).await,
        &fresh,
        "a commit to an execution that doesn't exist",
    )?;
    let late = commit(&fresh, 2, vec![created(&fresh)]);
    must_conflict(backends.commit(vec![late]).await, &fresh, "a creation with version 2")?;
    ensure!(
        backends.context().load(&fresh).await.must("loading")?.is_none(),
        "a refused commit left a state"
    );

    let mut writer = Writer::create(&backends, "versions").await?;
    writer.commit(vec![appended("a", 1_i64)]).await?;
    let execution = writer.id.clone();
    let refused = [
        ("a second creation", commit(&execution, 1, vec![created(&execution)])),
        (
            "a creation of the next version",
            commit(&execution, 3, vec![created(&execution)]),
        ),
        (
            "a commit of a version that was made",
            commit(&execution, 2, vec![appended("a", 2_i64)]),
        ),
        (
            "a commit from an old version",
            commit(&execution, 1, vec![appended("a", 2_i64)]),
        ),
        (
            "a commit that leaves out a version",
            commit(&execution, 4, vec![appended("a", 2_i64)]),
        ),
        (
            "a commit of version 0",
            commit(&execution, 0, vec![appended("a", 2_i64)]),
        ),
    ];
    for (what, mut commit) in refused {
        commit.events = vec![event(0)];
        must_conflict(backends.commit(vec![commit]).await, &execution, what)?;
        writer.verify(&format!("after {what}")).await?;
    }
    no_events(&backends, &execution).await?;
    writer.commit(vec![appended("a", 2_i64)]).await?;
    writer.verify("after the commit that fits").await
}

/// Batches of which one commit doesn't fit.
pub async fn atomicity(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let writer = Writer::create(&backends, "atomic").await?;
    let (execution, other) = (writer.id.clone(), id("other"));
    let bad = [
        ("of a version too high", commit(&execution, 9, Vec::new())),
        ("of another execution", commit(&other, 3, Vec::new())),
        (
            "that finishes a run that isn't in flight",
            commit(&execution, 3, vec![Change::Finished { run: 4 }]),
        ),
        (
            "that dispatches a run under a wrong number",
            commit(&execution, 3, vec![dispatched(7, 3)]),
        ),
        (
            "that creates the execution again",
            commit(&execution, 3, vec![created(&execution)]),
        ),
    ];
    for (what, last) in bad {
        let first = laden(commit(&execution, 2, vec![appended("a", 1_i64), dispatched(1, 2)]));
        refused_as_a_whole(&backends, vec![first, last], what).await?;
        writer.verify(&format!("after a batch with a commit {what}")).await?;
    }
    let creation = laden(commit(&other, 1, vec![created(&other)]));
    let last = commit(&other, 2, vec![Change::Finished { run: 1 }]);
    refused_as_a_whole(&backends, vec![creation, last], "that doesn't fit a creation").await?;
    let state = backends.context().load(&other).await.must("loading")?;
    same_state(&other, state.as_ref(), None, "after a batch that failed")
}

/// The commit with something in each other section.
fn laden(commit: Commit) -> Commit {
    let definitions = Definitions {
        identities: [("a".into(), "b".into())].into(),
        context_schema: [("a".into(), Value::Null)].into(),
    };
    Commit {
        registry: Some(Arc::new(document(77))),
        definitions: Some(Box::new(definitions)),
        turns: Some(Box::new(TreeTurns {
            main: commit.execution.clone(),
            turns: vec![turn("hello", Some("a:1/0"))],
        })),
        events: vec![event(0)],
        ..commit
    }
}

async fn refused_as_a_whole(backends: &crate::Backends, commits: Vec<Commit>, what: &str) -> Outcome {
    let execution = commits[0].execution.clone();
    if backends.commit(commits).await.is_ok() {
        return Err(Finding::Violated(format!("a batch with a commit {what} was stored")));
    }
    no_events(backends, &execution).await?;
    let sections = backends.context().sections();
    if sections.registry {
        let stored = backends
            .workflows()
            .registry(&registry(77))
            .await
            .must("reading a registry")?;
        ensure!(stored.is_none(), "a batch with a commit {what} left its registry");
    }
    if let (true, Some(store)) = (sections.definitions, backends.identities()) {
        let stored = store.identities(&execution).await.must("reading identities")?;
        ensure!(stored.is_empty(), "a batch with a commit {what} left its identities");
    }
    if let (true, Some(store)) = (sections.definitions, backends.schemas()) {
        let stored = store.schemas(&execution).await.must("reading schemas")?;
        ensure!(stored.is_empty(), "a batch with a commit {what} left its schemas");
    }
    if let (true, Some(store)) = (sections.turns, backends.conversations()) {
        let stored = store.turns(&execution).await.must("reading turns")?;
        ensure!(stored.is_empty(), "a batch with a commit {what} left its turns");
    }
    Ok(())
}

async fn no_events(backends: &crate::Backends, execution: &crate::ExecutionId) -> Outcome {
    if let Some(telemetry) = backends.telemetry() {
        let events = telemetry.events(execution, 0, 10).await.must("reading events")?;
        ensure!(events.is_empty(), "a commit that was refused left its events");
    }
    Ok(())
}

/// Batches of several commits.
pub async fn batches(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::new(&backends, "batches");
    let execution = writer.id.clone();
    let commits = |from: u64, to: u64| (from..=to).map(|v| commit(&execution, v, vec![appended("n", v)]));
    let mut first = vec![commit(&execution, 1, vec![created(&execution)])];
    first.extend(commits(2, 20));
    writer.store(first).await?;
    writer.verify("after a batch that begins with the creation").await?;
    let across = vec![
        commit(&execution, 21, vec![dispatched(1, 21)]),
        commit(&execution, 22, vec![Change::Finished { run: 1 }, dispatched(2, 22)]),
    ];
    writer.store(across).await?;
    writer.store(commits(23, 40).collect()).await?;
    writer.verify("after three batches").await
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
        long.as_str(),
        longer.as_str(),
    ];
    let mut writers = Vec::new();
    for name in names {
        let mut writer = Writer::create(&backends, name).await?;
        writer.commit(vec![appended("name", name)]).await?;
        writers.push(writer);
    }
    for writer in &mut writers {
        let mine = appended("again", writer.id.as_str());
        writer.commit(vec![mine]).await?;
    }
    for writer in &writers {
        writer.verify("beside executions with similar ids").await?;
    }
    let page = backends.context().list(&ListQuery::default()).await.must("listing")?;
    ensure!(
        page.executions.len() == names.len(),
        "{} of {} executions are listed",
        page.executions.len(),
        names.len()
    );
    Ok(())
}
