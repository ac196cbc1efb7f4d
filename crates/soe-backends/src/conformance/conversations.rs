//! Checks of [`ConversationHistoryBackend`].

use std::collections::HashSet;
use std::sync::Arc;

use super::fixture::{Must, Writer, appended, id, of, started};
use super::{Factory, Finding, Outcome, Task, ensure};
use crate::{Commit, ConversationHistoryBackend, ExecutionId, Turn};

type Store = Arc<dyn ConversationHistoryBackend>;

async fn fresh(factory: &dyn Factory) -> Result<Store, Finding> {
    let backends = factory.fresh().await;
    backends
        .conversations()
        .cloned()
        .ok_or(Finding::Skipped("there is no store of conversation histories"))
}

pub(super) fn turn(content: &str, key: Option<&str>) -> Turn {
    let role = ["user", "assistant", "tool", "system"][content.len() % 4];
    Turn {
        role: role.into(),
        tool_name: (role == "tool").then(|| "search".into()),
        content: content.into(),
        key: key.map(Arc::from),
    }
}

async fn holds(store: &Store, tree: &ExecutionId, expected: &[Turn], when: &str) -> Outcome {
    let found = store.turns(tree).await.must("reading turns")?;
    ensure!(
        found == expected,
        "{when} the history is {found:?} instead of {expected:?}"
    );
    Ok(())
}

/// Order and content.
pub async fn order(factory: &dyn Factory) -> Outcome {
    let store = fresh(factory).await?;
    let tree = id("tree");
    holds(&store, &tree, &[], "before anything was stored").await?;
    let texts = ["", "plain", "two\nlines", "ü\u{0}\u{1b}🦀", "{\"json\": true}"];
    let turns: Vec<_> = texts.iter().map(|text| turn(text, None)).collect();
    store.append_turns(&tree, &turns[..2]).await.must("appending")?;
    store.append_turns(&tree, &[]).await.must("appending nothing")?;
    store.append_turns(&tree, &turns[2..]).await.must("appending")?;
    holds(&store, &tree, &turns, "after two appends").await?;
    holds(&store, &id("nobody"), &[], "of a tree that has none").await
}

/// Keys.
pub async fn keys(factory: &dyn Factory) -> Outcome {
    let store = fresh(factory).await?;
    let tree = id("tree");
    let (first, second, plain) = (
        turn("first", Some("run-1.0")),
        turn("second", Some("run-1.1")),
        turn("plain", None),
    );
    store
        .append_turns(&tree, &[first.clone(), plain.clone(), first.clone()])
        .await
        .must("appending")?;
    store
        .append_turns(&tree, &[turn("other text", Some("run-1.0")), second.clone()])
        .await
        .must("appending again")?;
    store
        .append_turns(&tree, &[plain.clone(), first.clone(), second.clone()])
        .await
        .must("appending again")?;
    holds(
        &store,
        &tree,
        &[first.clone(), plain.clone(), second, plain],
        "after appending again",
    )
    .await?;
    let other = id("tree-2");
    store
        .append_turns(&other, std::slice::from_ref(&first))
        .await
        .must("appending to another tree")?;
    holds(&store, &other, &[first], "with a key that another tree has").await
}

/// Replacing.
pub async fn replaced(factory: &dyn Factory) -> Outcome {
    let store = fresh(factory).await?;
    let tree = id("tree");
    let (old, new) = (turn("old", Some("a")), turn("new", Some("b")));
    store
        .append_turns(&tree, std::slice::from_ref(&old))
        .await
        .must("appending")?;
    store
        .replace_turns(&tree, std::slice::from_ref(&new))
        .await
        .must("replacing")?;
    holds(&store, &tree, std::slice::from_ref(&new), "after replacing").await?;
    store
        .append_turns(&tree, &[old.clone(), new.clone()])
        .await
        .must("appending")?;
    holds(&store, &tree, &[new, old], "after appending to a replaced history").await?;
    store.replace_turns(&tree, &[]).await.must("replacing by nothing")?;
    holds(&store, &tree, &[], "after replacing by nothing").await
}

