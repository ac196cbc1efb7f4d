//! Checks of [`WorkflowBackend`](crate::WorkflowBackend).

use std::sync::Arc;

use super::compare::{difference, json};
use super::fixture::{Must, Writer, created, document, id, registry, started, version};
use super::{Factory, Outcome, ensure};
use crate::{Backends, RegistryDocument, Value};

async fn has(backends: &Backends, expected: &RegistryDocument) -> Outcome {
    let found = backends
        .workflows()
        .registry(&expected.id)
        .await
        .must("reading a registry")?;
    ensure!(found.is_some(), "registry {} is missing", expected.id);
    if let Some(found) = found {
        let (found, expected) = (json(&found.as_ref()), json(expected));
        ensure!(
            found == expected,
            "a registry differs: {}",
            difference(&found, &expected)
        );
    }
    Ok(())
}

/// Registries by themselves.
pub async fn registries(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let workflows = backends.workflows();
    let unknown = workflows
        .registry(&registry(9))
        .await
        .must("reading an unknown registry")?;
    ensure!(unknown.is_none(), "an unknown registry is there");
    let mut all: Vec<_> = (1..5).map(document).collect();
    let texts = Value::map([("ünï\u{0}\n", Value::from("\u{7f}🦀"))]);
    all.push(RegistryDocument {
        id: registry(5),
        workflows: texts,
    });
    all.push(RegistryDocument {
        id: registry(6),
        workflows: Value::map([("w", Value::from("x".repeat(1_000_000)))]),
    });
    for _ in 0..2 {
        for document in &all {
            workflows
                .put_registry(document)
                .await
                .must("storing a registry (again)")?;
        }
        for document in &all {
            has(&backends, document).await?;
        }
    }
    Ok(())
}

/// Registries in commits.
pub async fn committed(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    for name in ["one", "two"] {
        // The second tree brings the same registries: they are there already.
        let mut writer = Writer::new(&backends, name);
        let first = document(1);
        let mut creation = writer.next(vec![created(&writer.id)]);
        creation.registries = vec![Arc::new(first.clone())];
        writer.store(vec![creation]).await?;
        has(&backends, &first).await?;
        let second = document(2);
        let mut change = writer.next(vec![version(&second.id), started(&writer.id, 1)]);
        let third = document(3);
        change.registries = vec![Arc::new(second.clone()), Arc::new(third.clone())];
        writer.store(vec![change]).await?;
        for document in [&first, &second, &third] {
            has(&backends, document).await?;
        }
        writer.verify("with another registry").await?;
    }
    Ok(())
}

/// What a root uses now.
pub async fn current(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let workflows = backends.workflows();
    workflows.put_registry(&document(1)).await.must("storing a registry")?;
    let execution = id("anybody");
    for (number, workflow) in [
        (1, "main_workflow"),
        (1, "main_workflow"),
        (1, "other ü"),
        (8, "main_workflow"),
    ] {
        workflows
            .set_current(&execution, &registry(number), workflow)
            .await
            .must("setting what is current")?;
    }
    for _ in 0..2 {
        workflows
            .delete_current(&execution)
            .await
            .must("deleting what is current")?;
    }
    has(&backends, &document(1)).await
}
