//! Lists of trees, newest first, out of indexes.

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, Row, params_from_iter};
use soe_backends::{Damaged, ExecutionId, ExecutionSummary, ListCursor, ListPage, ListQuery, Status, Timestamp};

use crate::commits::unsigned;
use crate::error::Failure;
use crate::schema::integer;

const STATUSES: [Status; 6] = [
    Status::Prepared,
    Status::Running,
    Status::Rested,
    Status::Failed,
    Status::Suspended,
    Status::Cancelled,
];

const COLUMNS: &str = "id, workflow, status, version, created_at, updated_at, children, owes";

const ORDER: &str = "ORDER BY created_at DESC, id DESC LIMIT ?";

/// The page that `query` asks for. A row that can't be read takes its place on the page: it is named, not counted among the
/// trees.
pub(crate) fn page(db: &Connection, query: &ListQuery) -> Result<ListPage, Failure> {
    let limit = match query.limit {
        0 => ListPage::DEFAULT_LIMIT,
        limit => limit,
    };
    // One more tells whether there is another page.
    let (sql, parameters) = select(query, limit.saturating_add(1));
    let mut select = db.prepare_cached(&sql)?;
    let mut rows = select.query(params_from_iter(parameters))?;
    let mut page = ListPage::default();
    if query.after.is_none() {
        page.damaged = damaged(db)?;
    }
    while let Some(row) = rows.next()? {
        match summary(row) {
            Ok(summary) => page.executions.push(summary),
            Err(problem) => page.damaged.push(Damaged {
                tree: row.get(0).unwrap_or_else(|_| "a tree without a name".to_owned()),
                problem,
            }),
        }
    }
    let more = page.executions.len() > limit;
    page.executions.truncate(limit);
    page.next = page.executions.last().filter(|_| more).map(|last| ListCursor {
        created_at: last.created_at,
        id: last.id.clone(),
    });
    Ok(page)
}

/// Trees that could not be converted.
fn damaged(db: &Connection) -> rusqlite::Result<Vec<Damaged>> {
    let mut select = db.prepare_cached("SELECT id, problem FROM damaged ORDER BY id")?;
    let read = |row: &Row<'_>| {
        Ok(Damaged {
            tree: row.get(0)?,
            problem: row.get(1)?,
        })
    };
    select.query_map([], read)?.collect()
}

fn select(query: &ListQuery, limit: usize) -> (String, Vec<Sql>) {
    let (mut terms, mut parameters) = ("workflow IS NOT NULL".to_owned(), Vec::new());
    let mut term = |sql: &str, values: Vec<Sql>| {
        terms.push_str(sql);
        parameters.extend(values);
    };
    if let Some(status) = query.status {
        term(" AND status = ?", vec![status.as_str().to_owned().into()]);
    }
    if let Some(workflow) = &query.workflow {
        term(" AND workflow = ?", vec![workflow.as_ref().to_owned().into()]);
    }
    if let Some(since) = query.since {
        term(" AND created_at >= ?", vec![integer(since.as_micros()).into()]);
    }
    if let Some(after) = &query.after {
        let place = vec![
            integer(after.created_at.as_micros()).into(),
            after.id.to_string().into(),
        ];
        term(" AND (created_at, id) < (?, ?)", place);
    }
    let limit = Sql::from(i64::try_from(limit).unwrap_or(i64::MAX));
    let from = format!("SELECT {COLUMNS} FROM trees WHERE {terms}");
    if query.unsettled && query.status.is_none() {
        // Each by its own index.
        parameters.push(limit.clone());
        let both = [parameters.clone(), parameters, vec![limit]].concat();
        let sql = format!(
            "SELECT * FROM ({from} AND status = 'running' {ORDER})
             UNION ALL SELECT * FROM ({from} AND owes = 1 AND status <> 'running' {ORDER})
             {ORDER}"
        );
        return (sql, both);
    }
    let unsettled = match query.unsettled {
        true => " AND (status = 'running' OR owes = 1)",
        false => "",
    };
    parameters.push(limit);
    (format!("{from}{unsettled} {ORDER}"), parameters)
}

/// What a row says, or what is wrong with it.
fn summary(row: &Row<'_>) -> Result<ExecutionSummary, String> {
    let unreadable = |error: rusqlite::Error| format!("its row can't be read: {error}");
    let id: String = row.get(0).map_err(unreadable)?;
    let id = ExecutionId::new(id).map_err(|error| error.to_string())?;
    let status: String = row.get(2).map_err(unreadable)?;
    let status = STATUSES.into_iter().find(|known| known.as_str() == status);
    let status = status.ok_or("its row has no status that there is")?;
    let number = |column| unsigned(row, column).map_err(unreadable);
    let owes: bool = row.get(7).map_err(unreadable)?;
    Ok(ExecutionSummary {
        main_execution_id: id.clone(),
        id,
        workflow: row.get(1).map_err(unreadable)?,
        status,
        version: number(3)?,
        created_at: Timestamp::from_micros(number(4)?),
        updated_at: Timestamp::from_micros(number(5)?),
        children: number(6)?,
        unsettled: status == Status::Running || owes,
    })
}