/// Deleting.
pub async fn deleted(factory: &dyn Factory) -> Outcome {
    let store = fresh(factory).await?;
    let (tree, other) = (id("tree"), id("tree.2"));
    let turns = [turn("kept", Some("a"))];
    store.append_turns(&tree, &turns).await.must("appending")?;
    store.append_turns(&other, &turns).await.must("appending")?;
    for _ in 0..2 {
        store.delete_turns(&tree).await.must("deleting (again)")?;
        holds(&store, &tree, &[], "after deleting").await?;
    }
    holds(&store, &other, &turns, "of another tree").await?;
    store
        .append_turns(&tree, &turns)
        .await
        .must("appending after deleting")?;
    holds(&store, &tree, &turns, "after appending to a deleted history").await
}

/// Several writers of one history.
pub async fn concurrent(factory: &dyn Factory) -> Outcome {
    let store = fresh(factory).await?;
    let tree = id("tree");
    let write = |writer: usize| {
        let (store, tree) = (store.clone(), tree.clone());
        Box::pin(async move {
            for number in 0..10 {
                let own = turn(&format!("{number}"), Some(&format!("{writer}/{number}")));
                let shared = turn("shared", Some(&format!("shared/{number}")));
                // A failed append is found below: its turns are missing.
                let _ = store.append_turns(&tree, &[own, shared]).await;
            }
        }) as Task
    };
    factory.concurrently((0..8).map(write).collect()).await;
    let found = store.turns(&tree).await.must("reading turns")?;
    let keys: Vec<_> = found.iter().filter_map(|turn| turn.key.as_deref()).collect();
    let distinct: HashSet<_> = keys.iter().collect();
    ensure!(
        distinct.len() == keys.len(),
        "{} turns are doubled",
        keys.len() - distinct.len()
    );
    ensure!(keys.len() == 90, "{} of 90 turns are there", keys.len());
    for writer in 0..8 {
        let prefix = format!("{writer}/");
        let own: Vec<_> = keys.iter().filter_map(|key| key.strip_prefix(&prefix)).collect();
        ensure!(own.is_sorted(), "the turns of one writer are in the order {own:?}");
    }
    Ok(())
}

/// Turns that come with commits.
pub async fn committed(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let Some(store) = backends.conversations().cloned() else {
        return Err(Finding::Skipped("there is no store of conversation histories"));
    };
    if !backends.sections().turns {
        return Err(Finding::Skipped("commits don't take turns here"));
    }
    let mut root = Writer::create(&backends, "root").await?;
    let tree = root.id.clone();
    let turns: Vec<Turn> = (0..6)
        .map(|n| turn(&format!("text {n}"), Some(&format!("root:1/{n}"))))
        .collect();
    let with = |root: &Writer<'_>, turns: &[Turn]| Commit {
        turns: turns.to_vec(),
        ..root.next(Vec::new())
    };
    let first = with(&root, &turns[..2]);
    let second = Commit {
        version: first.version + 1,
        ..with(&root, &turns[1..3])
    };
    root.store(vec![first, second]).await?;
    holds(&store, &tree, &turns[..3], "after two commits").await?;
    let of_child = Commit {
        turns: turns[3..5].to_vec(),
        ..root.next(vec![started(&tree, 1), of(1, appended("a", 1_i64))])
    };
    root.store(vec![of_child]).await?;
    holds(&store, &tree, &turns[..5], "after a commit about a child").await?;
    let child = tree.child(&tree, 1, 0, 1);
    holds(&store, &child, &[], "under the child's own id").await?;
    let last = with(&root, &turns);
    root.store(vec![last]).await?;
    holds(&store, &tree, &turns, "after a commit that repeats turns").await?;
    root.verify("with turns").await
}
