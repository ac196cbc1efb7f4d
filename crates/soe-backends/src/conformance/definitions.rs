//! Checks of [`IdentityBackend`](crate::IdentityBackend) and [`ContextSchemaBackend`](crate::ContextSchemaBackend).

use std::sync::Arc;

use indexmap::IndexMap;

use super::compare::{difference, json};
use super::fixture::{Must, Writer, created, id};
use super::{Factory, Finding, Outcome, ensure};
use crate::{Definitions, Value};

type Identities = IndexMap<Arc<str>, Arc<str>>;
type Schemas = IndexMap<Arc<str>, Value>;

/// Texts that a format might take for something else.
const TEXTS: [&str; 12] = [
    "You are helpful.",
    "",
    "no",
    "null",
    "1e3",
    "- a\n- b",
    "a: b",
    " lead",
    "two\n\nlines\n",
    "\u{0}\u{85}",
    "ü🦀",
    "{",
];

fn prompts(names: &[&str]) -> Identities {
    let text = |i: usize| TEXTS[i % TEXTS.len()];
    names
        .iter()
        .enumerate()
        .map(|(i, name)| (Arc::from(*name), Arc::from(text(i))))
        .collect()
}

fn field_schemas(names: &[&str]) -> Schemas {
    let schema = |i: usize| {
        Value::map([
            ("type", Value::from("string")),
            ("description", Value::from(TEXTS[i % TEXTS.len()])),
            (
                "enum",
                Value::list([Value::Null, Value::from(1.0), Value::from(1_i64), Value::from("1")]),
            ),
        ])
    };
    names
        .iter()
        .enumerate()
        .map(|(i, name)| (Arc::from(*name), schema(i)))
        .collect()
}

/// Compares in order.
fn same<V: serde::Serialize>(found: &IndexMap<Arc<str>, V>, expected: &IndexMap<Arc<str>, V>, when: &str) -> Outcome {
    let (found, expected) = (json(found), json(expected));
    ensure!(found == expected, "{when}: {}", difference(&found, &expected));
    Ok(())
}

macro_rules! tree_check {
    ($(#[$doc:meta])* $check:ident, $store:ident, $put:ident, $delete:ident, $make:ident) => {
        $(#[$doc])*
        pub async fn $check(factory: &dyn Factory) -> Outcome {
            let backends = factory.fresh().await;
            let Some(store) = backends.$store() else {
                return Err(Finding::Skipped(concat!("there is no store of ", stringify!($check))));
            };
            let (tree, other) = (id("tree"), id("tree-2"));
            let first = $make(&TEXTS);
            let second = $make(&["zeta", "alpha"]);
            same(&store.$check(&tree).await.must("reading")?, &IndexMap::new(), "before anything was stored")?;
            store.$put(&tree, &first).await.must("storing")?;
            store.$put(&other, &second).await.must("storing")?;
            same(&store.$check(&tree).await.must("reading")?, &first, "after storing")?;
            store.$put(&tree, &second).await.must("replacing")?;
            same(&store.$check(&tree).await.must("reading")?, &second, "after replacing")?;
            store.$put(&tree, &IndexMap::new()).await.must("replacing by nothing")?;
            same(&store.$check(&tree).await.must("reading")?, &IndexMap::new(), "after replacing by nothing")?;
            store.$put(&tree, &first).await.must("storing")?;
            for _ in 0..2 {
                store.$delete(&tree).await.must("deleting (again)")?;
                same(&store.$check(&tree).await.must("reading")?, &IndexMap::new(), "after deleting")?;
            }
            same(&store.$check(&other).await.must("reading")?, &second, "of another tree")
        }
    };
}

tree_check!(
    /// Identities by themselves.
    identities, identities, put_identities, delete_identities, prompts
);
tree_check!(
    /// Schemas by themselves.
    schemas, schemas, put_schemas, delete_schemas, field_schemas
);

/// Identities and schemas in commits.
pub async fn committed(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let (Some(identities), Some(schemas)) = (backends.identities(), backends.schemas()) else {
        return Err(Finding::Skipped("there is no store of identities and of schemas"));
    };
    if !backends.sections().definitions {
        return Err(Finding::Skipped("commits don't take definitions here"));
    }
    let mut writer = Writer::new(&backends, "defined");
    let steps: [(&[&str], &[&str]); 4] = [
        (&["a", "b"], &["x"]),
        (&["b"], &["y", "x"]),
        (&[], &["z"]),
        (&["c"], &[]),
    ];
    for (names, fields) in steps {
        let changes = if writer.version() == 0 {
            vec![created(&writer.id)]
        } else {
            Vec::new()
        };
        let definitions = Definitions {
            identities: prompts(names),
            context_schema: field_schemas(fields),
        };
        let mut commit = writer.next(changes);
        commit.definitions = Some(Arc::new(definitions.clone()));
        writer.store(vec![commit]).await?;
        let found = identities.identities(&writer.id).await.must("reading identities")?;
        same(&found, &definitions.identities, "identities after a commit")?;
        let found = schemas.schemas(&writer.id).await.must("reading schemas")?;
        same(&found, &definitions.context_schema, "schemas after a commit")?;
    }
    writer.commit(Vec::new()).await?;
    let found = identities.identities(&writer.id).await.must("reading identities")?;
    same(
        &found,
        &prompts(&["c"]),
        "identities after a commit without definitions",
    )
}
