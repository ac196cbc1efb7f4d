//! What a command expects of an execution beyond that it rests: for CI and cron.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use soe_backends::{EventKind, TreeState};
use soe_core::runtime::Engine;

use crate::output::{self, ERROR, paint, safe};
use crate::waits::Waits;

/// Events are read in pages of this size.
const PAGE: usize = 1_000;

/// When the exit code is 1 though the execution rests.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Expectations {
    /// Exit with 1 unless this signal was broadcast in the root; several are possible
    #[arg(id = "expected", long = "expect", value_name = "SIGNAL", value_parser = crate::args::non_empty)]
    signals: Vec<String>,

    /// Exit with 1 after what is named here: a warning, an attempt that has failed for good, or an execution that waits for a
    /// signal at the end; several, or with commas between them
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    fail_on: Vec<FailOn>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// A warning, in the root or in a child
    Warning,
    /// A tool, an LLM or a node that has failed for good, whether a failure signal was heard or not
    ToolError,
    /// Something in the tree waits for a signal from outside
    Waiting,
}

impl Expectations {
    /// Says on stderr what is not as expected, of the events from number `from` on. Gives whether all is.
    ///
    /// # Errors
    /// The stored events can't be read.
    pub(crate) async fn are_met(
        &self,
        engine: &Engine,
        tree: &TreeState,
        waits: &Waits,
        from: u64,
        color: bool,
    ) -> anyhow::Result<bool> {
        let mut met = true;
        let mut say = |text: String| {
            met = false;
            output::eprint(&format!("{}: {}: {text}\n", paint(color, ERROR, "error"), tree.root));
        };
        let sent = |signal: &str| {
            let root = tree.root_state();
            root.is_some_and(|root| root.context.operational.signals.contains(signal))
        };
        for signal in self.signals.iter().filter(|signal| !sent(signal)) {
            say(format!("{} was not broadcast (--expect)", safe(signal)));
        }
        let counted = self.count(engine, tree, from).await?;
        if self.has(FailOn::Warning) && counted.warnings > 0 {
            say(format!(
                "{} (--fail-on warning)",
                output::count(counted.warnings, "warning")
            ));
        }
        if self.has(FailOn::ToolError) && counted.errors > 0 {
            say(format!(
                "{} (--fail-on tool-error)",
                output::count(counted.errors, "error")
            ));
        }
        if self.has(FailOn::Waiting)
            && let Some(first) = waits.waiting.first()
        {
            let names: Vec<String> = first
                .signals
                .iter()
                .map(|name: &Arc<str>| safe(name).into_owned())
                .collect();
            let (names, id) = (output::alternatives(&names), &first.execution);
            say(match waits.count {
                1 => format!("{id} waits for {names} (--fail-on waiting)"),
                count => format!("{count} executions wait, {id} for {names} (--fail-on waiting)"),
            });
        }
        Ok(met)
    }

    fn has(&self, what: FailOn) -> bool {
        self.fail_on.contains(&what)
    }

    async fn count(&self, engine: &Engine, tree: &TreeState, mut from: u64) -> anyhow::Result<Counted> {
        let mut counted = Counted::default();
        if !self.has(FailOn::Warning) && !self.has(FailOn::ToolError) {
            return Ok(counted);
        }
        loop {
            let events = engine.tree_telemetry(&tree.root, from, PAGE).await?;
            let Some(last) = events.last() else { return Ok(counted) };
            from = last.seq.saturating_add(1);
            events.iter().for_each(|event| counted.add(&event.kind));
        }
    }
}

#[derive(Default)]
struct Counted {
    warnings: u64,
    errors: u64,
}

impl Counted {
    fn add(&mut self, event: &EventKind) {
        match event {
            EventKind::ContextWarning { .. }
            | EventKind::PolicyDenied { .. }
            | EventKind::AgentToolNotFound { .. }
            | EventKind::ChildFailed { .. } => self.warnings += 1,
            EventKind::NodeError {
                retry_attempt: None, ..
            } => self.errors += 1,
            _ => {}
        }
    }
}
