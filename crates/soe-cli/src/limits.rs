//! `--limit`

use serde_json::Value;
use soe_backends::Limits;

use crate::Usage;

/// `base` with the limits that are given instead of its own.
pub(crate) fn limits(base: Limits, given: &[(String, String)]) -> anyhow::Result<Limits> {
    let mut limits = serde_json::to_value(base)?;
    for (name, value) in given {
        let parsed = match name.as_str() {
            "active_time" => humantime::parse_duration(value)
                .ok()
                .and_then(|time| serde_json::to_value(time).ok()),
            _ => value.parse::<u64>().ok().map(Value::from),
        };
        let Some(slot) = limits.get_mut(name) else {
            let known: Vec<String> = limits
                .as_object()
                .into_iter()
                .flat_map(|map| map.keys().cloned())
                .collect();
            return Err(Usage(format!("there is no limit '{name}'; there are {}", known.join(", "))).into());
        };
        let Some(parsed) = parsed else {
            let expected = if name == "active_time" {
                "a duration such as 90s"
            } else {
                "a number"
            };
            return Err(Usage(format!("the limit '{name}' must be {expected}, not '{value}'")).into());
        };
        *slot = parsed;
    }
    serde_json::from_value(limits).map_err(|error| Usage(format!("--limit: {error}")).into())
}
