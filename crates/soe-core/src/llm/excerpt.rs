//! Texts of any length, for people and for prompts.

use std::fmt;
use std::sync::Arc;

/// The beginning of a text, with a note of its length where something is left out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Excerpt<'a> {
    text: &'a str,
    most: usize,
}

impl<'a> Excerpt<'a> {
    /// At most `most` bytes of `text`.
    pub(crate) fn of(text: &'a str, most: usize) -> Self {
        Self { text, most }
    }

    /// The same as shared text; `whole` is that text, shared already.
    pub(crate) fn clipped(self, whole: &Arc<str>) -> Arc<str> {
        match self.text.len() <= self.most {
            true => whole.clone(),
            false => self.to_string().into(),
        }
    }
}

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.text.len() <= self.most {
            return f.write_str(self.text);
        }
        let end = (0..=self.most)
            .rev()
            .find(|end| self.text.is_char_boundary(*end))
            .unwrap_or(0);
        let all = self.text.len();
        write!(f, "{}... ({all} bytes in all)", &self.text[..end])
    }
}
