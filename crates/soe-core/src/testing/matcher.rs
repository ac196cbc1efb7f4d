//! Which requests a rule answers.

use std::fmt;
use std::sync::Arc;

use crate::llm::{LlmRequest, Stage};

/// Which requests a rule of a [`MockLlm`](super::MockLlm) answers: those that meet all its conditions.
///
/// ```
/// use soe_core::llm::Stage;
/// use soe_core::testing::{any, node, prompt_contains};
///
/// let decisions = node("Researcher").stage(Stage::Router);
/// let second_draft = prompt_contains("draft 2").and_when("has a model", |request| request.config.contains_key("model"));
/// assert_eq!(decisions.to_string(), "node 'Researcher', stage router");
/// assert_eq!(second_draft.to_string(), "prompt contains \"draft 2\", has a model");
/// assert_eq!(any().to_string(), "any request");
/// ```
#[derive(Clone, Default)]
pub struct Matcher {
    conditions: Vec<Condition>,
}

#[derive(Clone)]
enum Condition {
    Node(Arc<str>),
    Stage(Stage),
    Contains(Arc<str>),
    When { what: Arc<str>, holds: Arc<Predicate> },
}

type Predicate = dyn Fn(&LlmRequest) -> bool + Send + Sync;

/// All requests.
pub fn any() -> Matcher {
    Matcher::default()
}

/// The requests of the node of this name.
pub fn node(name: impl Into<Arc<str>>) -> Matcher {
    any().node(name)
}

/// The requests of this stage.
pub fn stage(stage: Stage) -> Matcher {
    any().stage(stage)
}

/// The requests whose text contains this.
///
/// That is the whole text of [`LlmRequest::text`]: context, history and instructions included. Where the text is JSON,
/// `part` may also stand there with its quotes and line breaks escaped.
pub fn prompt_contains(part: impl Into<Arc<str>>) -> Matcher {
    any().prompt_contains(part)
}

/// The requests for which `holds` says so; `what` names the condition in messages.
pub fn when(what: impl Into<Arc<str>>, holds: impl Fn(&LlmRequest) -> bool + Send + Sync + 'static) -> Matcher {
    any().and_when(what, holds)
}

impl Matcher {
    /// Of them, those of the node of this name.
    #[must_use]
    pub fn node(self, name: impl Into<Arc<str>>) -> Self {
        self.and(Condition::Node(name.into()))
    }

    /// Of them, those of this stage.
    #[must_use]
    pub fn stage(self, stage: Stage) -> Self {
        self.and(Condition::Stage(stage))
    }

    /// Of them, those whose text contains this; see [`prompt_contains`].
    #[must_use]
    pub fn prompt_contains(self, part: impl Into<Arc<str>>) -> Self {
        self.and(Condition::Contains(part.into()))
    }

    /// Of them, those for which `holds` says so; `what` names the condition in messages.
    #[must_use]
    pub fn and_when(
        self,
        what: impl Into<Arc<str>>,
        holds: impl Fn(&LlmRequest) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.and(Condition::When {
            what: what.into(),
            holds: Arc::new(holds),
        })
    }

    fn and(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }

    /// Why a request, whose text is `text`, doesn't match; `None` if it does.
    pub(super) fn mismatch(&self, request: &LlmRequest, text: &str) -> Option<String> {
        self.conditions.iter().find_map(|condition| match condition {
            Condition::Node(name) => (*name != request.node).then(|| "another node".to_owned()),
            Condition::Stage(stage) => (*stage != request.stage).then(|| "another stage".to_owned()),
            Condition::Contains(part) => (!contains(text, part)).then(|| format!("the text doesn't contain {part:?}")),
            Condition::When { what, holds } => (!holds(request)).then(|| format!("not so: {what}")),
        })
    }
}

/// Whether `part` stands in `text` as it is, in a JSON string, or in a JSON string inside one.
fn contains(text: &str, part: &str) -> bool {
    let mut part = part.to_owned();
    for _ in 0..2 {
        if text.contains(&part) {
            return true;
        }
        let quoted = serde_json::Value::from(part.as_str()).to_string();
        if quoted.len() == part.len() + 2 {
            return false;
        }
        part = quoted[1..quoted.len() - 1].to_owned();
    }
    text.contains(&part)
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.conditions.is_empty() {
            return f.write_str("any request");
        }
        for (i, condition) in self.conditions.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { ", " })?;
            match condition {
                Condition::Node(name) => write!(f, "node '{name}'")?,
                Condition::Stage(stage) => write!(f, "stage {}", stage.as_str())?,
                Condition::Contains(part) => write!(f, "prompt contains {part:?}")?,
                Condition::When { what, .. } => f.write_str(what)?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Matcher({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mismatch(matcher: &Matcher, request: &LlmRequest) -> Option<String> {
        matcher.mismatch(request, &request.text())
    }

    #[test]
    fn all_conditions_must_hold() {
        let matcher = node("Judge").stage(Stage::Response).prompt_contains("draft 2");
        let request = |node: &str, stage, text: &str| LlmRequest::new(text).by(node, stage);
        assert_eq!(
            mismatch(&matcher, &request("Judge", Stage::Response, "is draft 2 good?")),
            None
        );
        let why = |request| mismatch(&matcher, &request).unwrap();
        assert_eq!(why(request("Other", Stage::Response, "draft 2")), "another node");
        assert_eq!(why(request("Judge", Stage::Llm, "draft 2")), "another stage");
        assert_eq!(
            why(request("Judge", Stage::Response, "draft 1")),
            "the text doesn't contain \"draft 2\""
        );
        let never = when("never", |_| false);
        assert_eq!(mismatch(&never, &LlmRequest::new("")).unwrap(), "not so: never");
    }

    #[test]
    fn text_is_found_in_json_too() {
        let inner = serde_json::json!({"field": "say \"hi\"\nnow"}).to_string();
        let outer = serde_json::json!({"prompt": "one\ntwo", "context": inner}).to_string();
        assert!(contains(&outer, "one\ntwo"));
        assert!(contains(&outer, "say \"hi\"\nnow"));
        assert!(!contains(&outer, "say \"ho\""));
        assert!(contains("a \"b\"", "a \"b\""));
    }
}
