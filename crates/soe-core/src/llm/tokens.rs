//! Where streamed text goes.

use std::fmt;
use std::sync::Arc;

/// Takes text as it arrives from the LLM. Cheap to clone; never waits, and never fails: what nobody wants is dropped.
#[derive(Clone, Default)]
pub struct TokenSink(Option<Arc<Take>>);

type Take = dyn Fn(&str) + Send + Sync;

impl TokenSink {
    /// A sink that passes text on to `take`, which must not block.
    pub fn new(take: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(take)))
    }

    /// Whether somebody wants the text as it arrives. If not, a caller need not stream.
    pub fn is_wanted(&self) -> bool {
        self.0.is_some()
    }

    /// Passes a piece of text on. The pieces of a reply together are its text.
    pub fn send(&self, text: &str) {
        if let Some(take) = &self.0 {
            take(text);
        }
    }
}

impl fmt::Debug for TokenSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokenSink").field(&self.is_wanted()).finish()
    }
}
