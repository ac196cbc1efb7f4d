//! Shows what happens in an execution while it happens.

use std::collections::BTreeMap;
use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anstyle::Style;
use soe_backends::{Event, EventKind, ExecutionEvent, Timestamp};
use soe_core::runtime::StreamItem;

use crate::output::{self, ERROR, FAINT, GOOD, SIGNAL, WARNING, brief, paint, safe, seconds};

/// From when on a run is worth a line that says that it still runs.
const LONG: Duration = Duration::from_secs(2);

/// The most of an error's text that is shown in the log.
const MAX_MESSAGE: usize = 2_000;

/// How events are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Lines for people, on stderr.
    Lines,
    /// JSON lines, on stdout.
    Json,
    /// Not at all.
    Quiet,
}

/// The live log of an execution.
pub(crate) struct Log {
    mode: Mode,
    color: bool,
    /// A line at the end of the terminal says what takes long.
    progress: bool,
    /// Such a line is there.
    shown: bool,
    /// Times are counted from here.
    start: Option<Timestamp>,
    /// The number of the next event.
    next: u64,
    running: BTreeMap<u64, Running>,
}

struct Running {
    what: String,
    since: Instant,
}

impl Log {
    /// `traces` says that others write to stderr too.
    pub(crate) fn new(mode: Mode, color: bool, traces: bool, next: u64) -> Self {
        Self {
            mode,
            color,
            progress: mode == Mode::Lines && stderr().is_terminal() && !traces,
            shown: false,
            start: None,
            next,
            running: BTreeMap::new(),
        }
    }

