//! Shows what happens in a tree while it happens.

mod children;
mod described;
mod streams;

use std::collections::BTreeMap;
use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anstyle::Style;
use serde_json::json;
use soe_backends::{Event, EventKind, ExecutionId, RunId, Timestamp, TreeState};
use soe_core::config::Registry;
use soe_core::runtime::{StreamItem, TokenPiece, Tokens};

use crate::Shown;
use crate::output::{self, FAINT, brief, paint};
use children::Children;
use described::{called, described, is_shown_in_full};
use streams::{Line, Streams};

/// From when on a run is worth a line that says that it still runs.
const LONG: Duration = Duration::from_secs(2);

/// From when on it is worth a line that stays, where none at the end says so; then whenever twice the time has gone by.
const VERY_LONG: Duration = Duration::from_secs(30);

/// The columns before the text of a line.
const MARGIN: usize = 20;

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

/// The live log of a tree.
pub(crate) struct Log {
    mode: Mode,
    color: bool,
    /// Lines are the result of the command: they go to stdout.
    printed: bool,
    /// A line at the end of the terminal says what takes long.
    progress: bool,
    /// Such a line is there.
    shown: bool,
    /// Times are counted from here.
    start: Option<Timestamp>,
    /// The number of the next event.
    next: u64,
    running: BTreeMap<RunId, Running>,
    children: Children,
    streams: Streams,
    /// When the last line has last shown what an LLM says.
    streamed: Option<Instant>,
    /// The error that was shown last, in full, and the execution that had it.
    error: Option<(ExecutionId, String)>,
}

struct Running {
    what: String,
    since: Instant,
    /// After what time it is said next that it still runs.
    next: Duration,
}

impl Running {
    fn new(what: String) -> Self {
        Self {
            what,
            since: Instant::now(),
            next: VERY_LONG,
        }
    }
}

impl Log {
    pub(crate) fn new(mode: Mode, color: bool, shown: Shown, next: u64) -> Self {
        Self {
            mode,
            color,
            printed: false,
            progress: mode == Mode::Lines && stderr().is_terminal() && !shown.traces,
            shown: false,
            start: None,
            next,
            running: BTreeMap::new(),
            children: Children::new(shown.all),
            streams: Streams::default(),
            streamed: None,
            error: None,
        }
    }

    /// A log that is all that a command shows. Times count from `start`.
    pub(crate) fn printed(mode: Mode, color: bool, next: u64, start: Timestamp) -> Self {
        Self {
            printed: true,
            start: Some(start),
            ..Self::new(
                mode,
                color,
                Shown {
                    traces: true,
                    all: true,
                },
                next,
            )
        }
    }

    /// Takes note of who is in the tree.
    pub(crate) fn know(&mut self, tree: Arc<TreeState>, _: Option<Arc<Registry>>) {
        self.children.know(&tree);
    }

    /// Whether something has happened in a child that the log doesn't know.
    pub(crate) fn wants_names(&self) -> bool {
        self.mode == Mode::Lines && self.children.wants_names()
    }

