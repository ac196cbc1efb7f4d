//! The execution's data as the engine sees it: nothing is copied, every container is read in place.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use minijinja::value::{Enumerator, Object, ObjectRepr, Value};
use soe_backends::{Context, History, Map, OrderedMap, SignalLog, Value as Data};

use super::python::objects::{Dict, Sequence};

/// No field was read yet, or the value belongs to none.
const NO_FIELD: usize = usize::MAX;

/// What is in scope: `context`, and `result` in the conditions of tools.
#[derive(Debug)]
pub(crate) struct RootView {
    pub(crate) context: Value,
    pub(crate) result: Option<Value>,
}

/// `context`: every field is its last value. Remembers the field that was read last.
#[derive(Debug)]
pub(crate) struct ContextView {
    context: Arc<Context>,
    last_read: AtomicUsize,
}

/// A list of the context; `field` is the position of the field whose value it is.
#[derive(Debug)]
pub(crate) struct ListView {
    pub(crate) items: Arc<[Data]>,
    field: usize,
}

/// A mapping of the context.
#[derive(Debug)]
pub(crate) struct MapView {
    pub(crate) map: Arc<Map>,
    field: usize,
}

/// Every value that a field had.
#[derive(Debug)]
pub(crate) struct HistoryView(pub(crate) History);

/// `context.__operational__`.
#[derive(Debug)]
pub(crate) struct OperationalView(Arc<Context>);

/// `context.__operational__.signals`.
#[derive(Debug)]
pub(crate) struct SignalsView(SignalLog);

/// `context.__operational__.nodes`.
#[derive(Debug)]
struct CountsView(OrderedMap<u64>);

/// The engine's value for `data`.
pub(crate) fn value_of(data: &Data) -> Value {
    field_value(data, NO_FIELD)
}

fn field_value(data: &Data, field: usize) -> Value {
    match data {
        Data::Null => Value::from(()),
        Data::Bool(value) => Value::from(*value),
        Data::Int(value) => Value::from(*value),
        Data::UInt(value) => Value::from(*value),
        Data::Float(value) => Value::from(*value),
        Data::Text(text) => Value::from(text.clone()),
        Data::List(items) => Value::from_object(ListView {
            items: items.clone(),
            field,
        }),
        Data::Map(map) => Value::from_object(MapView {
            map: map.clone(),
            field,
        }),
    }
}

/// Whether two values are the same container, not only equal ones.
pub(crate) fn is_same_object(a: &Value, b: &Value) -> bool {
    fn same<T: 'static, P: ?Sized>(a: &Value, b: &Value, part: impl Fn(&T) -> *const P) -> bool {
        match (a.downcast_object_ref::<T>(), b.downcast_object_ref::<T>()) {
            (Some(a), Some(b)) => std::ptr::addr_eq(part(a), part(b)),
            _ => false,
        }
    }
    same(a, b, |list: &ListView| Arc::as_ptr(&list.items))
        || same(a, b, |map: &MapView| Arc::as_ptr(&map.map))
        || same(a, b, |list: &Sequence| std::ptr::from_ref(list))
        || same(a, b, |dict: &Dict| std::ptr::from_ref(dict))
        || same(a, b, |context: &ContextView| Arc::as_ptr(&context.context))
}

impl Object for RootView {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match key {
            "context" => Some(self.context.clone()),
            "result" => self.result.clone(),
            _ => None,
        }
    }
}

impl ContextView {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            last_read: AtomicUsize::new(NO_FIELD),
        }
    }

    /// The history of `field`: empty if it was never written.
    pub(crate) fn history(&self, field: &str) -> History {
        self.context.history(field).cloned().unwrap_or_default()
    }

    /// The history of the field that `value` came from, as far as that is known.
    pub(crate) fn history_of(&self, value: &Value) -> Option<History> {
        let tagged = match (
            value.downcast_object_ref::<ListView>(),
            value.downcast_object_ref::<MapView>(),
        ) {
            (Some(list), _) => list.field,
            (_, Some(map)) => map.field,
            _ => NO_FIELD,
        };
        let field = if tagged == NO_FIELD {
            self.last_read.load(Ordering::Relaxed)
        } else {
            tagged
        };
        self.context.fields.get_at(field).map(|(_, history)| history.clone())
    }

    fn read(&self, name: &str) -> Option<Value> {
        match name {
            "__operational__" => return Some(Value::from_object(OperationalView(self.context.clone()))),
            "__parent__" => return self.parent(),
            _ => {}
        }
        let Some(position) = self.context.fields.position(name) else {
            self.last_read.store(NO_FIELD, Ordering::Relaxed);
            return None;
        };
        self.last_read.store(position, Ordering::Relaxed);
        let (_, history) = self.context.fields.get_at(position)?;
        history.last().map(|data| field_value(data, position))
    }

    fn parent(&self) -> Option<Value> {
        let parent = self.context.parent.as_ref()?;
        let names = |names: &[Arc<str>]| Value::from(names.iter().cloned().map(Value::from).collect::<Vec<_>>());
        Some(Value::from_pairs([
            (
                "parent_execution_id",
                Value::from(parent.parent_execution_id.as_shared().clone()),
            ),
            (
                "main_execution_id",
                Value::from(parent.main_execution_id.as_shared().clone()),
            ),
            ("signals_to_parent", names(&parent.signals_to_parent)),
            ("context_updates_to_parent", names(&parent.context_updates_to_parent)),
        ]))
    }
}