    /// The number of the event that comes next.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Shows what a stream of events gives.
    pub(crate) fn item(&mut self, item: StreamItem) -> anyhow::Result<()> {
        match item {
            StreamItem::Event(event) => self.event(&event),
            StreamItem::Missed(missed) => {
                self.next += missed;
                match self.mode {
                    Mode::Json => output::print(&output::json_line(&serde_json::json!({"missed": missed}))?)?,
                    _ => self.line("", FAINT, "missed", &format!("{missed} events")),
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Shows what takes long; to be called every now and then.
    pub(crate) fn tick(&mut self) {
        let long = |run: &&Running| run.since.elapsed() >= LONG;
        if !self.progress || !self.running.values().any(|run| long(&run)) {
            return;
        }
        let entry = |run: &Running| format!("{} ({})", run.what, seconds(round(run.since.elapsed())));
        let entries: Vec<String> = self.running.values().filter(long).map(entry).collect();
        let text = brief(&format!("running {}", entries.join(", ")), width().saturating_sub(4));
        self.shown = true;
        output::eprint(&format!("\r\x1b[2K{}", paint(self.color, FAINT, text)));
    }

    /// Prints a line of the command's own.
    pub(crate) fn note(&mut self, text: &str) {
        self.clear();
        output::eprint(&format!("{text}\n"));
    }

    /// Removes the line about what takes long.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            output::eprint("\r\x1b[2K");
        }
    }

    fn event(&mut self, event: &ExecutionEvent) -> anyhow::Result<()> {
        self.next = event.event.seq + 1;
        match self.mode {
            Mode::Json => output::print(&output::json_line(event)?)?,
            Mode::Lines => self.lines(&event.event),
            Mode::Quiet => {}
        }
        Ok(())
    }

    fn lines(&mut self, event: &Event) {
        let start = *self.start.get_or_insert(event.time);
        let time = format!("{:9.3}", event.time.since(start).as_secs_f64());
        self.track(&event.kind);
        let Some((style, word, text)) = described(&event.kind) else {
            return;
        };
        self.line(&time, style, word, &text);
    }

    fn line(&mut self, time: &str, style: Style, word: &str, text: &str) {
        if self.mode == Mode::Lines {
            let time = paint(self.color, FAINT, format_args!("{time:>9}"));
            let word = paint(self.color, style, format_args!("{word:<8}"));
            self.note(format!("{time}  {word} {text}").trim_end());
        }
    }

    /// Keeps in mind what runs.
    fn track(&mut self, kind: &EventKind) {
        match kind {
            EventKind::NodeExecution {
                node_name,
                run: Some(run),
                ..
            } => {
                let what = node_name.to_string();
                let since = Instant::now();
                self.running.insert(*run, Running { what, since });
            }
            EventKind::ToolCall {
                node_name,
                tool_name,
                run,
            } => {
                let what = called(node_name, tool_name);
                let since = Instant::now();
                let running = self.running.entry(*run).or_insert(Running {
                    what: String::new(),
                    since,
                });
                running.what = what;
            }
            EventKind::NodeFinished { run, .. } => drop(self.running.remove(run)),
            EventKind::ExecutionRested {}
            | EventKind::ExecutionFailed { .. }
            | EventKind::ExecutionCancelled { .. } => {
                self.running.clear();
            }
            _ => {}
        }
    }
}

/// How an event is shown: the style of its word, the word, the text. Not all are.
fn described(kind: &EventKind) -> Option<(Style, &'static str, String)> {
    Some(match kind {
        EventKind::OrchestrationStart { workflow_name } => {
            (FAINT, "start", format!("workflow {}", safe(workflow_name)))
        }
        EventKind::SignalsBroadcast { signals } => (SIGNAL, "signal", names(signals)),
        EventKind::NodeExecution {
            node_name,
            node_type,
            run,
        } => match (run, node_type.as_ref()) {
            (None, _) => (FAINT, "route", safe(node_name).into_owned()),
            // The call of the tool follows.
            (Some(_), "tool") => return None,
            (Some(_), other) => (Style::new(), "run", format!("{} ({})", safe(node_name), safe(other))),
        },
        EventKind::ToolCall {
            node_name, tool_name, ..
        } => (Style::new(), "call", called(node_name, tool_name)),
        EventKind::NodeError {
            node_name,
            error,
            retry_attempt,
            ..
        } => {
            let next = retry_attempt.map_or_else(String::new, |attempt| format!("; trying again, attempt {attempt}"));
            let style = if retry_attempt.is_some() { WARNING } else { ERROR };
            let text = format!("{}: {}{next}", safe(node_name), brief(error, MAX_MESSAGE));
            (style, "error", text)
        }
        EventKind::NodeFinished {
            node_name, duration_us, ..
        } => {
            let duration = seconds(Duration::from_micros(*duration_us));
            (FAINT, "finished", format!("{} after {duration}", safe(node_name)))
        }
        EventKind::ContextUpdated { field, length } => {
            let count = if *length == 1 {
                String::new()
            } else {
                format!(" ({length} values)")
            };
            (Style::new(), "context", format!("{}{count}", safe(field)))
        }
        EventKind::ContextWarning { node_name, message } => {
            let text = format!("{}: {}", safe(node_name), brief(message, MAX_MESSAGE));
            (WARNING, "warning", text)
        }
        EventKind::CompletionDiscarded { run, status } => (
            FAINT,
            "dropped",
            format!("the result of run {run}: the execution is {status}"),
        ),
        EventKind::ExecutionRested {} => (GOOD, "rested", String::new()),
        EventKind::ExecutionFailed { error } => (ERROR, "failed", brief(error, MAX_MESSAGE)),
        EventKind::ExecutionCancelled { aborted_runs } => {
            let stopped = match aborted_runs {
                0 => String::new(),
                1 => "one run was stopped".to_owned(),
                runs => format!("{runs} runs were stopped"),
            };
            (WARNING, "cancelled", stopped)
        }
        other => (FAINT, "event", other.name().replace('_', " ")),
    })
}

fn called(node: &str, tool: &str) -> String {
    match node == tool {
        true => safe(node).into_owned(),
        false => format!("{}: {}", safe(node), safe(tool)),
    }
}

fn names(signals: &[Arc<str>]) -> String {
    let names: Vec<_> = signals.iter().map(|signal| safe(signal)).collect();
    names.join(", ")
}

/// Whole seconds: the line isn't a stopwatch.
fn round(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}

/// The columns of the terminal.
fn width() -> usize {
    #[cfg(unix)]
    if let Ok(size) = rustix::termios::tcgetwinsize(stderr())
        && size.ws_col > 20
    {
        return size.ws_col.into();
    }
    80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(kind: EventKind) -> String {
        let (_, word, text) = described(&kind).unwrap();
        format!("{word} {text}")
    }

    #[test]
    fn events_are_words() {
        let error = |retry_attempt| EventKind::NodeError {
            node_name: "Fetch".into(),
            run: 1,
            error: "it\nbroke \u{1b}[2J".into(),
            retry_attempt,
        };
        assert_eq!(
            shown(error(Some(2))),
            "error Fetch: it broke \\u{1b}[2J; trying again, attempt 2"
        );
        assert_eq!(shown(error(None)), "error Fetch: it broke \\u{1b}[2J");
        let signals = ["A".into(), "B".into()].into();
        assert_eq!(shown(EventKind::SignalsBroadcast { signals }), "signal A, B");
        let updated = |length| EventKind::ContextUpdated {
            field: "page".into(),
            length,
        };
        assert_eq!(shown(updated(1)), "context page");
        assert_eq!(shown(updated(3)), "context page (3 values)");
    }
}