    /// Shows how far the children are, where there are too many to show each.
    pub(crate) fn flush(&mut self) {
        if let Some(text) = self.children.progress() {
            self.line("", FAINT, "children", &text);
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
                    Mode::Json => output::print(&output::json_line(&json!({"missed": missed}))?)?,
                    _ => self.line("", FAINT, "missed", &format!("{missed} events")),
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Shows what an LLM says, as it arrives.
    pub(crate) fn tokens(&mut self, tokens: Tokens) -> anyhow::Result<()> {
        match (tokens, self.mode) {
            (Tokens::Piece(piece), Mode::Json) => output::print(&output::json_line(&as_event(&piece))?)?,
            (Tokens::Missed(missed), Mode::Json) => {
                output::print(&output::json_line(&json!({"missed_tokens": missed}))?)?;
            }
            (Tokens::Piece(piece), Mode::Lines) => {
                self.streams.push(&piece);
                self.show_streams();
                self.show_partial(&piece);
            }
            (Tokens::Missed(missed), Mode::Lines) => {
                self.line("", FAINT, "missed", &format!("{missed} pieces of what LLMs say"));
            }
            _ => {}
        }
        Ok(())
    }

    /// Shows the rest of what LLMs have said: nothing more comes.
    pub(crate) fn end(&mut self) {
        let rest = self.streams.end();
        self.said(rest);
        self.flush();
        self.clear();
    }

    /// Shows what takes long; to be called every now and then.
    pub(crate) fn tick(&mut self) {
        self.streams.announce_all();
        self.show_streams();
        if self.children.is_due() {
            self.flush();
        }
        if !self.progress {
            self.tell_very_long();
        }
        if self.streamed.is_some_and(|last| last.elapsed() < LONG) {
            return;
        }
        let long = |run: &&Running| run.since.elapsed() >= LONG;
        if !self.progress || !self.running.values().any(|run| long(&run)) {
            return;
        }
        let entry = |run: &Running| format!("{} ({})", run.what, run_time(run.since.elapsed()));
        let entries: Vec<String> = self.running.values().filter(long).map(entry).collect();
        let text = brief(&format!("running {}", entries.join(", ")), width().saturating_sub(4));
        self.last_line(&text);
    }

    /// Whether the log has the error behind an execution's failure in full.
    pub(crate) fn has_shown(&self, execution: &ExecutionId, failure: &str) -> bool {
        let is_it = |(of, error): &(ExecutionId, String)| {
            let within = of == execution || of.path_below(execution).is_some();
            within && !error.is_empty() && failure.contains(error.as_str())
        };
        self.mode == Mode::Lines && self.error.as_ref().is_some_and(is_it)
    }

    /// Prints a line of the command's own.
    pub(crate) fn note(&mut self, text: &str) {
        self.clear();
        output::eprint(&format!("{text}\n"));
    }

    /// Removes the last line, which isn't to stay.
    pub(crate) fn clear(&mut self) {
        self.streamed = None;
        if std::mem::take(&mut self.shown) {
            output::eprint("\r\x1b[2K");
        }
    }

    /// Shows an event.
    pub(crate) fn event(&mut self, event: &Event) -> anyhow::Result<()> {
        self.next = event.seq + 1;
        match self.mode {
            Mode::Json => output::print(&output::json_line(event)?)?,
            Mode::Lines => self.lines(event),
            Mode::Quiet => {}
        }
        Ok(())
    }

    fn lines(&mut self, event: &Event) {
        let kind = &event.kind;
        let run = |number: u64| RunId::new(event.execution.clone(), number);
        if let EventKind::LlmReply { run: number, call, .. } = kind {
            let rest = self.streams.end_of(&run(*number), *call);
            self.said(rest);
        }
        let start = *self.start.get_or_insert(event.time);
        let time = format!("{:9.3}", event.time.since(start).as_secs_f64());
        self.track(&event.execution, kind);
        let (label, is_shown) = self.children.take(event);
        let short = self.failure(&event.execution, kind);
        if let Some((style, word, text)) = described(kind).filter(|_| is_shown) {
            self.line(&time, style, word, &format!("{label}{}", short.unwrap_or(text)));
        }
        if let EventKind::LlmCall {
            node_name,
            run: number,
            call,
            ..
        } = kind
        {
            self.streams.announce(&run(*number), *call, node_name);
            self.show_streams();
        }
    }

    /// Says of what runs very long that it still runs.
    fn tell_very_long(&mut self) {
        let mut lines = Vec::new();
        for run in self.running.values_mut() {
            let elapsed = run.since.elapsed();
            if elapsed >= run.next {
                lines.push(format!("{} ({})", run.what, run_time(elapsed)));
                run.next = elapsed * 2;
            }
        }
        for line in lines {
            self.line("", FAINT, "waiting", &line);
        }
    }

    /// Keeps in mind the errors that are shown. Gives what is to be shown of an execution's failure if its cause is the
    /// error before.
    fn failure(&mut self, execution: &ExecutionId, kind: &EventKind) -> Option<String> {
        match kind {
            EventKind::NodeError { error, .. } => {
                self.error = is_shown_in_full(error).then(|| (execution.clone(), error.to_string()));
                None
            }
            EventKind::ExecutionFailed { error } => {
                let shown = self.error.as_ref().and_then(|(_, shown)| error.find(shown.as_str()));
                if let Some(at) = shown {
                    // What comes before it is the node.
                    return Some(output::safe(error[..at].trim_end_matches(": ")).into_owned());
                }
                self.error = is_shown_in_full(error).then(|| (execution.clone(), error.to_string()));
                None
            }
            _ => None,
        }
    }

    /// Shows the lines that LLMs have said as a whole.
    fn show_streams(&mut self) {
        let lines = self.streams.lines(width().saturating_sub(MARGIN));
        self.said(lines);
    }

    fn said(&mut self, lines: Vec<Line>) {
        for line in lines {
            self.line("", FAINT, "says", &line.to_string());
        }
    }

    /// Shows the line that has begun, as the last line of a terminal.
    fn show_partial(&mut self, piece: &TokenPiece) {
        let Some(line) = self.streams.partial(piece).filter(|_| self.progress) else {
            return;
        };
        let text = format!("{:<MARGIN$}{line}", "");
        self.last_line(&text.chars().take(width().saturating_sub(1)).collect::<String>());
        self.streamed = Some(Instant::now());
    }

    fn last_line(&mut self, text: &str) {
        self.shown = true;
        output::eprint(&format!("\r\x1b[2K{}", paint(self.color, FAINT, text)));
    }

    fn line(&mut self, time: &str, style: Style, word: &str, text: &str) {
        if self.mode == Mode::Lines {
            let time = paint(self.color, FAINT, format_args!("{time:>9}"));
            let word = paint(self.color, style, format_args!("{word:<8}"));
            let line = format!("{time}  {word} {text}");
            match self.printed {
                // Whether anybody reads it is seen when the next page is due.
                true => drop(output::print(&format!("{}\n", line.trim_end()))),
                false => self.note(line.trim_end()),
            }
        }
    }

    /// Keeps in mind what runs.
    fn track(&mut self, execution: &ExecutionId, kind: &EventKind) {
        let id = |run: u64| RunId::new(execution.clone(), run);
        match kind {
            EventKind::NodeExecution {
                node_name,
                run: Some(run),
                ..
            } => {
                self.running.insert(id(*run), Running::new(node_name.to_string()));
            }
            EventKind::ToolCall {
                node_name,
                tool_name,
                run,
            } => self.now(id(*run), called(node_name, tool_name)),
            EventKind::LlmCall { node_name, run, .. } => self.now(id(*run), called(node_name, "LLM")),
            EventKind::AgentToolCall {
                node_name,
                tool_name,
                run,
                ..
            } => self.now(id(*run), called(node_name, tool_name)),
            EventKind::NodeFinished { run, .. } => drop(self.running.remove(&id(*run))),
            EventKind::ExecutionRested {}
            | EventKind::ExecutionFailed { .. }
            | EventKind::ExecutionCancelled { .. } => {
                let within = |run: &RunId| run.execution == *execution || run.execution.path_below(execution).is_some();
                self.running.retain(|run, _| !within(run));
            }
            _ => {}
        }
    }

    /// A run does something else now.
    fn now(&mut self, run: RunId, what: String) {
        self.running.insert(run, Running::new(what));
    }
}

/// A piece of a reply in the form of events. It is none: it has no number and is stored nowhere.
fn as_event(piece: &TokenPiece) -> serde_json::Value {
    json!({
        "execution": piece.run.execution,
        "event": "llm_text",
        "data": {"node_name": piece.node, "run": piece.run.number, "call": piece.call, "text": piece.text},
    })
}

/// Whole seconds: the line isn't a stopwatch.
fn run_time(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..=59 => format!("{seconds} s"),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
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
