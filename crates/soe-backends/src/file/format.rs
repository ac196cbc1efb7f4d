//! The stored form of an execution: what people read first, the engine's bookkeeping last.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::de::{self, MapAccess, Visitor};
use serde::ser::{self, SerializeMap};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map as JsonMap, Value as Json, json};

use super::disk::{damaged, newer, parse};
use crate::snapshots;
use crate::stored::within_depth;
use crate::{
    BackendError, BackendErrorKind, Context, Event, ExecutionId, ExecutionState, ExecutionSummary, FORMAT, Status,
    Timestamp,
};

const OPERATIONAL: &str = "__operational__";
const PARENT: &str = "__parent__";
const ENGINE: &str = "__engine__";

/// What a context file holds.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) state: ExecutionState,
    /// The events of the last commit: they are in the telemetry file too, unless the writer died in between.
    pub(super) outbox: Vec<Event>,
}

/// The content of a context file. `token` stands at its end: no other file ever written has the same.
pub(super) fn encode(state: &ExecutionState, outbox: &[Event], token: &str) -> Result<Vec<u8>, BackendError> {
    let refuse = |why: &str| {
        BackendError::new(
            BackendErrorKind::Unsupported,
            format!("the state can't be stored: {why}"),
        )
    };
    if [OPERATIONAL, PARENT, ENGINE]
        .iter()
        .any(|name| state.context.history(name).is_some())
    {
        return Err(refuse("the name of a field is reserved"));
    }
    let document = Written {
        context: &state.context,
        engine: engine(state, outbox, token),
    };
    let mut content =
        serde_json::to_vec_pretty(&document).map_err(|error| refuse(&error.to_string()).because(error))?;
    content.push(b'\n');
    if within_depth(&content) {
        Ok(content)
    } else {
        Err(refuse("a value is nested deeper than the file store can read back"))
    }
}

/// Reads a context file.
pub(super) fn decode(content: &[u8], path: &Path, id: &ExecutionId) -> Result<Stored, BackendError> {
    let document: Document = parse(content, path).map_err(|error| newer_or(error, content, path))?;
    check_format(document.engine.get("format").and_then(Json::as_u64), path)?;
    let stored = document
        .stored()
        .map_err(|error| damaged(path, &error.to_string()).because(error))?;
    if stored.state.id == *id {
        Ok(stored)
    } else {
        Err(damaged(path, &format!("it holds execution {}", stored.state.id)))
    }
}

/// Reads of a context file what a list says of it.
pub(super) fn decode_summary(content: &[u8], path: &Path) -> Result<ExecutionSummary, BackendError> {
    let head: Head = parse(content, path).map_err(|error| newer_or(error, content, path))?;
    check_format(Some(head.engine.format), path)?;
    let engine = head.engine;
    Ok(ExecutionSummary {
        main_execution_id: head.operational.main_execution_id.unwrap_or_else(|| engine.id.clone()),
        id: engine.id,
        workflow: engine.workflow,
        status: engine.status,
        version: engine.version,
        created_at: engine.created_at,
        updated_at: engine.updated_at,
        unsettled: engine.status == Status::Running || engine.family.descending || !engine.turns.is_empty(),
    })
}

/// A later format may not even parse: then the format is the error that helps.
fn newer_or(error: BackendError, content: &[u8], path: &Path) -> BackendError {
    #[derive(Deserialize)]
    struct Probe {
        #[serde(rename = "__engine__")]
        engine: Format,
    }
    #[derive(Deserialize)]
    struct Format {
        format: u64,
    }
    let format = serde_json::from_slice(content)
        .ok()
        .map(|probe: Probe| probe.engine.format);
    check_format(format.or(Some(0)), path).err().unwrap_or(error)
}

fn check_format(found: Option<u64>, path: &Path) -> Result<(), BackendError> {
    match found {
        Some(found) if found > u64::from(FORMAT) => Err(newer(path, found, FORMAT)),
        Some(_) => Ok(()),
        None => Err(damaged(path, "it doesn't say which format it has")),
    }
}

struct Written<'a> {
    context: &'a Context,
    engine: Result<Json, serde_json::Error>,
}

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, history) in self.context.fields.iter() {
            map.serialize_entry(name, history)?;
        }
        map.serialize_entry(OPERATIONAL, &self.context.operational)?;
        if let Some(parent) = &self.context.parent {
            map.serialize_entry(PARENT, parent)?;
        }
        let engine = self.engine.as_ref().map_err(ser::Error::custom)?;
        map.serialize_entry(ENGINE, engine)?;
        map.end()
    }
}

/// The state without its context, whatever else it consists of; then the snapshots, the outbox and the token.
fn engine(state: &ExecutionState, outbox: &[Event], token: &str) -> Result<Json, serde_json::Error> {
    let bare = ExecutionState {
        context: Arc::default(),
        snapshots: Default::default(),
        ..state.clone()
    };
    let mut engine = serde_json::to_value(&bare)?;
    if let Some(map) = engine.as_object_mut() {
        map.shift_remove("context");
        map.shift_remove("snapshots");
        map.insert("snapshots".to_owned(), snapshots::write(state)?);
        map.insert("outbox".to_owned(), serde_json::to_value(outbox)?);
        map.insert("token".to_owned(), token.into());
    }
    Ok(engine)
}

