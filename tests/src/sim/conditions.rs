//! Conditions, as the model evaluates them.

use soe_backends::Value;

use super::flow::{Cond, Name, Node};
use super::model::Model;

impl Model<'_> {
    /// The signals whose conditions pass.
    pub(super) fn passing(&mut self, node: &Node, result: Option<&Value>) -> Vec<Name> {
        self.warnings += node
            .emissions
            .iter()
            .filter(|(_, cond)| matches!(cond, Cond::Broken))
            .count() as u64;
        let passed = node.emissions.iter().filter(|(_, cond)| self.passes(cond, result));
        passed.map(|(signal, _)| signal.clone()).collect()
    }

    fn passes(&self, cond: &Cond, result: Option<&Value>) -> bool {
        let length = |field: &Name| self.fields.get(field).map_or(0, Vec::len);
        match cond {
            Cond::Always | Cond::PlainText => true,
            Cond::Never | Cond::Broken => false,
            Cond::SameCount(a, b) => self.accumulated(a) == self.accumulated(b),
            Cond::Count(field, count) => length(field) == *count,
            Cond::Fewer(field, count) => length(field) < *count,
            Cond::Seen(signals) => signals.iter().all(|signal| self.signals.contains(signal)),
            // As in Python: true is 1, and 1.0 too.
            Cond::Result(number) => match result {
                Some(Value::Bool(result)) => i64::from(*result) == *number,
                Some(result) => result.as_f64() == Some(*number as f64),
                None => false,
            },
        }
    }

    /// How many items `accumulated` gives: a single value that is a list counts as its items.
    fn accumulated(&self, field: &Name) -> usize {
        match self.fields.get(field).map(Vec::as_slice) {
            Some([Value::List(items)]) => items.len(),
            Some(history) => history.len(),
            None => 0,
        }
    }
}
