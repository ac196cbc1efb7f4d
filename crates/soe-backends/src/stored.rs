//! For those who write a store: the stored form of states and inboxes, and what every store checks of a commit.

use std::sync::Arc;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::{
    ApplyError, BackendError, BackendErrorKind, Change, Commit, ExecutionId, ExecutionState, FORMAT, NumberMap,
    TreeState, snapshots,
};

pub use crate::inbox::Inbox;

/// The deepest nesting in stored JSON. Deeper ones could exhaust the stack of whoever reads them.
const MAX_DEPTH: usize = 256;

/// JSON that [`read`] can read back.
///
/// # Errors
/// [`Unsupported`](BackendErrorKind::Unsupported) if it is nested too deep.
pub fn write<T: Serialize + ?Sized>(value: &T) -> Result<String, BackendError> {
    let json = serde_json::to_string(value).map_err(|error| refuse("it can't be written as JSON").because(error))?;
    match within_depth(json.as_bytes()) {
        true => Ok(json),
        false => Err(refuse(TOO_DEEP)),
    }
}

/// As [`write()`], at the end of a buffer.
///
/// # Errors
/// As [`write()`]. Nothing is added then.
pub fn append<T: Serialize + ?Sized>(json: &mut Vec<u8>, value: &T) -> Result<(), BackendError> {
    let start = json.len();
    let written = serde_json::to_writer(&mut *json, value);
    let written = written.map_err(|error| refuse("it can't be written as JSON").because(error));
    let result = match written {
        Ok(()) if !within_depth(&json[start..]) => Err(refuse(TOO_DEEP)),
        result => result,
    };
    if result.is_err() {
        json.truncate(start);
    }
    result
}

const TOO_DEEP: &str = "a value is nested deeper than a store can read back";

fn refuse(why: &str) -> BackendError {
    BackendError::new(BackendErrorKind::Unsupported, why)
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

/// The state of an execution as JSON. What its snapshots share with the present context is stored once.
///
/// # Errors
/// As [`write()`].
pub fn write_execution(state: &ExecutionState) -> Result<String, BackendError> {
    let unwritable =
        |error| BackendError::new(BackendErrorKind::Unsupported, "a snapshot can't be written").because(error);
    let snapshots = snapshots::write(state).map_err(unwritable)?;
    let state = ExecutionState {
        snapshots: NumberMap::default(),
        ..state.clone()
    };
    write(&Written { state, snapshots })
}

/// The state that [`write_execution`] wrote.
///
/// # Errors
/// It is damaged.
pub fn read_execution(json: &[u8]) -> Result<ExecutionState, serde_json::Error> {
    let Written { mut state, snapshots } = read(json)?;
    state.snapshots = snapshots::read(snapshots, &state.context)?;
    Ok(state)
}

#[derive(Serialize, Deserialize)]
struct Written {
    state: ExecutionState,
    snapshots: Json,
}

/// The state of a tree as JSON, without its executions: those are written one by one.
///
/// # Errors
/// As [`write()`].
pub fn write_head(tree: &TreeState) -> Result<String, BackendError> {
    let head = TreeState {
        executions: NumberMap::default(),
        ..tree.clone()
    };
    write(&head)
}

/// What [`write_head`] wrote: a tree without executions.
///
/// # Errors
/// It is damaged, or a later version wrote it.
pub fn read_head(json: &[u8]) -> Result<TreeState, serde_json::Error> {
    let head: TreeState = read(json)?;
    match head.format > FORMAT {
        true => Err(later(head.format)),
        false => Ok(head),
    }
}

fn later(format: u32) -> serde_json::Error {
    serde_json::Error::custom(format!("it has format {format}, this version reads up to {FORMAT}"))
}

/// A whole tree as JSON.
///
/// # Errors
/// As [`write()`].
pub fn write_tree(tree: &TreeState) -> Result<String, BackendError> {
    let executions = tree.executions.values().map(|state| write_execution(state));
    let executions: Vec<String> = executions.collect::<Result<_, _>>()?;
    Ok(format!(
        r#"{{"tree":{},"executions":[{}]}}"#,
        write_head(tree)?,
        executions.join(",")
    ))
}

/// The tree that [`write_tree`] wrote.
///
/// # Errors
/// It is damaged, or a later version wrote it.
pub fn read_tree(json: &[u8]) -> Result<TreeState, serde_json::Error> {
    #[derive(Deserialize)]
    struct Whole {
        tree: TreeState,
        executions: Vec<Written>,
    }
    let Whole { mut tree, executions } = read(json)?;
    if tree.format > FORMAT {
        return Err(later(tree.format));
    }
    for Written { mut state, snapshots } in executions {
        state.snapshots = snapshots::read(snapshots, &state.context)?;
        tree.executions.insert(state.number, Arc::new(state));
    }
    Ok(tree)
}

/// Checks the versions and the fence of a batch (see [`ContextBackend::commit`](crate::ContextBackend::commit)) against what is
/// `stored`: the version and the fence of the tree, `None` if it doesn't exist.
///
/// # Errors
/// A conflict if the batch wasn't computed from that.
pub fn check_versions(commits: &[Commit], stored: Option<(u64, u64)>) -> Result<(), BackendError> {
    let Some(first) = commits.first() else { return Ok(()) };
    let creates = matches!(first.changes.first(), Some(Change::Created(_) | Change::Forked(_)));
    let consecutive = commits
        .windows(2)
        .all(|pair| pair[0].version.checked_add(1) == Some(pair[1].version));
    let base = first.version.checked_sub(1);
    let (version, fence) = stored.unwrap_or_default();
    if base == Some(version) && first.fence == fence && stored.is_none() == creates && consecutive {
        Ok(())
    } else {
        let found = stored.map(|(version, _)| version);
        Err(BackendError::conflict(&first.tree, base.unwrap_or(0), found))
    }
}

/// The version and the fence of a tree, for [`check_versions`].
pub fn version_of(tree: &TreeState) -> (u64, u64) {
    (tree.version, tree.fence())
}

/// The error of a commit that has the right version, but was not made by an engine from the stored state.
pub fn unfit(tree: &ExecutionId, error: ApplyError) -> BackendError {
    let message = "a commit contradicts the stored state; nothing of the batch was stored";
    BackendError::new(BackendErrorKind::Corrupt, message)
        .execution(tree)
        .because(error)
}

/// The state that commits make of `before`, for stores that were not given it.
///
/// # Errors
/// They contradict it.
pub fn applied(before: Option<&TreeState>, commits: &[Commit]) -> Result<TreeState, ApplyError> {
    let (mut state, rest) = match before {
        Some(state) => (state.clone(), commits),
        None => {
            let (first, rest) = commits.split_first().ok_or(ApplyError::NotCreated)?;
            (TreeState::create(first)?, rest)
        }
    };
    rest.iter().try_for_each(|commit| state.apply(commit))?;
    Ok(state)
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
