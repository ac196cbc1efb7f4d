//! The routes: a thin layer over the engine's own calls.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, Query, State};
use axum::http::header::LOCATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::json;
use soe_backends::{ExecutionId, ListCursor, ListQuery, Status};
use soe_core::config::Config;
use soe_core::runtime::{Engine, Orchestration, StreamItem};
use tokio::sync::Semaphore;

use crate::error::ApiError;

/// The largest request body.
const MAX_BODY: usize = 256 * 1024;

/// So many clients may follow executions at a time: each holds a connection and a buffer.
const MAX_FOLLOWERS: usize = 256;

/// The largest page of executions.
const MAX_PAGE: usize = 100;

#[derive(Clone)]
struct App {
    engine: Engine,
    config: Arc<Config>,
    followers: Arc<Semaphore>,
}

/// The service: executions of the workflows in `config`, run by `engine`.
pub fn app(engine: Engine, config: Config) -> Router {
    let app = App {
        engine,
        config: Arc::new(config),
        followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
    };
    Router::new()
        .route("/health", get(health))
        .route("/executions", get(list).post(start))
        .route("/executions/{id}", get(show).delete(delete))
        .route("/executions/{id}/signals", post(signal))
        .route("/executions/{id}/cancel", post(cancel))
        .route("/executions/{id}/events", get(events))
        .fallback(|| async { ApiError::new(StatusCode::NOT_FOUND, "no_route", "there is nothing here") })
        .method_not_allowed_fallback(|| async {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method", "that can't be done here")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(app)
}

/// The execution that a path names. What can't be an id is the id of no execution.
struct Id(ExecutionId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<ExecutionId>::from_request_parts(parts, state).await;
        path.map(|Path(id)| Self(id)).map_err(|_| ApiError::no_such_execution())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewExecution {
    workflow: String,
    #[serde(default = "start_signal")]
    signals: Vec<String>,
    #[serde(default)]
    context: serde_json::Map<String, serde_json::Value>,
}

fn start_signal() -> Vec<String> {
    vec!["START".to_owned()]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signals {
    signals: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListParams {
    status: Option<Status>,
    limit: Option<usize>,
    /// `next` of the page before, as JSON.
    after: Option<String>,
}

/// Whether the service can do its work: whether the store answers.
async fn health(State(app): State<App>) -> Result<impl IntoResponse, ApiError> {
    let query = ListQuery {
        limit: 1,
        ..ListQuery::default()
    };
    app.engine.list(&query).await?;
    Ok(Json(json!({"status": "ok"})))
}

/// Answers as soon as the execution is stored; the work goes on by itself.
async fn start(
    State(app): State<App>,
    body: Result<Json<NewExecution>, JsonRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let Json(new) = body?;
    let start = Orchestration::new(app.config, new.workflow)
        .signals(new.signals)
        .context(new.context);
    let execution = app.engine.start(start).await?;
    let location = format!("/executions/{}", execution.id());
    Ok((
        StatusCode::CREATED,
        [(LOCATION, location)],
        Json(json!({"id": execution.id()})),
    ))
}

async fn list(
    State(app): State<App>,
    params: Result<Query<ListParams>, QueryRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let Query(params) = params?;
    let not_ours = |_| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "bad_query",
            "'after' is no cursor of this service",
        )
    };
    let after: Option<ListCursor> = params
        .after
        .as_deref()
        .map(serde_json::from_str)
        .transpose()
        .map_err(not_ours)?;
    let query = ListQuery {
        status: params.status,
        limit: params.limit.unwrap_or(20).clamp(1, MAX_PAGE),
        after,
        ..ListQuery::default()
    };
    Ok(Json(app.engine.list(&query).await?))
}

async fn show(State(app): State<App>, Id(id): Id) -> Result<impl IntoResponse, ApiError> {
    let (state, summary) = tokio::try_join!(app.engine.state(&id), app.engine.status(&id))?;
    let fields = state.context.fields.iter();
    let current: serde_json::Map<_, _> = fields
        .filter_map(|(name, history)| Some((name.to_string(), history.last()?.to_json())))
        .collect();
    Ok(Json(json!({
        "id": state.id,
        "workflow": state.workflow,
        "status": summary.status,
        "failure": state.failure,
        "signals": state.context.operational.signals,
        "context": current,
    })))
}

/// 202: the signals are stored and will be handled, whatever happens to this process.
async fn signal(
    State(app): State<App>,
    Id(id): Id,
    body: Result<Json<Signals>, JsonRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let Json(body) = body?;
    app.engine.broadcast_signals(&id, body.signals).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn cancel(State(app): State<App>, Id(id): Id) -> Result<impl IntoResponse, ApiError> {
    app.engine.cancel(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn delete(State(app): State<App>, Id(id): Id) -> Result<impl IntoResponse, ApiError> {
    app.engine.delete(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What has happened in an execution, then what happens in it, as server-sent events. A client that comes back says with
/// `Last-Event-ID` what it saw last (browsers do that by themselves), and gets what came after it.
async fn events(State(app): State<App>, Id(execution): Id, headers: HeaderMap) -> Result<impl IntoResponse, ApiError> {
    app.engine.status(&execution).await?;
    let place = app.followers.try_acquire_owned().map_err(|_| {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_followers",
            "too many clients follow executions",
        )
    })?;
    let last: Option<u64> = headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok()?.parse().ok());
    let from = last.map_or(0, |last| last.saturating_add(1));

    // When the client is gone, axum drops the stream, which ends the subscription and gives the place back.
    let events = app.engine.events_from(&execution, from).map(move |item| {
        let _held = &place;
        sse_event(item)
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}

fn sse_event(item: StreamItem) -> Result<Event, axum::Error> {
    match item {
        StreamItem::Event(happened) => Event::default()
            .id(happened.seq.to_string())
            .event(happened.kind.name())
            .json_data(&happened),
        // A client that reads slowly doesn't hold the engine up. It is told how many events it missed.
        StreamItem::Missed(count) => Ok(Event::default().event("missed").data(count.to_string())),
        _ => Ok(Event::default().comment("")),
    }
}
