//! Values as plain conditions see them, borrowed from where they are.

use std::cmp::Ordering;

use soe_backends::{Context, History, Map, Operational, OrderedMap, SignalLog, Value as Data};

use super::Operator;
use crate::template::is_passing;
use crate::template::python::compare::order_numbers;
use crate::template::python::kinds::Num;

/// The longest text, in bytes, that is compared, searched or counted here. The engine meters what a template reads, so that
/// what it would refuse mustn't have an answer here: what is within these limits it never refuses, in the longest condition.
const MAX_TEXT: usize = 16 * 1024;
/// The longest text that is searched for in a list: reading it costs no fuel.
const MAX_ITEM: usize = 255;
/// The longest list that is searched.
const MAX_LIST: usize = 256;

/// A value. Operations that have no plain answer give `None`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Plain<'a> {
    Undefined,
    Null,
    Bool(bool),
    Number(Num),
    Text(&'a str),
    List(&'a [Data]),
    Map(&'a Map),
    History(&'a History),
    Signals(&'a SignalLog),
    Counts(&'a OrderedMap<u64>),
    Operational(&'a Operational),
    Context(&'a Context),
}

impl<'a> Plain<'a> {
    pub(super) fn of(data: &'a Data) -> Self {
        match data {
            Data::Null => Self::Null,
            Data::Bool(value) => Self::Bool(*value),
            Data::Int(value) => Self::Number(Num::Int(i128::from(*value))),
            Data::UInt(value) => Self::Number(Num::Int(i128::from(*value))),
            Data::Float(value) => Self::Number(Num::Float(*value)),
            Data::Text(text) => Self::Text(text),
            Data::List(items) => Self::List(items),
            Data::Map(map) => Self::Map(map),
        }
    }

    pub(super) fn or_undefined(data: Option<&'a Data>) -> Self {
        data.map_or(Self::Undefined, Self::of)
    }

    pub(super) fn int(value: impl TryInto<i128>) -> Option<Self> {
        Some(Self::Number(Num::Int(value.try_into().ok()?)))
    }

    fn number(self) -> Option<Num> {
        match self {
            Self::Bool(value) => Some(Num::Int(i128::from(value))),
            Self::Number(number) => Some(number),
            _ => None,
        }
    }

    fn is_container(self) -> bool {
        !matches!(
            self,
            Self::Undefined | Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_)
        )
    }

    /// `self.key`, undefined if there is no such part.
    pub(super) fn part(self, key: &str) -> Option<Self> {
        let count = |count: u64| Self::int(count);
        match self {
            Self::Undefined => None,
            Self::Map(map) => Some(Self::or_undefined(map.get(key))),
            Self::Counts(counts) => counts.get(key).map_or(Some(Self::Undefined), |number| count(*number)),
            Self::Context(context) => match key {
                "__operational__" => Some(Self::Operational(&context.operational)),
                "__parent__" => None,
                _ => Some(Self::or_undefined(context.value(key))),
            },
            Self::Operational(operational) => match key {
                "signals" => Some(Self::Signals(&operational.signals)),
                "nodes" => Some(Self::Counts(&operational.nodes)),
                "node_tokens" => Some(Self::Counts(&operational.node_tokens)),
                "llm_calls" => count(operational.llm_calls),
                "tool_calls" => count(operational.tool_calls),
                "errors" => count(operational.errors),
                "tokens" => count(operational.tokens),
                _ => None,
            },
            _ => Some(Self::Undefined),
        }
    }

    /// Whether it is a mapping, which has the method `get`.
    pub(super) fn is_mapping(self) -> bool {
        matches!(
            self,
            Self::Map(_) | Self::Counts(_) | Self::Operational(_) | Self::Context(_)
        )
    }

    /// `len(self)`; of something undefined 0.
    pub(super) fn length(self) -> Option<usize> {
        match self {
            Self::Undefined => Some(0),
            Self::Text(text) if text.len() <= MAX_TEXT => Some(text.chars().count()),
            Self::List(items) => Some(items.len()),
            Self::Map(map) => Some(map.len()),
            Self::History(history) => Some(history.len()),
            Self::Signals(signals) => Some(signals.len()),
            Self::Counts(counts) => Some(counts.len()),
            _ => None,
        }
    }

    /// How often `item` is among the signals.
    pub(super) fn count(self, item: Self) -> Option<usize> {
        match (self, item) {
            (Self::Signals(signals), Self::Text(signal)) => Some(signals.count(signal)),
            (Self::Signals(_), item) if !item.is_container() => Some(0),
            _ => None,
        }
    }

    /// Whether it is true to `and`, `or`, `not` and `if`.
    pub(super) fn is_true(self) -> Option<bool> {
        match self {
            Self::Undefined | Self::Null => Some(false),
            Self::Bool(value) => Some(value),
            Self::Number(Num::Int(value)) => Some(value != 0),
            Self::Number(Num::Float(value)) => Some(value != 0.0),
            Self::Text(text) => Some(!text.is_empty()),
            _ => self.length().map(|length| length > 0),
        }
    }

    /// Whether it passes as the value of a condition: what counts is its text.
    pub(super) fn passes(self) -> bool {
        match self {
            Self::Undefined | Self::Null => false,
            Self::Bool(value) => value,
            Self::Number(Num::Int(value)) => value != 0,
            Self::Text(text) => is_passing(text),
            _ => true,
        }
    }

    /// One of Python's comparisons.
    pub(super) fn compare(self, operator: Operator, other: Self) -> Option<bool> {
        use Operator as O;
        Some(match operator {
            O::Equal => self.equals(other)?,
            O::NotEqual => !self.equals(other)?,
            O::In => other.contains(self)?,
            O::NotIn => !other.contains(self)?,
            O::Less => self.order(other)? == Some(Ordering::Less),
            O::LessOrEqual => matches!(self.order(other)?, Some(Ordering::Less | Ordering::Equal)),
            O::Greater => self.order(other)? == Some(Ordering::Greater),
            O::GreaterOrEqual => matches!(self.order(other)?, Some(Ordering::Greater | Ordering::Equal)),
        })
    }

    fn equals(self, other: Self) -> Option<bool> {
        if let (Some(a), Some(b)) = (self.number(), other.number()) {
            return Some(order_numbers(a, b) == Some(Ordering::Equal));
        }
        match (self, other) {
            (Self::Text(a), Self::Text(b)) if a.len() != b.len() => Some(false),
            (Self::Text(a), Self::Text(b)) => (a.len() <= MAX_TEXT).then(|| a == b),
            (Self::Null, Self::Null) | (Self::Undefined, Self::Undefined) => Some(true),
            (a, b) if a.is_container() && b.is_container() => None,
            _ => Some(false),
        }
    }

    /// The order of two numbers or texts; the inner `None`: one of the numbers is not a number.
    fn order(self, other: Self) -> Option<Option<Ordering>> {
        if let (Some(a), Some(b)) = (self.number(), other.number()) {
            return Some(order_numbers(a, b));
        }
        match (self, other) {
            (Self::Text(a), Self::Text(b)) if a.len().min(b.len()) <= MAX_TEXT => Some(Some(a.cmp(b))),
            _ => None,
        }
    }

    /// `item in self`
    fn contains(self, item: Self) -> Option<bool> {
        match (self, item) {
            (Self::Signals(signals), Self::Text(signal)) => Some(signals.contains(signal)),
            (Self::Signals(_), _) | (Self::Undefined, _) => Some(false),
            (Self::Text(text), Self::Text(part)) => (text.len() <= MAX_TEXT).then(|| text.contains(part)),
            (Self::Map(map), Self::Text(key)) if key.len() <= MAX_ITEM => Some(map.contains_key(key)),
            (Self::Counts(counts), Self::Text(key)) if key.len() <= MAX_ITEM => Some(counts.get(key).is_some()),
            (Self::List(items), item) if items.len() <= MAX_LIST => item.is_among(items.iter()),
            (Self::History(history), item) if history.len() <= MAX_LIST => item.is_among(history.iter()),
            _ => None,
        }
    }

    fn is_among<'d>(self, mut items: impl Iterator<Item = &'d Data>) -> Option<bool>
    where
        'a: 'd,
    {
        let is_long = matches!(self, Self::Text(text) if text.len() > MAX_ITEM);
        if self.is_container() || is_long {
            return None;
        }
        Some(items.any(|item| self.equals(Plain::of(item)) == Some(true)))
    }
}
