//! What pays for work: the evaluation's fuel, or an allowance of its own where there is no evaluation.

use std::cell::Cell;

use minijinja::value::Value;
use minijinja::{Error, ErrorKind, State};

use super::Result;
use crate::template::error::limit_error;
use crate::template::limits::{BYTES_PER_FUEL, BYTES_READ_PER_FUEL, FUEL, MAX_TEXT};

/// Accounts for work.
pub(crate) trait Meter {
    /// Pays for `units` of work.
    fn spend(&self, units: u64) -> Result<()>;

    /// Pays for a text of `bytes` that is going to be built.
    fn text(&self, bytes: usize) -> Result<()> {
        if bytes > MAX_TEXT {
            return Err(limit_error(format!("the text would be longer than {MAX_TEXT} bytes")));
        }
        self.spend((bytes / BYTES_PER_FUEL) as u64 + 1)
    }

    /// Pays for reading `value` through, if it is text.
    fn read(&self, value: &Value) -> Result<()> {
        match value.as_str() {
            Some(text) if text.len() >= BYTES_READ_PER_FUEL => self.spend((text.len() / BYTES_READ_PER_FUEL) as u64),
            _ => Ok(()),
        }
    }
}

impl Meter for State<'_, '_> {
    fn spend(&self, units: u64) -> Result<()> {
        self.consume_fuel(units)
    }
}

/// An allowance for what happens to a result after its evaluation.
pub(crate) struct Allowance(Cell<u64>);

impl Allowance {
    pub(crate) fn new() -> Self {
        Self(Cell::new(FUEL))
    }
}

impl Meter for Allowance {
    fn spend(&self, units: u64) -> Result<()> {
        let left = self
            .0
            .get()
            .checked_sub(units)
            .ok_or_else(|| Error::from(ErrorKind::OutOfFuel))?;
        self.0.set(left);
        Ok(())
    }
}
