//! Snapshots as they are stored: by how much of the present context they consist of.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, de};
use serde_json::{Map as JsonMap, Value as Json, json};

use crate::{Context, ExecutionState, History, NumberMap, Operational, OrderedMap, ParentInfo, SignalLog};

/// The snapshots of a state, to be read with its context.
pub(crate) fn write(state: &ExecutionState) -> Result<Json, serde_json::Error> {
    let snapshots: Result<Vec<_>, _> = state
        .snapshots
        .iter()
        .map(|(run, then)| snapshot(run, then, &state.context))
        .collect();
    Ok(snapshots?.into())
}

/// What [`write`] wrote; null is none.
pub(crate) fn read(stored: Json, now: &Context) -> Result<NumberMap<Arc<Context>>, serde_json::Error> {
    let stored = Option::<Vec<Snapshot>>::deserialize(stored)?.unwrap_or_default();
    let restore = |snapshot: Snapshot| {
        let (run, context) = snapshot.restore(now)?;
        Ok((run, Arc::new(context)))
    };
    stored.into_iter().map(restore).collect()
}

/// An earlier context: of each history the number of values that the present one begins with, or all values if the present
/// one doesn't begin with them.
fn snapshot(run: u64, then: &Context, now: &Context) -> Result<Json, serde_json::Error> {
    let mut fields = JsonMap::new();
    for (name, history) in then.fields.iter() {
        let same = now
            .history(name)
            .is_some_and(|now| is_prefix(history.iter(), history.len(), now.iter(), now.len()));
        let stored = if same {
            history.len().into()
        } else {
            serde_json::to_value(history)?
        };
        fields.insert(name.as_ref().to_owned(), stored);
    }
    let (signals, now_signals) = (&then.operational.signals, &now.operational.signals);
    let mut operational = serde_json::to_value(&then.operational)?;
    if is_prefix(signals.iter(), signals.len(), now_signals.iter(), now_signals.len()) {
        operational["signals"] = signals.len().into();
    }
    let mut stored = json!({"run": run, "fields": fields, "operational": operational});
    if then.parent != now.parent {
        stored["parent"] = serde_json::to_value(&then.parent)?;
    }
    Ok(stored)
}

fn is_prefix<'a, T: PartialEq + 'a>(
    short: impl Iterator<Item = &'a T>,
    length: usize,
    long: impl Iterator<Item = &'a T>,
    of: usize,
) -> bool {
    length <= of && short.zip(long).all(|(a, b)| a == b)
}

#[derive(Deserialize)]
struct Snapshot {
    #[serde(alias = "commit")]
    run: u64,
    fields: OrderedMap<Part<History>>,
    operational: JsonMap<String, Json>,
    /// Missing if it is the present one.
    #[serde(default, deserialize_with = "present")]
    parent: Option<Option<Arc<ParentInfo>>>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Arc<ParentInfo>>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// The first values of the present list, or a list of its own.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Part<T> {
    First(usize),
    Own(T),
}

impl<T> Part<T> {
    fn restore<'a, I>(self, present: impl Iterator<Item = &'a I>, length: usize) -> Result<T, serde_json::Error>
    where
        I: Clone + 'a,
        T: FromIterator<I>,
    {
        match self {
            Part::First(count) if count > length => Err(de::Error::custom("a snapshot has more values than there are")),
            Part::First(count) => Ok(present.take(count).cloned().collect()),
            Part::Own(list) => Ok(list),
        }
    }
}

impl Snapshot {
    fn restore(mut self, now: &Context) -> Result<(u64, Context), serde_json::Error> {
        let mut fields = OrderedMap::default();
        for (name, part) in self.fields.iter() {
            let none = History::default();
            let present = now.history(name).unwrap_or(&none);
            fields.insert(name.clone(), part.clone().restore(present.iter(), present.len())?);
        }
        let signals = self
            .operational
            .insert("signals".to_owned(), json!([]))
            .unwrap_or_default();
        let mut operational = Operational::deserialize(Json::Object(self.operational))?;
        let present = &now.operational.signals;
        operational.signals = Part::<SignalLog>::deserialize(signals)?.restore(present.iter(), present.len())?;
        let parent = self.parent.unwrap_or_else(|| now.parent.clone());
        Ok((
            self.run,
            Context {
                fields,
                operational,
                parent,
            },
        ))
    }
}
