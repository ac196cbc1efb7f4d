//! Checks of lists of executions.

use super::fixture::{Must, child_of, commit, created, id, time};
use super::{Factory, Finding, Outcome, ensure};
use crate::{Backends, Change, ExecutionSummary, ListCursor, ListPage, ListQuery, Status};

/// An execution created at a given time.
async fn create(backends: &Backends, name: &str, main: &str, seconds: u64) -> Outcome {
    let (execution, main) = (id(name), id(main));
    let creation = if execution == main {
        created(&main)
    } else {
        child_of(&main, &main)
    };
    let mut commit = commit(&execution, 1, vec![creation]);
    commit.at = time(seconds);
    backends.commit(vec![commit]).await.must("creating an execution")
}

async fn set_status(backends: &Backends, name: &str, status: Status) -> Outcome {
    let mut commit = commit(
        &id(name),
        2,
        vec![Change::Status {
            status,
            at: time(2),
            failure: None,
        }],
    );
    commit.at = time(10_000);
    backends.commit(vec![commit]).await.must("changing a status")
}

/// An execution that fails in its first commit, with something to go down to its children.
async fn create_failed(backends: &Backends, name: &str) -> Outcome {
    let failed = Change::Status {
        status: Status::Failed,
        at: time(3),
        failure: None,
    };
    let mut commit = commit(&id(name), 1, vec![created(&id(name)), failed, Change::Descending(true)]);
    commit.at = time(3);
    backends
        .commit(vec![commit])
        .await
        .must("creating an execution that has failed")
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
        create(&backends, name, name, seconds).await?;
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
    ensure!(all.len() == count, "{} of {count} executions are listed", all.len());
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
        let name = format!("execution-{number:02}");
        create(&backends, &name, &name, number / 3).await?;
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
    for number in 0..4_u64 {
        let root = format!("root-{number}");
        create(&backends, &root, &root, number * 10).await?;
        for child in 0..3 {
            create(&backends, &format!("{root}.{child}"), &root, number * 10 + child + 1).await?;
        }
        set_status(&backends, &root, Status::Running).await?;
        set_status(&backends, &format!("{root}.1"), Status::Failed).await?;
    }
    let query = |status, main: Option<&str>| ListQuery {
        status,
        main_execution_id: main.map(id),
        limit: 2,
        ..ListQuery::default()
    };
    let unsettled = ListQuery {
        unsettled: true,
        ..query(None, None)
    };
    let cases: [(ListQuery, &[&str]); 6] = [
        (unsettled, &["root-3", "root-2", "root-1", "root-0"]),
        (
            query(Some(Status::Running), None),
            &["root-3", "root-2", "root-1", "root-0"],
        ),
        (
            query(Some(Status::Failed), None),
            &["root-3.1", "root-2.1", "root-1.1", "root-0.1"],
        ),
        (
            query(None, Some("root-1")),
            &["root-1.2", "root-1.1", "root-1.0", "root-1"],
        ),
        (query(Some(Status::Prepared), Some("root-2")), &["root-2.2", "root-2.0"]),
        (query(Some(Status::Cancelled), None), &[]),
    ];
    for (query, expected) in cases {
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
        create(&backends, &name, &name, number).await?;
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
    create(&backends, "newer", "newer", 99).await?;
    // The place of a cursor stays also when the execution that it names is gone.
    backends.context().delete(&id("old-3")).await.must("deleting")?;
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
    create(&backends, "root", "root", 1).await?;
    create(&backends, "child", "root", 2).await?;
    set_status(&backends, "child", Status::Running).await?;
    create_failed(&backends, "failed").await?;
    let unsettled = ListQuery {
        unsettled: true,
        ..ListQuery::default()
    };
    let found = names(&page(&backends, &unsettled).await?.executions);
    ensure!(
        found == ["failed", "child"],
        "{found:?} are unsettled: not the one that runs, and the one that has failed in its first commit"
    );
    for summary in page(&backends, &ListQuery::default()).await?.executions {
        let state = backends.context().load(&summary.id).await.must("loading")?;
        let expected = state.map(|state| state.summary());
        ensure!(
            expected.as_ref() == Some(&summary),
            "the list says {summary:?}, the state {expected:?}"
        );
    }
    Ok(())
}
