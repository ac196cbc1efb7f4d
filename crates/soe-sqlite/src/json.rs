//! JSON on its way into the database: written once, into buffers that are used again.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};
use soe_backends::{BackendError, stored};

/// So many buffers are kept.
const KEPT: usize = 64;

/// Longer ones are not.
const LONGEST: usize = 256 * 1024;

/// Buffers that nobody uses.
#[derive(Clone, Default)]
pub(crate) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

/// A buffer with the JSON of several things.
pub(crate) struct Json {
    text: Vec<u8>,
    buffers: Buffers,
}

/// One of them, to be bound to a statement.
pub(crate) struct Text<'a>(&'a [u8]);

impl Buffers {
    pub(crate) fn json(&self) -> Json {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Json {
            text: text.unwrap_or_default(),
            buffers: self.clone(),
        }
    }
}

impl Json {
    /// Writes something; gives where it is.
    pub(crate) fn write<T: serde::Serialize + ?Sized>(&mut self, value: &T) -> Result<Range<usize>, BackendError> {
        let start = self.text.len();
        stored::append(&mut self.text, value)?;
        Ok(start..self.text.len())
    }

    pub(crate) fn get(&self, range: &Range<usize>) -> Text<'_> {
        Text(self.text.get(range.clone()).unwrap_or_default())
    }
}

impl Drop for Json {
    fn drop(&mut self) {
        let mut buffers = self.buffers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.len() < KEPT && self.text.capacity() <= LONGEST {
            let mut text = std::mem::take(&mut self.text);
            text.clear();
            buffers.push(text);
        }
    }
}

impl ToSql for Text<'_> {
    /// JSON is text: what `serde_json` writes is UTF-8.
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}
