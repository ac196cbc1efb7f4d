//! What clients are told when something is not possible: a status code that fits, and `{"error": {"code", "message"}}`.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use soe_core::runtime::{EngineError, EngineErrorKind};

#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    pub fn no_such_execution() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is no such execution")
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let (status, code) = match error.kind() {
            EngineErrorKind::Refused => (StatusCode::UNPROCESSABLE_ENTITY, "refused"),
            EngineErrorKind::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            EngineErrorKind::NotAccepting(_) | EngineErrorKind::Ended(_) => (StatusCode::CONFLICT, "ended"),
            EngineErrorKind::Failed(_) => (StatusCode::CONFLICT, "failed"),
            EngineErrorKind::Active => (StatusCode::CONFLICT, "running"),
            EngineErrorKind::NotActive => (StatusCode::CONFLICT, "not_active"),
            EngineErrorKind::ShutDown => (StatusCode::SERVICE_UNAVAILABLE, "shutting_down"),
            // What is the service's own trouble goes to its log: clients get no paths and no database errors.
            EngineErrorKind::Backend => {
                eprintln!("{error}");
                return Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "store",
                    "the store doesn't answer; try again later",
                );
            }
            _ => {
                eprintln!("{error}");
                return Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "internal",
                    "this is a defect of the service",
                );
            }
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), "bad_body", rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), "bad_query", rejection.body_text())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({"error": {"code": self.code, "message": self.message}});
        (self.status, Json(body)).into_response()
    }
}
