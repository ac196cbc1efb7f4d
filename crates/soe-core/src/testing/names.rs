//! Stages and kinds of errors, as they are written in files.

use crate::llm::{LlmErrorKind, Stage};

pub(super) const STAGES: &[Stage] = &[
    Stage::Llm,
    Stage::Router,
    Stage::Parameter,
    Stage::Response,
    Stage::Turn,
];

const KINDS: &[(LlmErrorKind, &str)] = &[
    (LlmErrorKind::Other, "other"),
    (LlmErrorKind::Connection, "connection"),
    (LlmErrorKind::Timeout, "timeout"),
    (LlmErrorKind::RateLimited, "rate_limited"),
    (LlmErrorKind::Unauthorized, "unauthorized"),
    (LlmErrorKind::Refused, "refused"),
    (LlmErrorKind::InvalidResponse, "invalid_response"),
];

pub(super) fn stage_of(name: &str) -> Option<Stage> {
    STAGES.iter().copied().find(|stage| stage.as_str() == name)
}

pub(super) fn error_kind_name(kind: LlmErrorKind) -> &'static str {
    let found = KINDS.iter().find(|(known, _)| *known == kind);
    found.map_or("other", |(_, name)| name)
}

pub(super) fn error_kind_of(name: &str) -> Option<LlmErrorKind> {
    let found = KINDS.iter().find(|(_, known)| *known == name);
    found.map(|(kind, _)| *kind)
}

/// The names of all kinds of errors.
pub(super) fn error_kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(_, name)| *name)
}

/// The beginning of a text, on one line.
pub(super) fn head(text: &str, characters: usize) -> String {
    let mut head: String = text.chars().take(characters).collect();
    if head.len() < text.len() {
        head.push_str("...");
    }
    head.replace(['\n', '\r'], " ")
}
