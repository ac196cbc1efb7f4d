//! Lists of executions, newest first, out of indexes.

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params_from_iter};
use soe_backends::{BackendError, ExecutionId, ExecutionSummary, ListCursor, ListPage, ListQuery, Status, Timestamp};

use crate::commits::unsigned;
use crate::error::{Failure, Place};
use crate::schema::integer;

const STATUSES: [Status; 6] = [
    Status::Prepared,
    Status::Running,
    Status::Rested,
    Status::Failed,
    Status::Suspended,
    Status::Cancelled,
];

const COLUMNS: &str = "id, main, workflow, status, version, created_at, updated_at, descending";

/// The page that `query` asks for.
pub(crate) fn page(db: &Connection, at: &Place, query: &ListQuery) -> Result<ListPage, Failure> {
    let limit = match query.limit {
        0 => ListPage::DEFAULT_LIMIT,
        limit => limit,
    };
    // One more tells whether there is another page.
    let (sql, parameters) = select(query, limit.saturating_add(1));
    let mut select = db.prepare_cached(&sql)?;
    let mut rows = select.query(params_from_iter(parameters))?;
    let mut executions = Vec::new();
    while let Some(row) = rows.next()? {
        executions.push(summary(row, at)?);
    }
    let more = executions.len() > limit;
    executions.truncate(limit);
    let next = executions.last().filter(|_| more).map(|last| ListCursor {
        created_at: last.created_at,
        id: last.id.clone(),
    });
    Ok(ListPage { executions, next })
}

fn select(query: &ListQuery, limit: usize) -> (String, Vec<Sql>) {
    let (mut terms, mut parameters) = ("main <> ''".to_owned(), Vec::new());
    if let Some(status) = query.status {
        terms += " AND status = ?";
        parameters.push(Sql::from(status.as_str().to_owned()));
    }
    if let Some(after) = &query.after {
        terms += " AND (created_at, id) < (?, ?)";
        parameters.push(Sql::from(integer(after.created_at.as_micros())));
        parameters.push(Sql::from(after.id.to_string()));
    }
    let order = "ORDER BY created_at DESC, id DESC LIMIT ?";
    let limit = Sql::from(i64::try_from(limit).unwrap_or(i64::MAX));
    let from = format!("SELECT {COLUMNS} FROM executions WHERE {terms}");
    if query.unsettled && query.status.is_none() && query.main_execution_id.is_none() {
        // Each by its own index.
        let others = parameters.clone();
        parameters.push(limit.clone());
        parameters.extend(others);
        parameters.push(limit);
        let sql = format!(
            "SELECT * FROM ({from} AND status = 'running' {order})
             UNION ALL SELECT * FROM ({from} AND descending = 1 AND status <> 'running' {order})
             {order}"
        );
        parameters.push(parameters[parameters.len() - 1].clone());
        return (sql, parameters);
    }
    if query.unsettled {
        terms += " AND (status = 'running' OR descending = 1)";
    }
    let Some(main) = &query.main_execution_id else {
        parameters.push(limit);
        return (
            format!("SELECT {COLUMNS} FROM executions WHERE {terms} {order}"),
            parameters,
        );
    };
    // The index of trees leaves out their roots: most executions are one.
    let sql = format!(
        "SELECT * FROM (SELECT {COLUMNS} FROM executions WHERE {terms} AND main = ? AND main <> id {order})
         UNION ALL SELECT {COLUMNS} FROM executions WHERE {terms} AND id = ? AND main = id {order}"
    );
    let main = Sql::from(main.to_string());
    let of_root = [parameters.clone(), vec![main.clone(), limit.clone()]].concat();
    parameters.extend([main, limit]);
    parameters.extend(of_root);
    (sql, parameters)
}

fn summary(row: &rusqlite::Row<'_>, at: &Place) -> Result<ExecutionSummary, Failure> {
    let id: String = row.get(0)?;
    let checked = |text: String| -> Result<ExecutionId, BackendError> {
        ExecutionId::new(text).map_err(|error| at.damaged(&format!("the row of execution '{id}'"), error))
    };
    let status: String = row.get(3)?;
    let status = STATUSES
        .into_iter()
        .find(|known| known.as_str() == status)
        .ok_or_else(|| {
            let why = format!("'{status}' is no status");
            at.damaged(&format!("the row of execution '{id}'"), why)
        })?;
    Ok(ExecutionSummary {
        id: checked(id.clone())?,
        main_execution_id: checked(row.get(1)?)?,
        workflow: row.get(2)?,
        status,
        version: unsigned(row, 4)?,
        created_at: Timestamp::from_micros(unsigned(row, 5)?),
        updated_at: Timestamp::from_micros(unsigned(row, 6)?),
        unsettled: status == Status::Running || row.get(7)?,
    })
}
