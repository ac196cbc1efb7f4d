//! Checks of what happens when several write at once, and when a writer goes away.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use super::fixture::{Must, Writer, appended, commit, created, document, event, id, of};
use super::{Factory, Finding, Outcome, Task, ensure};
use crate::{BackendErrorKind, Backends, Commit, TreeState};

const WRITERS: u64 = 8;

/// Who was told that its commit is stored, and what others were told that is no conflict.
#[derive(Default)]
struct Race {
    winners: Vec<u64>,
    errors: Vec<String>,
}

/// Lets each of [`WRITERS`] store its own commit at the same time; exactly one may.
async fn race(factory: &dyn Factory, backends: &Backends, make: impl Fn(u64) -> Commit) -> Result<u64, Finding> {
    let race = Arc::new(Mutex::new(Race::default()));
    let enter = |writer| {
        let (backends, race, commit) = (backends.clone(), race.clone(), make(writer));
        Box::pin(async move {
            let result = backends.commit(vec![commit], None).await;
            let mut race = race.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(()) => race.winners.push(writer),
                Err(error) if error.kind() == BackendErrorKind::Conflict => {}
                Err(error) => race.errors.push(error.to_string()),
            }
        }) as Task
    };
    factory.concurrently((0..WRITERS).map(enter).collect()).await;
    let race = race.lock().unwrap_or_else(PoisonError::into_inner);
    ensure!(
        race.errors.is_empty(),
        "a writer that lost got an error that is no conflict: {}",
        race.errors[0]
    );
    match race.winners[..] {
        [winner] => Ok(winner),
        _ => Err(Finding::Violated(format!(
            "{} of {WRITERS} writers were told that they won",
            race.winners.len()
        ))),
    }
}

/// Several writers of one tree, each of another execution.
pub async fn one_winner(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::with_children(&backends, "contended", WRITERS).await?;
    for round in 0..10_u64 {
        let version = writer.version() + 1;
        let execution = writer.id.clone();
        let make = |writer: u64| {
            let mut commit = commit(
                &execution,
                version,
                vec![of(writer + 1, appended("winner", writer)), appended("round", round)],
            );
            commit.events = vec![event(&execution, round)];
            commit
        };
        let winner = race(factory, &backends, make).await?;
        writer.fold(&[make(winner)])?;
        writer.verify(&format!("after writer {winner} won")).await?;
    }
    if let (Some(telemetry), true) = (backends.telemetry(), backends.sections().events) {
        let events = telemetry.events(&writer.id, 0, 100).await.must("reading events")?;
        ensure!(
            events.len() == 10,
            "10 commits with one event each left {} events",
            events.len()
        );
    }
    Ok(())
}

/// Several creators of one tree.
pub async fn one_creator(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    for round in 0..5 {
        let mut writer = Writer::new(&backends, &format!("created-{round}"));
        let execution = writer.id.clone();
        let make = |number: u64| commit(&execution, 1, vec![created(&execution), appended("creator", number)]);
        let winner = race(factory, &backends, make).await?;
        writer.fold(&[make(winner)])?;
        writer.verify(&format!("after creator {winner} won")).await?;
    }
    Ok(())
}

/// Writers of different trees.
pub async fn many_trees(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let failed = Arc::new(Mutex::new(None));
    let write = |number: u64| {
        let (backends, failed) = (backends.clone(), failed.clone());
        Box::pin(async move {
            let result = write_and_verify(&backends, number).await;
            if let Err(finding) = result {
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(finding);
            }
        }) as Task
    };
    factory.concurrently((0..20).map(write).collect()).await;
    let failed = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
    failed.map_or(Ok(()), Err)
}

async fn write_and_verify(backends: &Backends, number: u64) -> Outcome {
    let mut writer = Writer::create(backends, &format!("parallel-{number}")).await?;
    for value in 0..10_u64 {
        // All of them store the same registry.
        let mut commit = writer.next(vec![appended("value", value)]);
        commit.registries = vec![Arc::new(document(value as u8))];
        commit.events = vec![event(&writer.id, value)];
        writer.store(vec![commit]).await?;
    }
    writer.verify("beside 19 other writers").await
}

/// Commits whose future is dropped after a few polls.
pub async fn cancelled(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::with_children(&backends, "cancelled", 2).await?;
    for round in 0..20_u64 {
        let events = writer.state.as_ref().map_or(0, |state| state.next_event);
        let mut dropped = writer.next(vec![appended("round", round), of(2, appended("copy", round))]);
        dropped.registries = vec![Arc::new(document(round as u8))];
        dropped.events = vec![event(&writer.id, events), event(&writer.id, events + 1)];
        drop_after(backends.commit(vec![dropped.clone()], None), round % 4).await;
        // A store may still be busy with it. The next commit settles which of them is the one of that version.
        let mut next = writer.next(vec![appended("settled", round)]);
        next.events = vec![event(&writer.id, events)];
        match backends.commit(vec![next.clone()], None).await {
            Ok(()) => writer.fold(&[next])?,
            Err(error) if error.kind() == BackendErrorKind::Conflict => writer.fold(&[dropped])?,
            Err(error) => {
                return Err(Finding::Violated(format!(
                    "a commit after a dropped one failed: {error}"
                )));
            }
        }
        writer.verify("after a dropped commit").await?;
        if let Some(state) = &writer.state {
            has_events(&backends, state).await?;
        }
    }
    let (other, abandoned) = (id("abandoned"), vec![created(&id("abandoned"))]);
    drop_after(backends.commit(vec![commit(&other, 1, abandoned)], None), 1).await;
    let state = backends
        .context()
        .load(&other)
        .await
        .must("loading after a dropped creation")?;
    ensure!(
        state.is_none_or(|state| state.version == 1),
        "a dropped creation left something that is no creation"
    );
    Ok(())
}

async fn has_events(backends: &Backends, state: &TreeState) -> Outcome {
    // A telemetry store of its own gets its events from what the state owes.
    let (Some(telemetry), true) = (backends.telemetry(), backends.sections().events) else {
        return Ok(());
    };
    let events = telemetry
        .events(&state.root, 0, usize::MAX)
        .await
        .must("reading events")?;
    let found: Vec<_> = events.iter().map(|event| event.seq).collect();
    let expected: Vec<_> = (0..state.next_event).collect();
    ensure!(
        found == expected,
        "after a dropped commit there are the events {found:?} instead of {expected:?}"
    );
    Ok(())
}

/// Owners one after the other, each of whom several want to be.
pub async fn one_owner(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "claimed").await?;
    for fence in 1..6 {
        let template = writer.next(Vec::new());
        let make = |number: u64| Commit {
            changes: vec![super::fixture::owned(&format!("engine-{number}"), fence)],
            ..template.clone()
        };
        let winner = race(factory, &backends, make).await?;
        writer.fold(&[make(winner)])?;
        writer
            .verify(&format!("after engine {winner} claimed the tree"))
            .await?;
    }
    Ok(())
}

/// Polls a future at most `polls` times, then drops it.
async fn drop_after(future: impl Future<Output = Result<(), crate::BackendError>>, polls: u64) {
    let mut future: Pin<&mut _> = pin!(future);
    let mut left = polls;
    futures::future::poll_fn(|context| {
        if left == 0 || future.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        left -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
