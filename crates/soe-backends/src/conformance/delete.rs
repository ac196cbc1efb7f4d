//! Checks of deleting executions with all that belongs to them.

use std::sync::Arc;

use super::fixture::{Must, Writer, appended, child_of, created, document, event, id, registry, same_state};
use super::{Factory, Finding, Outcome, ensure};
use crate::{Backends, Definitions, ExecutionId, ListQuery, Turn, Value};

/// An execution that has something in each store.
pub(super) async fn laden<'a>(backends: &'a Backends, name: &str, main: &str) -> Result<Writer<'a>, Finding> {
    let mut writer = Writer::new(backends, name);
    let main = id(main);
    let creation = if writer.id == main {
        created(&main)
    } else {
        child_of(&main, &main)
    };
    let mut first = writer.next(vec![creation, appended("name", name)]);
    first.registry = Some(Arc::new(document(1)));
    first.events = vec![event(0), event(1)];
    if writer.id == main {
        first.definitions = Some(Box::new(Definitions {
            identities: [("helper".into(), name.into())].into(),
            context_schema: [("name".into(), Value::from(name))].into(),
        }));
        if let Some(store) = backends.conversations() {
            let turn = Turn {
                role: "user".into(),
                tool_name: None,
                content: name.into(),
                key: Some("1.0".into()),
            };
            store.append_turns(&main, &[turn]).await.must("appending a turn")?;
        }
    }
    writer.store(vec![first]).await?;
    let mut second = writer.next(vec![appended("name", "again")]);
    second.events = vec![event(2)];
    writer.store(vec![second]).await?;
    Ok(writer)
}

async fn delete(backends: &Backends, writer: &Writer<'_>) -> Outcome {
    let Some(state) = &writer.state else { return Ok(()) };
    ensure!(
        backends.delete(state).await.must("deleting")?,
        "deleting an execution says that there was none"
    );
    ensure!(
        !backends.delete(state).await.must("deleting again")?,
        "deleting again says that there was one"
    );
    let loaded = backends.context().load(&writer.id).await.must("loading")?;
    same_state(&writer.id, loaded.as_ref(), None, "after deleting")?;
    let page = backends.context().list(&ListQuery::default()).await.must("listing")?;
    ensure!(
        page.executions.iter().all(|other| other.id != writer.id),
        "a deleted execution is listed"
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

/// All of an execution.
pub async fn everything(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let gone = laden(&backends, "tree", "tree").await?;
    let kept = laden(&backends, "tree-2", "tree-2").await?;
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
    ensure!(shared.is_some(), "a registry that another execution uses is gone");
    Ok(())
}

/// A child, then its root.
pub async fn children(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let root = laden(&backends, "root", "root").await?;
    let child = laden(&backends, "root.1", "root").await?;
    let other = laden(&backends, "root.2", "root").await?;
    delete(&backends, &child).await?;
    stored(&backends, &child.id, [0; 4], "after deleting").await?;
    stored(&backends, &root.id, [3, 1, 1, 1], "after a child was deleted").await?;
    root.verify("after a child was deleted").await?;
    other.verify("after a sibling was deleted").await?;
    delete(&backends, &root).await?;
    stored(&backends, &root.id, [0; 4], "after deleting").await?;
    other.verify("after its root was deleted").await
}

/// The same id once more.
pub async fn again(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    for _ in 0..3 {
        let writer = laden(&backends, "phoenix", "phoenix").await?;
        writer.verify("created again").await?;
        stored(&backends, &writer.id, [3, 1, 1, 1], "created again").await?;
        delete(&backends, &writer).await?;
    }
    Ok(())
}