struct Document {
    context: Context,
    engine: JsonMap<String, Json>,
}

impl Document {
    fn stored(mut self) -> Result<Stored, serde_json::Error> {
        let mut take = |name: &str| self.engine.shift_remove(name).unwrap_or_default();
        let (snapshots, outbox) = (take("snapshots"), take("outbox"));
        take("token");
        let outbox = Option::<Vec<Event>>::deserialize(outbox)?.unwrap_or_default();
        self.engine
            .insert("context".to_owned(), serde_json::to_value(Context::default())?);
        self.engine.insert("snapshots".to_owned(), json!({}));
        let mut state = ExecutionState::deserialize(Json::Object(self.engine))?;
        state.context = Arc::new(self.context);
        state.snapshots = snapshots::read(snapshots, &state.context)?;
        Ok(Stored { state, outbox })
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the context of an execution")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let (mut context, mut operational, mut engine) = (Context::default(), None, None);
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                OPERATIONAL => operational = Some(map.next_value()?),
                PARENT => context.parent = Some(map.next_value()?),
                ENGINE => engine = Some(map.next_value()?),
                _ => context.fields.insert(name.into(), map.next_value()?),
            }
        }
        context.operational = operational.ok_or_else(|| <A::Error as de::Error>::missing_field(OPERATIONAL))?;
        let engine = engine.ok_or_else(|| <A::Error as de::Error>::missing_field(ENGINE))?;
        Ok(Document { context, engine })
    }
}

/// What a list needs; everything else is skipped without being built.
#[derive(Deserialize)]
struct Head {
    #[serde(rename = "__operational__")]
    operational: OperationalHead,
    #[serde(rename = "__engine__")]
    engine: EngineHead,
}

#[derive(Deserialize)]
struct OperationalHead {
    main_execution_id: Option<ExecutionId>,
}

#[derive(Deserialize)]
struct EngineHead {
    format: u64,
    id: ExecutionId,
    version: u64,
    status: Status,
    workflow: Arc<str>,
    created_at: Timestamp,
    updated_at: Timestamp,
    #[serde(default)]
    turns: Vec<de::IgnoredAny>,
    #[serde(default)]
    family: FamilyHead,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct FamilyHead {
    descending: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Change, Commit, Genesis, Limits, ParentInfo, RegistryId, Schedule, Value};

    fn state() -> ExecutionState {
        let id = ExecutionId::new("a").unwrap();
        let genesis = Genesis {
            workflow: "w".into(),
            registry: RegistryId::from_digest([1; 32]),
            main_execution_id: id.clone(),
            parent: None,
            schedule: Schedule::Concurrent,
            limits: Limits::default().into(),
            fields: vec![("kept".into(), [Value::from(1_i64)].into_iter().collect())],
            context_bytes: 0,
            forked: None,
        };
        let commit = Commit {
            execution: id,
            version: 1,
            at: Timestamp::from_micros(0),
            changes: vec![
                Change::Created(Box::new(genesis)),
                Change::Broadcast(["A".into(), "B".into()].into()),
            ],
            registry: None,
            definitions: None,
            turns: None,
            events: Vec::new(),
        };
        ExecutionState::create(&commit).unwrap()
    }

    fn round_trip(state: &ExecutionState) -> (String, ExecutionState) {
        let content = encode(state, &[], "t").unwrap();
        let stored = decode(&content, Path::new("a.json"), &state.id).unwrap();
        (String::from_utf8(content).unwrap(), stored.state)
    }

    #[test]
    fn a_snapshot_that_the_present_does_not_begin_with_is_stored_in_full() {
        let mut state = state();
        let mut then = state.context.as_ref().clone();
        then.append(&"replaced".into(), Value::from("before"));
        then.operational.signals = ["B".into()].into_iter().collect();
        then.parent = Some(Arc::new(ParentInfo {
            parent_execution_id: state.id.clone(),
            main_execution_id: state.id.clone(),
            signals_to_parent: Vec::new(),
            context_updates_to_parent: Vec::new(),
            depth: 1,
        }));
        state.snapshots.insert(1, Arc::new(then));
        state.snapshots.insert(2, state.context.clone());
        Arc::make_mut(&mut state.context).append(&"replaced".into(), Value::from("after"));
        Arc::make_mut(&mut state.context).append(&"kept".into(), Value::Null);
        let (content, read) = round_trip(&state);
        assert_eq!(read, state);
        let content: Json = serde_json::from_str(&content).unwrap();
        let snapshots = &content["__engine__"]["snapshots"];
        assert_eq!(snapshots[0]["fields"], json!({"kept": 1, "replaced": ["before"]}));
        assert_eq!(snapshots[1]["fields"], json!({"kept": 1}));
        assert_eq!(snapshots[1]["operational"]["signals"], json!(2));
    }

    #[test]
    fn a_reserved_name_is_refused() {
        let mut state = state();
        Arc::make_mut(&mut state.context).append(&ENGINE.into(), Value::Null);
        let error = encode(&state, &[], "t").unwrap_err();
        assert_eq!(error.kind(), BackendErrorKind::Unsupported);
    }
}