impl Object for ContextView {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.read(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.read(key)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let view = self.clone();
        let count = view.context.fields.len();
        let fields = (0..count).filter_map(move |position| {
            let (name, history) = view.context.fields.get_at(position)?;
            Some((Value::from(name.clone()), field_value(history.last()?, position)))
        });
        let reserved = ["__operational__", "__parent__"]
            .into_iter()
            .filter_map(|name| self.read(name).map(|value| (Value::from(name), value)));
        let reserved: Vec<_> = reserved.collect();
        Enumerator::KeyValueIter(Box::new(fields.chain(reserved)))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.context.fields.len() + 1 + usize::from(self.context.parent.is_some()))
    }
}

impl Object for ListView {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.items.get(key.as_usize()?).map(value_of)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.items.len())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.items.len())
    }
}

impl Object for MapView {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.map.get(key.as_str()?).map(value_of)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.map.get(key).map(value_of)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let map = self.map.clone();
        let entry = move |index| {
            map.get_index(index)
                .map(|(key, value)| (Value::from(key.clone()), value_of(value)))
        };
        Enumerator::KeyValueIter(Box::new((0..self.map.len()).filter_map(entry)))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.map.len())
    }
}

impl Object for HistoryView {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.get(key.as_usize()?).map(value_of)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.0.len())
    }
}

impl Object for OperationalView {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        let operational = &self.0.operational;
        Some(match key {
            "signals" => Value::from_object(SignalsView(operational.signals.clone())),
            "nodes" => Value::from_object(CountsView(operational.nodes.clone())),
            "llm_calls" => Value::from(operational.llm_calls),
            "tool_calls" => Value::from(operational.tool_calls),
            "errors" => Value::from(operational.errors),
            "tokens" => Value::from(operational.tokens),
            "node_tokens" => Value::from_object(CountsView(operational.node_tokens.clone())),
            "main_execution_id" => match &operational.main_execution_id {
                Some(id) => Value::from(id.as_shared().clone()),
                None => Value::from(()),
            },
            "tree" => Value::from_pairs([
                ("llm_calls", operational.tree.llm_calls),
                ("tool_calls", operational.tree.tool_calls),
                ("tokens", operational.tree.tokens),
                ("children", operational.tree.children),
            ]),
            _ => return None,
        })
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Str(&[
            "signals",
            "nodes",
            "llm_calls",
            "tool_calls",
            "errors",
            "tokens",
            "node_tokens",
            "main_execution_id",
            "tree",
        ])
    }
}

impl SignalsView {
    /// Whether `signal` was ever broadcast; doesn't scan.
    pub(crate) fn contains(&self, signal: &str) -> bool {
        self.0.contains(signal)
    }

    /// How often `item`, if it is a signal at all, was broadcast; doesn't scan.
    pub(crate) fn count(&self, item: &Value) -> usize {
        item.as_str().map_or(0, |signal| self.0.count(signal))
    }
}

impl Object for SignalsView {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.get(key.as_usize()?).map(|signal| Value::from(signal.clone()))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.0.len())
    }
}

impl Object for CountsView {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.get(key.as_str()?).map(|count| Value::from(*count))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let counts = self.0.clone();
        let entry = move |position| {
            counts
                .get_at(position)
                .map(|(name, count)| (Value::from(name.clone()), Value::from(*count)))
        };
        Enumerator::KeyValueIter(Box::new((0..self.0.len()).filter_map(entry)))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.0.len())
    }
}
