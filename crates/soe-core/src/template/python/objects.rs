//! The containers that templates build: lists and mappings that can be changed in place, views, generators, ranges.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use indexmap::IndexMap;
use minijinja::value::{Enumerator, Object, ObjectRepr, Value};

use super::kinds::int;

/// A list, or a tuple.
#[derive(Debug)]
pub(crate) struct Sequence {
    items: RwLock<Vec<Value>>,
    pub(crate) is_tuple: bool,
}

/// A mapping.
#[derive(Debug)]
pub(crate) struct Dict(RwLock<IndexMap<Value, Value>>);

/// What `map`, `select` and their kin give: it can be iterated once.
pub(crate) struct Generator {
    label: &'static str,
    items: Mutex<Vec<Value>>,
}

/// `keys()`, `values()` and `items()` of a mapping.
pub(crate) struct DictView {
    pub(crate) dict: Value,
    pub(crate) kind: ViewKind,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum ViewKind {
    Keys,
    Values,
    Items,
}

/// `range()`.
#[derive(Debug)]
pub(crate) struct Range {
    pub(crate) start: i128,
    pub(crate) stop: i128,
    pub(crate) step: i128,
}

/// A group of `groupby`: a tuple of two, named.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) grouper: Value,
    pub(crate) list: Value,
}

/// A list of `items`.
pub(crate) fn list(items: Vec<Value>) -> Value {
    Value::from_object(Sequence::new(items, false))
}

/// A tuple of `items`.
pub(crate) fn tuple(items: Vec<Value>) -> Value {
    Value::from_object(Sequence::new(items, true))
}

/// A mapping of `entries`.
pub(crate) fn dict(entries: IndexMap<Value, Value>) -> Value {
    Value::from_object(Dict(RwLock::new(entries)))
}

/// A generator of `items`, which prints as a `label`.
pub(crate) fn generator(label: &'static str, items: Vec<Value>) -> Value {
    Value::from_object(Generator {
        label,
        items: Mutex::new(items),
    })
}

/// The entries of a mapping, in order.
pub(crate) fn entries(dict: &Value) -> impl Iterator<Item = (Value, Value)> + use<> {
    dict.as_object().and_then(|object| object.try_iter_pairs()).into_iter().flatten()
}

impl Sequence {
    fn new(items: Vec<Value>, is_tuple: bool) -> Self {
        Self {
            items: RwLock::new(items),
            is_tuple,
        }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Vec<Value>> {
        self.items.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Vec<Value>> {
        self.items.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Object for Sequence {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.read().get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.read().len())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.read().len())
    }
}

impl Dict {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, IndexMap<Value, Value>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, IndexMap<Value, Value>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Object for Dict {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.read().get(key).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.read().keys().cloned().collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.read().len())
    }
}

impl Generator {
    fn lock(&self) -> MutexGuard<'_, Vec<Value>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next item only, the others stay.
    pub(crate) fn take_first(&self) -> Option<Value> {
        let mut items = self.lock();
        (!items.is_empty()).then(|| items.remove(0))
    }
}

impl fmt::Debug for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} object>", self.label)
    }
}

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(std::mem::take(&mut *self.lock()))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        None
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl DictView {
    pub(crate) fn new(dict: &Value, kind: ViewKind) -> Value {
        let dict = dict.clone();
        Value::from_object(Self { dict, kind })
    }

    pub(crate) fn items(&self) -> Vec<Value> {
        let entries = entries(&self.dict);
        match self.kind {
            ViewKind::Keys => entries.map(|(key, _)| key).collect(),
            ViewKind::Values => entries.map(|(_, value)| value).collect(),
            ViewKind::Items => entries.map(|(key, value)| tuple(vec![key, value])).collect(),
        }
    }

    pub(crate) fn label(&self) -> &'static str {
        match self.kind {
            ViewKind::Keys => "dict_keys",
            ViewKind::Values => "dict_values",
            ViewKind::Items => "dict_items",
        }
    }
}

impl fmt::Debug for DictView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl Object for DictView {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        self.dict.len()
    }
}

impl Range {
    pub(crate) fn len(&self) -> usize {
        let span = if self.step > 0 { self.stop - self.start } else { self.start - self.stop };
        let step = self.step.abs();
        usize::try_from(((span + step - 1) / step).max(0)).unwrap_or(usize::MAX)
    }

    pub(crate) fn get(&self, index: usize) -> Option<Value> {
        (index < self.len()).then(|| int(self.start + self.step * index as i128))
    }
}

impl Object for Range {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get(key.as_usize()?)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.len())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.len())
    }
}

impl Object for Group {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match (key.as_usize(), key.as_str()) {
            (Some(0), _) | (_, Some("grouper")) => Some(self.grouper.clone()),
            (Some(1), _) | (_, Some("list")) => Some(self.list.clone()),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(2)
    }
}

/// Values are dropped one after the other, however deep they nest: a template may nest lists as deep as it likes.
fn drop_flat(mut pending: Vec<Value>) {
    while let Some(value) = pending.pop() {
        if let Some(object) = value.downcast_object::<Sequence>() {
            drop(value);
            if let Some(last) = Arc::into_inner(object) {
                pending.append(&mut last.write());
            }
        } else if let Some(object) = value.downcast_object::<Dict>() {
            drop(value);
            if let Some(last) = Arc::into_inner(object) {
                pending.extend(std::mem::take(&mut *last.write()).into_values());
            }
        } else if let Some(object) = value.downcast_object::<Generator>() {
            drop(value);
            if let Some(last) = Arc::into_inner(object) {
                pending.append(&mut last.lock());
            }
        } else if let Some(object) = value.downcast_object::<DictView>() {
            drop(value);
            if let Some(last) = Arc::into_inner(object) {
                pending.push(last.dict);
            }
        } else if let Some(object) = value.downcast_object::<Group>() {
            drop(value);
            if let Some(last) = Arc::into_inner(object) {
                pending.extend([last.grouper, last.list]);
            }
        }
    }
}

impl Drop for Sequence {
    fn drop(&mut self) {
        let items = std::mem::take(&mut *self.write());
        if items.iter().any(|item| item.as_object().is_some()) {
            drop_flat(items);
        }
    }
}

impl Drop for Dict {
    fn drop(&mut self) {
        drop_flat(std::mem::take(&mut *self.write()).into_values().collect());
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        drop_flat(std::mem::take(&mut *self.lock()));
    }
}
