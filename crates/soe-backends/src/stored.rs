//! For those who write a store: the stored form of states, and what every store checks of a commit.

use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::{
    ApplyError, BackendError, BackendErrorKind, Change, Commit, ExecutionId, ExecutionState, FORMAT, snapshots,
};

/// The deepest nesting in stored JSON. Deeper ones could exhaust the stack of whoever reads them.
const MAX_DEPTH: usize = 256;

/// JSON that [`read`] can read back.
///
/// # Errors
/// [`Unsupported`](BackendErrorKind::Unsupported) if it is nested too deep.
pub fn write<T: Serialize + ?Sized>(value: &T) -> Result<String, BackendError> {
    let refuse = |why| BackendError::new(BackendErrorKind::Unsupported, why);
    let json = serde_json::to_string(value).map_err(|error| refuse("it can't be written as JSON").because(error))?;
    if within_depth(json.as_bytes()) {
        Ok(json)
    } else {
        Err(refuse("a value is nested deeper than a store can read back"))
    }
}

/// Reads JSON.
///
/// # Errors
/// It isn't the JSON of a `T`, or it is nested too deep.
pub fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, serde_json::Error> {
    if !within_depth(json) {
        return Err(serde_json::Error::custom("it is nested too deep"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    deserializer.disable_recursion_limit();
    let value = T::deserialize(&mut deserializer)?;
    deserializer.end().map(|()| value)
}

/// A state as JSON. What its snapshots share with the present context is stored once.
///
/// # Errors
/// As [`write`].
pub fn write_state(state: &ExecutionState) -> Result<String, BackendError> {
    let unwritable =
        |error| BackendError::new(BackendErrorKind::Unsupported, "a snapshot can't be written").because(error);
    let snapshots = snapshots::write(state).map_err(unwritable)?;
    let state = ExecutionState {
        snapshots: BTreeMap::new(),
        ..state.clone()
    };
    write(&Written { state, snapshots })
}

/// The state that [`write_state`] wrote.
///
/// # Errors
/// It is damaged, or a later version wrote it.
pub fn read_state(json: &[u8]) -> Result<ExecutionState, serde_json::Error> {
    let Written { mut state, snapshots } = read(json)?;
    if state.format > FORMAT {
        let message = format!("it has format {}, this version reads up to {FORMAT}", state.format);
        return Err(serde_json::Error::custom(message));
    }
    state.snapshots = snapshots::read(snapshots, &state.context)?;
    Ok(state)
}

#[derive(Serialize, Deserialize)]
struct Written {
    state: ExecutionState,
    snapshots: Json,
}

/// Checks the versions of a batch (see [`ContextBackend::commit`](crate::ContextBackend::commit)) against the version that
/// is `stored`; `None` if the execution doesn't exist.
///
/// # Errors
/// A conflict if the batch wasn't computed from that version.
pub fn check_versions(commits: &[Commit], stored: Option<u64>) -> Result<(), BackendError> {
    let Some(first) = commits.first() else { return Ok(()) };
    let creates = matches!(first.changes.first(), Some(Change::Created(_)));
    let consecutive = commits
        .windows(2)
        .all(|pair| pair[0].version.checked_add(1) == Some(pair[1].version));
    let base = first.version.checked_sub(1);
    if base == Some(stored.unwrap_or(0)) && stored.is_none() == creates && consecutive {
        Ok(())
    } else {
        Err(BackendError::conflict(&first.execution, base.unwrap_or(0), stored))
    }
}

/// The error of a commit that has the right version, but was not made by an engine from the stored state.
pub fn unfit(execution: &ExecutionId, error: ApplyError) -> BackendError {
    let message = "a commit contradicts the stored state; nothing of the batch was stored";
    BackendError::new(BackendErrorKind::Corrupt, message)
        .execution(execution)
        .because(error)
}

/// Whether JSON is nested no deeper than can be read back.
pub(crate) fn within_depth(json: &[u8]) -> bool {
    // What opens little can't be deep; counting is much faster than following.
    if json.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() <= MAX_DEPTH {
        return true;
    }
    let (mut depth, mut text, mut escaped) = (0_usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if text => escaped = true,
            b'"' => text = !text,
            b'[' | b'{' if !text => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return false;
                }
            }
            b']' | b'}' if !text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted_outside_of_text() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(within_depth(nested(MAX_DEPTH).as_bytes()));
        assert!(!within_depth(nested(MAX_DEPTH + 1).as_bytes()));
        assert!(within_depth(format!(r#"["\"{}\\"]"#, "[".repeat(1000)).as_bytes()));
    }
}
