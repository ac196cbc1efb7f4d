//! What the executions of a tree share: for people in `identities/ID.yaml`, `schemas/ID.yaml`, `conversations/ID.json`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Inner;
use super::disk::{self, Staged, damaged};
use super::people::Changed;
use super::tree::Record;
use crate::stored::within_depth;
use crate::{BackendError, BackendErrorKind, Durability, ExecutionId, Turn, Value};

impl Inner {
    pub(super) fn identities(&self, id: &ExecutionId) -> Result<IndexMap<Arc<str>, Arc<str>>, BackendError> {
        self.with(id, |open| Ok(open.tree().identities.clone()))
    }

    pub(super) fn put_identities(
        &self,
        id: &ExecutionId,
        identities: IndexMap<Arc<str>, Arc<str>>,
    ) -> Result<(), BackendError> {
        self.with(id, |open| {
            if identities != open.tree().identities {
                open.write(Record::Identities(identities), None, &Changed::DEFINITIONS)?;
            }
            open.sweep()
        })
    }

    pub(super) fn schemas(&self, id: &ExecutionId) -> Result<IndexMap<Arc<str>, Value>, BackendError> {
        self.with(id, |open| Ok(open.tree().schemas.clone()))
    }

    pub(super) fn put_schemas(&self, id: &ExecutionId, schemas: IndexMap<Arc<str>, Value>) -> Result<(), BackendError> {
        self.with(id, |open| {
            if schemas != open.tree().schemas {
                open.write(Record::Schemas(schemas), None, &Changed::DEFINITIONS)?;
            }
            open.sweep()
        })
    }

    pub(super) fn turns(&self, id: &ExecutionId) -> Result<Vec<Turn>, BackendError> {
        self.with(id, |open| Ok(open.tree().turns.clone()))
    }

    pub(super) fn append_turns(&self, id: &ExecutionId, turns: &[Turn]) -> Result<(), BackendError> {
        self.with(id, |open| {
            let new = open.tree().new_turns(turns);
            match new.is_empty() {
                true => Ok(()),
                false => open.write(Record::Turns(new), None, &Changed::TURNS),
            }
        })
    }

    pub(super) fn replace_turns(&self, id: &ExecutionId, turns: Vec<Turn>) -> Result<(), BackendError> {
        self.with(id, |open| {
            if turns != open.tree().turns {
                open.write(Record::AllTurns(turns), None, &Changed::TURNS)?;
            }
            open.sweep()
        })
    }
}

/// No file says the same as an empty one.
pub(super) fn stage_yaml<V: Serialize + DeserializeOwned + PartialEq>(
    path: PathBuf,
    entries: &IndexMap<Arc<str>, V>,
) -> Result<Staged, BackendError> {
    if entries.is_empty() {
        return Ok(Staged::remove(path));
    }
    Staged::replace(path, &[&to_yaml(entries)?], Durability::Relaxed)
}

/// YAML has many ways to misread a text (`no`, `1e3`, `\u{85}`): what doesn't come back the same is written as JSON, which is
/// YAML as well.
fn to_yaml<V: Serialize + DeserializeOwned + PartialEq>(
    entries: &IndexMap<Arc<str>, V>,
) -> Result<Vec<u8>, BackendError> {
    let same = |yaml: &String| serde_yaml::from_str::<IndexMap<Arc<str>, V>>(yaml).is_ok_and(|read| read == *entries);
    match serde_yaml::to_string(entries).ok().filter(same) {
        Some(yaml) => Ok(yaml.into_bytes()),
        None => pretty(entries),
    }
}

/// What the form of before had in such a file.
pub(super) fn read_yaml<V: DeserializeOwned>(path: &Path) -> Result<IndexMap<Arc<str>, V>, BackendError> {
    let Some(content) = disk::read(path)? else {
        return Ok(IndexMap::new());
    };
    if content.starts_with(b"{") {
        return disk::parse(&content, path);
    }
    serde_yaml::from_slice(&content).map_err(|error| damaged(path, &error.to_string()).because(error))
}

/// Readable JSON.
pub(super) fn pretty<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, BackendError> {
    let refuse = |why| BackendError::new(BackendErrorKind::Unsupported, why);
    let mut json =
        serde_json::to_vec_pretty(value).map_err(|error| refuse("it can't be written as JSON").because(error))?;
    json.push(b'\n');
    if within_depth(&json) {
        Ok(json)
    } else {
        Err(refuse("a value is nested deeper than the file store can read back"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries() -> impl Strategy<Value = IndexMap<Arc<str>, Value>> {
        let text = prop_oneof![
            any::<String>(),
            "[ -~\n\t\r\u{85}\u{2028}\u{feff}\u{0}]{0,8}",
            prop::sample::select(vec![
                "no",
                "~",
                "1e3",
                "0x1f",
                "2024-01-01",
                "<<",
                "---",
                "...",
                "",
                " a",
                "{",
                "- a",
                "? b"
            ])
            .prop_map(String::from),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        let key = text.prop_map(Arc::<str>::from);
        let keys = key.clone();
        let value = leaf.prop_recursive(3, 12, 3, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::list),
                prop::collection::vec((keys.clone(), inner), 0..3).prop_map(Value::map),
            ]
        });
        prop::collection::vec((key, value), 1..4).prop_map(|entries| entries.into_iter().collect())
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(entries in entries()) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.yaml");
            std::fs::write(&path, to_yaml(&entries).unwrap()).unwrap();
            prop_assert_eq!(read_yaml::<Value>(&path).unwrap(), entries);
        }
    }

    #[test]
    fn ordinary_definitions_are_yaml() {
        let entries: IndexMap<Arc<str>, Arc<str>> = [("helper".into(), "You help.\nAlways.".into())].into();
        let yaml = String::from_utf8(to_yaml(&entries).unwrap()).unwrap();
        assert_eq!(yaml, "helper: |-\n  You help.\n  Always.\n");
    }
}
