//! Checks of what survives closing and opening a store. Skipped for one that forgets.

use super::compare::same_state;
use super::delete::laden;
use super::fixture::{
    Must, Writer, appended, broadcast, dispatched, document, event, events, finished, frame, must_conflict, of,
    snapshot, stack,
};
use super::{Factory, Finding, Outcome, ensure};
use crate::{Backends, ListQuery, TreeState, Turn};

const FORGETS: Finding = Finding::Skipped("the factory can't re-open a store");

async fn reopened(factory: &dyn Factory, backends: Backends) -> Result<Backends, Finding> {
    factory.reopen(backends).await.ok_or(FORGETS)
}

async fn prepare(backends: &Backends) -> Result<TreeState, Finding> {
    let mut writer = laden(backends, "durable").await?;
    let first = vec![
        broadcast(&["GO"]),
        appended("a", 0.1),
        dispatched(1, 1),
        dispatched(2, 1),
        snapshot(1),
    ];
    writer.commit(first).await?;
    let second = vec![
        appended("a", "ü\u{0}"),
        of(1, appended("a", "in a child")),
        stack(vec![frame(1)]),
        finished(1),
    ];
    writer.commit(second).await?;
    let mut last = writer.next(vec![dispatched(3, 3), snapshot(3)]);
    last.events = vec![event(&writer.id, 3)];
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
    let id = &expected.root;
    let loaded = backends.context().load(id).await.must("loading")?;
    same_state(id, loaded.as_deref(), Some(&expected), "after re-opening")?;
    let page = backends.context().list(&ListQuery::default()).await.must("listing")?;
    ensure!(
        page.executions.first() == expected.summary().as_ref(),
        "the list is {page:?}"
    );
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
        let found = store.events(id, 0, 100).await.must("reading events")?;
        ensure!(found == events(id, 0..4), "the events are {found:?}");
    }
    Ok(())
}

/// Writing goes on.
pub async fn goes_on(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let state = prepare(&backends).await?;
    let backends = reopened(factory, backends).await?;
    let mut writer = Writer::new(&backends, state.root.as_str());
    writer.state = Some(state);
    let tree = writer.id.clone();
    let mut stale = writer.next(Vec::new());
    stale.version -= 1;
    must_conflict(
        backends.commit(vec![stale], None).await,
        &tree,
        "a commit from before the last one",
    )?;
    let mut next = writer.next(vec![finished(2), of(1, appended("a", 2_i64))]);
    next.events = vec![event(&tree, 4)];
    writer.store(vec![next]).await?;
    writer.verify("after a commit to a re-opened store").await?;
    if let Some(store) = backends.telemetry() {
        store
            .append_events(&tree, &events(&tree, 3..5))
            .await
            .must("appending events again")?;
        let events = store.events(&tree, 0, 100).await.must("reading events")?;
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
            .append_turns(&tree, &[turn])
            .await
            .must("appending a turn again")?;
        ensure!(
            store.turns(&tree).await.must("reading turns")?.len() == 1,
            "a key was forgotten"
        );
    }
    Ok(())
}
