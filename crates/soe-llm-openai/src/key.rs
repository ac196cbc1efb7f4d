//! Keys, and keeping them out of whatever people read.

use std::fmt;
use std::sync::Arc;

use reqwest::header::HeaderValue;

use crate::{BuildError, Redactor};

/// The key of an endpoint. It is sent, and never shown: `Debug` hides it, and there is no `Display`.
///
/// ```
/// use soe_llm_openai::ApiKey;
///
/// assert_eq!(format!("{:?}", ApiKey::new("sk-secret")), "ApiKey(hidden)");
/// ```
#[derive(Clone)]
pub struct ApiKey(Arc<str>);

impl ApiKey {
    /// A key, as the provider wrote it.
    pub fn new(key: impl Into<Arc<str>>) -> Self {
        Self(key.into())
    }

    /// The header's value, with `prefix` before the key.
    pub(crate) fn header(&self, prefix: &str) -> Result<HeaderValue, BuildError> {
        if self.0.is_empty() {
            return Err(BuildError::EmptyKey);
        }
        if let Some((index, found)) = self.0.chars().enumerate().find(|(_, c)| !matches!(c, '!'..='~')) {
            return Err(BuildError::InvalidKey {
                position: index + 1,
                found: describe(found),
            });
        }
        let mut value = HeaderValue::try_from(format!("{prefix}{}", self.0)).map_err(|_| BuildError::InvalidKey {
            position: 1,
            found: "character",
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(hidden)")
    }
}

impl From<&str> for ApiKey {
    fn from(key: &str) -> Self {
        Self::new(key)
    }
}

impl From<String> for ApiKey {
    fn from(key: String) -> Self {
        Self::new(key)
    }
}

/// What a wrong character is, without showing it: it is part of a secret.
fn describe(c: char) -> &'static str {
    match c {
        '\n' | '\r' => "line break",
        ' ' | '\t' => "blank",
        c if c.is_control() => "control character",
        _ => "character outside ASCII",
    }
}

/// All that must not be seen in texts that come back from an endpoint: servers like to repeat what they were sent.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Vec<Secret>);

#[derive(Clone)]
struct Secret {
    length: usize,
    redactor: Redactor,
}

impl Secrets {
    /// Shorter ones are dummies for servers that want any key; without them, messages would be full of holes.
    const SHORTEST: usize = 4;

    pub(crate) fn add(&mut self, secret: &str) {
        if secret.len() >= Self::SHORTEST {
            self.0.push(Secret {
                length: secret.len(),
                redactor: Redactor::new(secret),
            });
            // A secret that contains another one goes first: otherwise its rest would stay visible.
            self.0.sort_by_key(|secret| std::cmp::Reverse(secret.length));
        }
    }

    /// The text without secrets.
    pub(crate) fn hide(&self, text: &str) -> String {
        let mut hidden = text.to_owned();
        for secret in &self.0 {
            hidden = secret.redactor.hide(&hidden);
        }
        hidden
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_no_header_can_hold_is_refused_without_showing_it() {
        for (key, found) in [
            ("sk-secret\n", "line break"),
            ("\rsk-secret", "line break"),
            ("sk secret", "blank"),
            ("sk-\u{0}secret", "control character"),
            ("sk-sécret", "character outside ASCII"),
        ] {
            let error = ApiKey::new(key).header("Bearer ").unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains(found), "{text}");
            assert!(!text.contains("secret") && !text.contains("sk"), "{text}");
        }
        assert!(matches!(ApiKey::new("").header(""), Err(BuildError::EmptyKey)));
    }

    #[test]
    fn a_header_with_a_key_is_hidden_too() {
        let header = ApiKey::new("sk-secret").header("Bearer ").unwrap();
        assert_eq!(header.to_str().unwrap(), "Bearer sk-secret");
        assert!(!format!("{header:?}").contains("secret"));
    }

    #[test]
    fn secrets_are_hidden_the_longest_first() {
        let mut secrets = Secrets::default();
        secrets.add("sk-1");
        secrets.add("sk-1-and-more");
        secrets.add("x");
        assert_eq!(
            secrets.hide("bad: sk-1-and-more, sk-1, x"),
            "bad: [hidden], [hidden], x"
        );
        secrets.add("sk+\"2\"");
        assert_eq!(
            secrets.hide(r#"?key=sk%2B%222%22 or "sk+\"2\"""#),
            r#"?key=[hidden] or "[hidden]""#
        );
    }
}
