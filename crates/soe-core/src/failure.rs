//! What the failures of tools and of custom nodes have in common.

use std::error::Error;
use std::fmt;

/// The error's text; with `{:#}` also its causes, except for those that an error's own text already repeats.
pub(crate) fn display(error: &(dyn Error + 'static), f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut last = error.to_string();
    f.write_str(&last)?;
    let mut cause = error.source().filter(|_| f.alternate());
    while let Some(error) = cause {
        let text = error.to_string();
        if !last.contains(&text) {
            write!(f, ": {text}")?;
            last = text;
        }
        cause = error.source();
    }
    Ok(())
}
