//! Checks of what survives closing and opening a store. Skipped for one that forgets.

use super::delete::laden;
use super::fixture::{
    Must, Writer, appended, broadcast, dispatched, document, event, frame, must_conflict, same_state,
};
use super::{Factory, Finding, Outcome, ensure};
use crate::{Backends, Change, ExecutionState, ListQuery, Turn};

const FORGETS: Finding = Finding::Skipped("the factory can't re-open a store");

async fn reopened(factory: &dyn Factory, backends: Backends) -> Result<Backends, Finding> {
    factory.reopen(backends).await.ok_or(FORGETS)
}

async fn prepare(backends: &Backends) -> Result<ExecutionState, Finding> {
    let mut writer = laden(backends, "durable", "durable").await?;
    writer
        .commit(vec![
            broadcast(&["GO"]),
            appended("a", 0.1),
            dispatched(1, 3),
            dispatched(2, 3),
        ])
        .await?;
    writer
        .commit(vec![
            appended("a", "ü\u{0}"),
            Change::Stack {
                kept: 0,
                frames: vec![frame(1)],
            },
            Change::Finished { run: 1 },
        ])
        .await?;
    let mut last = writer.next(vec![Change::Accepted([].into()), dispatched(3, 5)]);
    last.events = vec![event(3)];
    writer.store(vec![last]).await?;
    writer
        .state
        .ok_or_else(|| Finding::Violated("nothing was stored".to_owned()))
}

/// Everything is there.
pub async fn survives(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let expected = prepare(&backends).await?;
    let backends = reopened(factory, backends).await?;
    let id = &expected.id;
    let loaded = backends.context().load(id).await.must("loading")?;
    same_state(id, loaded.as_ref(), Some(&expected), "after re-opening")?;
    let page = backends.context().list(&ListQuery::default()).await.must("listing")?;
    ensure!(page.executions == [expected.summary()], "the list is {page:?}");
    let registry = backends
        .workflows()
        .registry(&document(1).id)
        .await
        .must("reading a registry")?;
    ensure!(
        registry.is_some_and(|registry| *registry == document(1)),
        "the registry is gone or changed"
    );
    if let Some(store) = backends.identities() {
        ensure!(
            store.identities(id).await.must("reading identities")?.len() == 1,
            "the identities are gone"
        );
    }
    if let Some(store) = backends.schemas() {
        ensure!(
            store.schemas(id).await.must("reading schemas")?.len() == 1,
            "the schemas are gone"
        );
    }
    if let Some(store) = backends.conversations() {
        ensure!(
            store.turns(id).await.must("reading turns")?.len() == 1,
            "the turns are gone"
        );
    }
    if let Some(store) = backends.telemetry() {
        let events = store.events(id, 0, 100).await.must("reading events")?;
        let all: Vec<_> = (0..4).map(event).collect();
        ensure!(events == all, "the events are {events:?}");
    }
    Ok(())
}

/// Writing goes on.
pub async fn goes_on(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let state = prepare(&backends).await?;
    let backends = reopened(factory, backends).await?;
    let mut writer = Writer::new(&backends, state.id.as_str());
    writer.state = Some(state);
    let execution = writer.id.clone();
    let mut stale = writer.next(Vec::new());
    stale.version -= 1;
    must_conflict(
        backends.commit(vec![stale]).await,
        &execution,
        "a commit from before the last one",
    )?;
    let mut next = writer.next(vec![Change::Finished { run: 2 }, appended("a", 2_i64)]);
    next.events = vec![event(4)];
    writer.store(vec![next]).await?;
    writer.verify("after a commit to a re-opened store").await?;
    if let Some(store) = backends.telemetry() {
        store
            .append_events(&execution, &[event(3), event(4)])
            .await
            .must("appending events again")?;
        let events = store.events(&execution, 0, 100).await.must("reading events")?;
        ensure!(events.len() == 5, "there are {} events instead of 5", events.len());
    }
    if let Some(store) = backends.conversations() {
        let turn = Turn {
            role: "user".into(),
            tool_name: None,
            content: "again".into(),
            key: Some("1.0".into()),
        };
        store
            .append_turns(&execution, &[turn])
            .await
            .must("appending a turn again")?;
        ensure!(
            store.turns(&execution).await.must("reading turns")?.len() == 1,
            "a key was forgotten"
        );
    }
    Ok(())
}
