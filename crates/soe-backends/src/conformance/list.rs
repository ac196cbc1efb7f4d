//! Checks of lists of trees.

use super::fixture::{Must, at, commit, created, guard, id, of, started, time};
use super::{Factory, Finding, Outcome, ensure};
use crate::{
    Backends, Change, Commit, ExecutionChange, ExecutionSummary, ListCursor, ListPage, ListQuery, Owed, Status,
};

/// A tree created at a given time, with two children.
async fn create(backends: &Backends, name: &str, seconds: u64) -> Outcome {
    let tree = id(name);
    let mut commit = commit(&tree, 1, vec![created(&tree), started(&tree, 1), started(&tree, 2)]);
    commit.at = time(seconds);
    store(backends, commit).await
}

async fn store(backends: &Backends, commit: Commit) -> Outcome {
    backends
        .commit(vec![commit], None)
        .await
        .must("storing a tree to be listed")
}

fn status(status: Status) -> Change {
    let change = ExecutionChange::Status {
        status,
        at: time(2),
        failure: None,
    };
    at(0, change)
}

/// Another status of the root, and of a child the opposite.
async fn set_status(backends: &Backends, name: &str, now: Status) -> Outcome {
    let of_child = match now {
        Status::Running => Status::Failed,
        _ => Status::Running,
    };
    let mut commit = commit(&id(name), 2, vec![status(now), of(1, status(of_child))]);
    commit.at = time(10_000);
    store(backends, commit).await
}

/// A tree that fails in its first commit, and owes something.
async fn create_failed(backends: &Backends, name: &str) -> Outcome {
    let owed = Owed {
        definitions: true,
        ..Owed::default()
    };
    let changes = vec![created(&id(name)), status(Status::Failed), Change::Owed(Box::new(owed))];
    let mut commit = commit(&id(name), 1, changes);
    commit.at = time(3);
    store(backends, commit).await
}

async fn page(backends: &Backends, query: &ListQuery) -> Result<ListPage, Finding> {
    backends.context().list(query).await.must("listing")
}

/// All pages of `query`, each of `query.limit`.
async fn all_pages(backends: &Backends, mut query: ListQuery) -> Result<Vec<String>, Finding> {
    let mut all = Vec::new();
    loop {
        let page = page(backends, &query).await?;
        ensure!(
            page.executions.len() <= query.limit,
            "a page of at most {} has {}",
            query.limit,
            page.executions.len()
        );
        let full = page.next.is_none() || page.executions.len() == query.limit;
        ensure!(
            full,
            "a page that isn't the last has {} instead of {}",
            page.executions.len(),
            query.limit
        );
        all.extend(names(&page.executions));
        ensure!(all.len() <= 1000, "the pages don't end");
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(all),
        }
    }
}

fn names(executions: &[ExecutionSummary]) -> Vec<String> {
    executions.iter().map(|execution| execution.id.to_string()).collect()
}

/// The order.
pub async fn order(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    for (name, seconds) in [
        ("middle", 5),
        ("first", 1),
        ("same-a", 3),
        ("same-c", 3),
        ("same-b", 3),
        ("last", 9),
    ] {
        create(&backends, name, seconds).await?;
    }
    set_status(&backends, "first", Status::Running).await?;
    let found = names(&page(&backends, &ListQuery::default()).await?.executions);
    let expected = ["last", "middle", "same-c", "same-b", "same-a", "first"];
    ensure!(found == expected, "the order is {found:?} instead of {expected:?}");
    Ok(())
}

/// Pages of every size.
async fn pages_of_every_size(backends: &Backends, count: usize) -> Outcome {
    let all = names(
        &page(
            backends,
            &ListQuery {
                limit: count,
                ..ListQuery::default()
            },
        )
        .await?
        .executions,
    );
    ensure!(all.len() == count, "{} of {count} trees are listed", all.len());
    for limit in [1, 2, 3, count - 1, count, count + 1, usize::MAX] {
        let found = all_pages(
            backends,
            ListQuery {
                limit,
                ..ListQuery::default()
            },
        )
        .await?;
        ensure!(found == all, "pages of {limit} give {found:?} instead of {all:?}");
    }
    Ok(())
}

/// Pages.
pub async fn pages(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    for number in 0..12 {
        // Three at a time are created at the same time.
        let name = format!("tree-{number:02}");
        create(&backends, &name, number / 3).await?;
    }
    pages_of_every_size(&backends, 12).await?;
    let after = ListCursor {
        created_at: time(0),
        id: id("a"),
    };
    let past = page(
        &backends,
        &ListQuery {
            after: Some(after),
            ..ListQuery::default()
        },
    )
    .await?;
    ensure!(
        past.executions.is_empty() && past.next.is_none(),
        "there is something after the last"
    );
    Ok(())
}

