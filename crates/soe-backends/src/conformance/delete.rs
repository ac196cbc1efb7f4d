//! Checks of deleting trees with all that belongs to them.

use std::sync::Arc;

use super::compare::same_state;
use super::fixture::{
    Must, Writer, appended, created, document, event, events, guard, id, of, owned, registry, started,
};
use super::{Factory, Finding, Outcome, ensure};
use crate::{Backends, Definitions, Deletion, ExecutionId, Guard, ListQuery, Owed, Turn, Value};

/// A tree that has something in each store: three events, one identity, one schema, one turn.
pub(super) async fn laden<'a>(backends: &'a Backends, name: &str) -> Result<Writer<'a>, Finding> {
    let mut writer = Writer::new(backends, name);
    let tree = writer.id.clone();
    let definitions = Arc::new(Definitions {
        identities: [("helper".into(), name.into())].into(),
        context_schema: [("name".into(), Value::from(name))].into(),
    });
    let mut genesis = super::fixture::genesis(&tree);
    genesis.definitions = definitions.clone();
    let creation = crate::Change::Created(Box::new(genesis));
    let born = [
        started(&tree, 1),
        started(&tree, 2),
        appended("name", name),
        of(2, appended("name", name)),
    ];
    let mut first = writer.next([creation].into_iter().chain(born).collect());
    first.registries = vec![Arc::new(document(1))];
    first.events = events(&tree, 0..2);
    let turn = Turn {
        role: "user".into(),
        tool_name: None,
        content: name.into(),
        key: Some("1.0".into()),
    };
    let mut owed = Owed {
        definitions: true,
        turns: vec![turn.clone()],
        events: events(&tree, 0..3),
    };
    (first.definitions, first.turns) = (Some(definitions), vec![turn]);
    let sections = backends.sections();
    writer.store(vec![first]).await?;
    let mut second = writer.next(vec![of(1, appended("name", "again"))]);
    second.events = vec![event(&tree, 2)];
    writer.store(vec![second]).await?;
    // Stores of their own get what is theirs as an engine gives it.
    owed.definitions = !sections.definitions;
    if sections.turns {
        owed.turns.clear();
    }
    if sections.events {
        owed.events.clear();
    }
    if let Some(state) = &writer.state {
        backends.pay(state, &owed).await.must("paying")?;
    }
    Ok(writer)
}

async fn delete(backends: &Backends, writer: &Writer<'_>) -> Outcome {
    let Some(state) = &writer.state else { return Ok(()) };
    writer.delete().await?;
    let again = backends.delete(&writer.id, guard(state)).await.must("deleting again")?;
    ensure!(again == Deletion::NoSuchTree, "deleting again gives {again:?}");
    let loaded = backends.context().load(&writer.id).await.must("loading")?;
    same_state(&writer.id, loaded.as_deref(), None, "after deleting")?;
    let page = backends.context().list(&ListQuery::default()).await.must("listing")?;
    ensure!(
        page.executions.iter().all(|other| other.id != writer.id),
        "a deleted tree is listed"
    );
    Ok(())
}

/// The numbers of events, identities, schemas and turns that are stored by an id; as expected where there is no store.
async fn stored(backends: &Backends, id: &ExecutionId, expected: [usize; 4], when: &str) -> Outcome {
    let mut found = expected;
    if let Some(store) = backends.telemetry() {
        found[0] = store.events(id, 0, 100).await.must("reading events")?.len();
    }
    if let Some(store) = backends.identities() {
        found[1] = store.identities(id).await.must("reading identities")?.len();
    }
    if let Some(store) = backends.schemas() {
        found[2] = store.schemas(id).await.must("reading schemas")?.len();
    }
    if let Some(store) = backends.conversations() {
        found[3] = store.turns(id).await.must("reading turns")?.len();
    }
    let what = "events, identities, schemas, turns";
    ensure!(
        found == expected,
        "{when}, {id} has {found:?} {what} instead of {expected:?}"
    );
    Ok(())
}

/// All of a tree.
pub async fn everything(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let gone = laden(&backends, "tree").await?;
    let kept = laden(&backends, "tree-2").await?;
    stored(&backends, &gone.id, [3, 1, 1, 1], "before deleting").await?;
    delete(&backends, &gone).await?;
    stored(&backends, &gone.id, [0; 4], "after deleting").await?;
    kept.verify("after another was deleted").await?;
    stored(&backends, &kept.id, [3, 1, 1, 1], "after another was deleted").await?;
    let shared = backends
        .workflows()
        .registry(&registry(1))
        .await
        .must("reading a registry")?;
    ensure!(shared.is_some(), "a registry that another tree uses is gone");
    Ok(())
}

/// A tree that has changed since its state was read.
pub async fn guarded(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = laden(&backends, "guarded").await?;
    writer.commit(vec![owned("engine", 4)]).await?;
    let Some(state) = writer.state.clone() else {
        return Ok(());
    };
    let Guard { version, fence } = guard(&state);
    for (version, fence) in [
        (version - 1, fence),
        (version + 1, fence),
        (version, 0),
        (version, 3),
        (version, 5),
        (0, 0),
    ] {
        let deletion = backends
            .delete(&writer.id, Guard { version, fence })
            .await
            .must("deleting")?;
        ensure!(
            deletion == Deletion::Changed,
            "a tree at version {} under fence 4 is deleted as one at version {version} under fence {fence}: {deletion:?}",
            state.version
        );
        writer.verify("after it couldn't be deleted").await?;
        stored(&backends, &writer.id, [3, 1, 1, 1], "after it couldn't be deleted").await?;
    }
    delete(&backends, &writer).await
}

/// What a process left that ended in the middle of deleting.
pub async fn gone_on_with(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let writer = laden(&backends, "halved").await?;
    let Some(state) = &writer.state else { return Ok(()) };
    let deletion = backends
        .context()
        .delete(&writer.id, guard(state))
        .await
        .must("deleting the state")?;
    ensure!(deletion == Deletion::Deleted, "deleting the state gives {deletion:?}");
    let loaded = backends.context().load(&writer.id).await.must("loading")?;
    same_state(&writer.id, loaded.as_deref(), None, "after deleting the state")?;
    let deletion = backends
        .delete(&writer.id, guard(state))
        .await
        .must("deleting the rest")?;
    ensure!(deletion == Deletion::NoSuchTree, "deleting the rest gives {deletion:?}");
    stored(&backends, &writer.id, [0; 4], "after deleting the rest").await
}

/// The same id once more.
pub async fn again(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    for _ in 0..3 {
        let writer = laden(&backends, "phoenix").await?;
        writer.verify("created again").await?;
        stored(&backends, &writer.id, [3, 1, 1, 1], "created again").await?;
        delete(&backends, &writer).await?;
    }
    let mut bare = Writer::new(&backends, "phoenix");
    bare.commit(vec![created(&id("phoenix"))]).await?;
    bare.verify("created again with nothing").await?;
    stored(&backends, &bare.id, [0; 4], "created again with nothing").await
}
