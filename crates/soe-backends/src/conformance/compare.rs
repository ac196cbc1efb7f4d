//! Comparing what is stored with what has to be.

use super::{Finding, Outcome, ensure};
use crate::{ExecutionId, TreeState};

pub(super) fn same_state(
    id: &ExecutionId,
    loaded: Option<&TreeState>,
    expected: Option<&TreeState>,
    when: &str,
) -> Outcome {
    let (loaded, expected) = match (loaded, expected) {
        (None, None) => return Ok(()),
        (None, Some(_)) => return Err(Finding::Violated(format!("{when}, tree {id} is missing"))),
        (Some(_), None) => return Err(Finding::Violated(format!("{when}, tree {id} exists"))),
        (Some(loaded), Some(expected)) => (loaded, expected),
    };
    // Equality of objects doesn't see their order, the JSON text does.
    let (loaded_json, expected_json) = (json(loaded), json(expected));
    ensure!(
        loaded == expected && loaded_json == expected_json,
        "{when}, the state of {id} differs: {}",
        difference(&loaded_json, &expected_json)
    );
    Ok(())
}

pub(super) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| format!("not JSON: {error}"))
}

/// The surroundings of the first difference.
pub(super) fn difference(found: &str, expected: &str) -> String {
    let at = found.chars().zip(expected.chars()).take_while(|(a, b)| a == b).count();
    let around = |text: &str| text.chars().skip(at.saturating_sub(40)).take(120).collect::<String>();
    format!("…{} instead of …{}", around(found), around(expected))
}
