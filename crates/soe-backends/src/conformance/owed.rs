//! Checks of what is owed to stores of their own: it stands in the state until it is paid.

use super::conversations::turn;
use super::fixture::{Must, Writer, appended, events, id, status};
use super::{Factory, Outcome, ensure};
use crate::{Backends, Change, Definitions, ListQuery, Owed, Status, Value};

fn definitions() -> Definitions {
    Definitions {
        identities: [("zeta".into(), "one".into()), ("alpha".into(), "two".into())].into(),
        context_schema: [("a".into(), Value::from("b"))].into(),
    }
}

async fn unsettled(backends: &Backends) -> Result<usize, super::Finding> {
    let query = ListQuery {
        unsettled: true,
        ..ListQuery::default()
    };
    let page = backends.context().list(&query).await.must("listing")?;
    Ok(page.executions.len())
}

/// What is owed is stored, given, given again, and then it isn't owed any more.
pub async fn paid(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "owing").await?;
    let tree = writer.id.clone();
    ensure!(
        unsettled(&backends).await? == 0,
        "a tree that owes nothing and doesn't run is unsettled"
    );
    let owe = |definitions: bool, first: u64| {
        Change::Owed(Box::new(Owed {
            definitions,
            turns: vec![turn(&format!("text {first}"), Some(&format!("owing:1/{first}")))],
            events: events(&tree, first..first + 2),
        }))
    };
    writer
        .commit(vec![Change::Defined(definitions().into()), owe(true, 0)])
        .await?;
    writer.commit(vec![owe(false, 2), appended("a", 1_i64)]).await?;
    writer.verify("with something owed").await?;
    ensure!(
        unsettled(&backends).await? == 1,
        "a tree that owes something isn't unsettled"
    );
    let loaded = backends.context().load(&tree).await.must("loading")?;
    for _ in 0..2 {
        let Some(state) = &loaded else { break };
        backends.pay(state, &state.owed).await.must("paying (again)")?;
    }
    given(&backends, &tree).await?;
    let pay = |definitions, turns, events| Change::Paid {
        definitions,
        turns,
        events,
    };
    writer.commit(vec![pay(true, 1, 3)]).await?;
    writer.verify("with less owed").await?;
    ensure!(
        unsettled(&backends).await? == 1,
        "a tree that still owes something isn't unsettled"
    );
    writer.commit(vec![pay(false, 1, 1)]).await?;
    writer.verify("with nothing owed any more").await?;
    ensure!(unsettled(&backends).await? == 0, "a tree that has paid is unsettled");
    writer.commit(vec![status(Status::Running, 9)]).await?;
    ensure!(unsettled(&backends).await? == 1, "a tree that runs isn't unsettled");
    Ok(())
}

async fn given(backends: &Backends, tree: &crate::ExecutionId) -> Outcome {
    if let Some(store) = backends.identities() {
        let found = store.identities(tree).await.must("reading identities")?;
        ensure!(found == definitions().identities, "the identities are {found:?}");
    }
    if let Some(store) = backends.schemas() {
        let found = store.schemas(tree).await.must("reading schemas")?;
        ensure!(found == definitions().context_schema, "the schemas are {found:?}");
    }
    if let Some(store) = backends.conversations() {
        let found = store.turns(tree).await.must("reading turns")?;
        ensure!(found.len() == 2, "two turns that were given twice are {found:?}");
    }
    if let Some(store) = backends.telemetry() {
        let found = store.events(tree, 0, 100).await.must("reading events")?;
        ensure!(
            found == events(tree, 0..4),
            "four events that were given twice are {found:?}"
        );
    }
    Ok(())
}

/// What is owed, after a restart.
pub async fn survives(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "owing").await?;
    let owed = Owed {
        definitions: true,
        turns: vec![turn("text ü", Some("owing:1/0"))],
        events: events(&writer.id, 0..3),
    };
    writer.commit(vec![Change::Owed(Box::new(owed.clone()))]).await?;
    let Some(backends) = factory.reopen(backends).await else {
        return Err(super::Finding::Skipped("the factory can't re-open a store"));
    };
    let loaded = backends.context().load(&id("owing")).await.must("loading")?;
    ensure!(
        loaded.as_ref().is_some_and(|state| *state.owed == owed),
        "after re-opening, what is owed is gone or changed"
    );
    ensure!(
        unsettled(&backends).await? == 1,
        "after re-opening, a tree that owes something isn't unsettled"
    );
    Ok(())
}