/// Filters.
pub async fn filters(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    for number in 0..8_u64 {
        let tree = id(&format!("tree-{number}"));
        let mut genesis = super::fixture::genesis(&tree);
        genesis.root.workflow = ["one", "one ü", "two"][number as usize % 3].into();
        let creation = Change::Created(Box::new(genesis));
        let mut commit = commit(&tree, 1, vec![creation, started(&tree, 1), started(&tree, 2)]);
        commit.at = time(number * 10);
        store(&backends, commit).await?;
    }
    for (name, status) in [
        ("tree-1", Status::Running),
        ("tree-2", Status::Failed),
        ("tree-4", Status::Running),
        ("tree-5", Status::Rested),
        ("tree-7", Status::Running),
    ] {
        set_status(&backends, name, status).await?;
    }
    let all = ListQuery {
        limit: 2,
        ..ListQuery::default()
    };
    let of_status = |status| ListQuery {
        status: Some(status),
        ..all.clone()
    };
    let of_workflow = |workflow: &str| ListQuery {
        workflow: Some(workflow.into()),
        ..all.clone()
    };
    let since = |micros: u64| ListQuery {
        since: Some(crate::Timestamp::from_micros(micros)),
        ..all.clone()
    };
    let unsettled = ListQuery {
        unsettled: true,
        ..all.clone()
    };
    let both = ListQuery {
        since: Some(time(20)),
        ..of_status(Status::Running)
    };
    let fourth = time(50).as_micros();
    let cases: [(ListQuery, &[u64]); 13] = [
        (all.clone(), &[7, 6, 5, 4, 3, 2, 1, 0]),
        (unsettled.clone(), &[7, 4, 1]),
        (of_status(Status::Running), &[7, 4, 1]),
        (of_status(Status::Failed), &[2]),
        (of_status(Status::Prepared), &[6, 3, 0]),
        (of_status(Status::Cancelled), &[]),
        (of_workflow("one"), &[6, 3, 0]),
        (of_workflow("one ü"), &[7, 4, 1]),
        (of_workflow("part"), &[]),
        (since(fourth), &[7, 6, 5]),
        (since(fourth + 1), &[7, 6]),
        (both.clone(), &[7, 4]),
        (
            ListQuery {
                workflow: Some("two".into()),
                unsettled: true,
                ..both
            },
            &[],
        ),
    ];
    for (query, expected) in cases {
        let expected: Vec<_> = expected.iter().map(|number| format!("tree-{number}")).collect();
        let found = all_pages(&backends, query.clone()).await?;
        ensure!(found == expected, "{query:?} gives {found:?} instead of {expected:?}");
    }
    Ok(())
}

/// Changes between two pages.
pub async fn stable(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    for number in 0..6 {
        let name = format!("old-{number}");
        create(&backends, &name, number).await?;
    }
    let first = page(
        &backends,
        &ListQuery {
            limit: 3,
            ..ListQuery::default()
        },
    )
    .await?;
    ensure!(
        names(&first.executions) == ["old-5", "old-4", "old-3"],
        "the first page is {:?}",
        names(&first.executions)
    );
    create(&backends, "newer", 99).await?;
    // The place of a cursor stays also when the tree that it names is gone.
    let state = backends.context().load(&id("old-3")).await.must("loading")?;
    if let Some(state) = state {
        backends
            .context()
            .delete(&id("old-3"), guard(&state))
            .await
            .must("deleting")?;
    }
    set_status(&backends, "old-1", Status::Running).await?;
    let rest = page(
        &backends,
        &ListQuery {
            limit: 3,
            after: first.next,
            ..ListQuery::default()
        },
    )
    .await?;
    let found = names(&rest.executions);
    ensure!(found == ["old-2", "old-1", "old-0"], "the second page is {found:?}");
    Ok(())
}

/// Summaries.
pub async fn summaries(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    create(&backends, "prepared", 1).await?;
    create(&backends, "running", 2).await?;
    set_status(&backends, "running", Status::Running).await?;
    create_failed(&backends, "failed").await?;
    let unsettled = ListQuery {
        unsettled: true,
        ..ListQuery::default()
    };
    let found = names(&page(&backends, &unsettled).await?.executions);
    ensure!(
        found == ["failed", "running"],
        "{found:?} are unsettled: not the one that runs, and the one that owes something since its first commit"
    );
    let page = page(&backends, &ListQuery::default()).await?;
    ensure!(
        page.damaged.is_empty(),
        "trees are said to be damaged: {:?}",
        page.damaged
    );
    for summary in page.executions {
        let state = backends.context().load(&summary.id).await.must("loading")?;
        let expected = state.and_then(|state| state.summary());
        ensure!(
            expected.as_ref() == Some(&summary),
            "the list says {summary:?}, the state {expected:?}"
        );
    }
    Ok(())
}
