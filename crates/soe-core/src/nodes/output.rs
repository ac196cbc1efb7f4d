//! What a custom node's run leaves behind.

use std::sync::Arc;

use soe_backends::Value;

/// What a custom node writes and emits. Its writes, the evaluation of its conditions and the broadcast of its signals are
/// one atomic event.
///
/// ```
/// use soe_core::nodes::{NodeOutput, Signals};
///
/// let output = NodeOutput::new().write("total", 3).emit("COUNTED");
/// assert_eq!(output.signals(), &Signals::Explicit(vec!["COUNTED".into()]));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeOutput {
    writes: Vec<(Arc<str>, Value)>,
    signals: Signals,
}

/// What a custom node emits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Signals {
    /// What its `event_emissions` say, conditions evaluated with the node's own writes in the context.
    #[default]
    Configured,
    /// These, as one batch, whatever its configuration says. May be none.
    Explicit(Vec<Arc<str>>),
}

impl NodeOutput {
    /// Writes nothing, and emits what the node's `event_emissions` say.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends `value` to the history of the context field `field`; several writes to a field are appended in order.
    ///
    /// Null is not written. A name that begins with `__` is reserved, and a value must not be [too
    /// deep](Value::is_too_deep): the engine lets the node's run fail.
    #[must_use]
    pub fn write(mut self, field: impl Into<Arc<str>>, value: impl Into<Value>) -> Self {
        self.writes.push((field.into(), value.into().bounded()));
        self
    }

    /// Emits `signal`, after those that were named before. From now on `event_emissions` doesn't count.
    #[must_use]
    pub fn emit(self, signal: impl Into<Arc<str>>) -> Self {
        self.emit_all([signal])
    }

    /// Emits `signals`, after those that were named before. From now on `event_emissions` doesn't count, also if
    /// `signals` is empty: then nothing is emitted.
    #[must_use]
    pub fn emit_all<S: Into<Arc<str>>>(mut self, signals: impl IntoIterator<Item = S>) -> Self {
        let signals = signals.into_iter().map(Into::into);
        match &mut self.signals {
            Signals::Explicit(all) => all.extend(signals),
            Signals::Configured => self.signals = Signals::Explicit(signals.collect()),
        }
        self
    }

    /// The values to write, in order.
    pub fn writes(&self) -> &[(Arc<str>, Value)] {
        &self.writes
    }

    /// The signals to emit.
    pub fn signals(&self) -> &Signals {
        &self.signals
    }

    /// The values to write and the signals to emit.
    pub fn into_parts(self) -> (Vec<(Arc<str>, Value)>, Signals) {
        (self.writes, self.signals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_named_signal_the_configuration_counts() {
        let output = NodeOutput::new().write("a", 1);
        assert_eq!(output.signals(), &Signals::Configured);
        assert_eq!(output.emit_all([""; 0]).signals(), &Signals::Explicit(Vec::new()));
    }

    #[test]
    fn writes_and_signals_keep_their_order() {
        let output = NodeOutput::new()
            .write("a", 1)
            .emit("X")
            .write("b", "t")
            .write("a", 2)
            .emit_all(["Y", "Z"]);
        let (writes, signals) = output.into_parts();
        let written: Vec<(&str, serde_json::Value)> = writes.iter().map(|(f, v)| (f.as_ref(), v.to_json())).collect();
        assert_eq!(written, [("a", 1.into()), ("b", "t".into()), ("a", 2.into())]);
        assert_eq!(signals, Signals::Explicit(vec!["X".into(), "Y".into(), "Z".into()]));
    }
}
