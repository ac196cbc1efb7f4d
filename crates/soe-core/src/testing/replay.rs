//! Replaying a recorded conversation.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::diff::{common, first_difference};
use super::recording::{FORMAT, Header, VERSION};
use super::{Exchange, RecordingError, lock};
use crate::llm::{Capabilities, LlmCaller, LlmError, LlmReply, LlmRequest};

/// An LLM that gives the replies of a recording. Cheap to clone; clones share what is used.
///
/// A request gets the reply of the first recorded exchange that is not used yet and is equal in node, stage, messages,
/// schema, tools and the recorded fields of the configuration. So the order in which parallel nodes ask doesn't matter. The
/// ids of tool calls and the request's key are not compared: they come from the execution's id. A request that equals no
/// exchange fails, and the error shows where it differs from the nearest one.
///
/// It has the capabilities of the recorded LLM, since the engine asks accordingly. Replies come at once, and their text as one
/// piece where text is wanted as it arrives.
#[derive(Clone)]
pub struct Player {
    shared: Arc<Shared>,
    with_latency: bool,
}

struct Shared {
    header: Header,
    exchanges: Vec<Exchange>,
    /// The exchanges of each conversation, oldest first.
    by_conversation: HashMap<String, Vec<usize>>,
    used: Mutex<Vec<bool>>,
}

impl Player {
    /// The player of a file that a [`Recorder`](super::Recorder) has written. An exchange at the end that was not written to
    /// its end, since the recorder was killed, is left out with a warning (`tracing`).
    ///
    /// # Errors
    /// The file can't be read, or is no recording.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RecordingError> {
        let path = path.as_ref();
        let text = std::fs::read(path).and_then(text_of);
        let text = text.map_err(|source| RecordingError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text)
    }

    /// The player of a recording as text. As with [`Player::open`], its last line may be cut off.
    ///
    /// # Errors
    /// The text is no recording.
    pub fn parse(text: &str) -> Result<Self, RecordingError> {
        let mut lines = without_cut_line(text).lines().enumerate();
        let header = header(lines.next().map_or("", |(_, line)| line))?;
        let exchanges = lines.filter(|(_, line)| !line.trim().is_empty());
        let exchanges: Result<Vec<Exchange>, _> = exchanges.map(|(i, line)| exchange(i + 1, line)).collect();
        let mut exchanges = exchanges?;
        exchanges.sort_by_key(|exchange| exchange.number);
        let mut by_conversation: HashMap<String, Vec<usize>> = HashMap::new();
        for (i, exchange) in exchanges.iter().enumerate() {
            by_conversation.entry(conversation(exchange)).or_default().push(i);
        }
        let used = Mutex::new(vec![false; exchanges.len()]);
        let shared = Shared {
            header,
            exchanges,
            by_conversation,
            used,
        };
        Ok(Self {
            shared: Arc::new(shared),
            with_latency: false,
        })
    }

    /// The same player, whose replies take as long as they took when they were recorded, in Tokio's time.
    #[must_use]
    pub fn with_latency(mut self) -> Self {
        self.with_latency = true;
        self
    }

    /// The exchanges that no request has asked for yet, in the order of their recording.
    pub fn unused(&self) -> Vec<Exchange> {
        let used = lock(&self.shared.used);
        let all = self.shared.exchanges.iter().zip(used.iter());
        all.filter(|(_, used)| !**used)
            .map(|(exchange, _)| exchange.clone())
            .collect()
    }

    /// Checks that the whole conversation was replayed.
    ///
    /// # Panics
    /// An exchange was not asked for. The message names all of them.
    #[track_caller]
    pub fn assert_finished(&self) {
        let unused = self.unused();
        let names: Vec<String> = unused.iter().map(shown).collect();
        assert!(
            unused.is_empty(),
            "recorded, but never asked for:\n  {}",
            names.join("\n  ")
        );
    }

    /// The exchange that a request asks for; it is used then.
    fn take(&self, asked: &Exchange) -> Result<&Exchange, String> {
        let candidates = self.shared.by_conversation.get(&conversation(asked));
        let mut used = lock(&self.shared.used);
        for &index in candidates.into_iter().flatten() {
            let exchange = &self.shared.exchanges[index];
            if !used[index] && same_rest(exchange, asked) {
                used[index] = true;
                return Ok(exchange);
            }
        }
        let used = used.clone();
        Err(self.difference(asked, &used))
    }

    fn difference(&self, asked: &Exchange, used: &[bool]) -> String {
        let title = format!(
            "the recording has no reply for the request of node '{}', stage {}",
            asked.node,
            asked.stage.as_str()
        );
        let text = asked.text();
        let of_node = self.shared.exchanges.iter().zip(used);
        let of_node = of_node.filter(|(exchange, _)| exchange.node == asked.node && exchange.stage == asked.stage);
        // The nearest text; of equal ones, the same request, then one that is not used yet, then the first.
        let nearest = of_node.max_by_key(|(exchange, used)| {
            let same = same_rest(exchange, asked);
            (common(&exchange.text(), &text), same, !**used, Reverse(exchange.number))
        });
        let Some((nearest, used)) = nearest else {
            return format!("{title}: it has none of that node and stage\n{}", self.summary());
        };
        let number = nearest.number;
        match differing(nearest, asked, &text) {
            Some(excerpt) => format!("{title}\n  the nearest exchange, number {number}, differs in {excerpt}"),
            None if *used => format!("{title}: it is equal to exchange {number}, which is used already"),
            None => format!("{title}: it differs from exchange {number} in the structure of its messages"),
        }
    }

    /// Which nodes and stages there are.
    fn summary(&self) -> String {
        let mut counts: indexmap::IndexMap<(&str, &str), usize> = indexmap::IndexMap::new();
        for exchange in &self.shared.exchanges {
            *counts.entry((&exchange.node, exchange.stage.as_str())).or_default() += 1;
        }
        let shown = counts.iter().take(20);
        let lines: Vec<String> = shown
            .map(|((node, stage), n)| format!("  it has {n} of node '{node}', stage {stage}"))
            .collect();
        lines.join("\n")
    }
}

#[async_trait]
impl LlmCaller for Player {
    /// # Errors
    /// The recorded error; or the request was not recorded.
    async fn call(&self, request: LlmRequest) -> Result<LlmReply, LlmError> {
        let asked = Exchange::of(&request, &self.shared.header.config_fields).numbered();
        let exchange = self.take(&asked).map_err(LlmError::new)?;
        if self.with_latency && exchange.elapsed_ms > 0 {
            tokio::time::sleep(Duration::from_millis(exchange.elapsed_ms)).await;
        }
        match (&exchange.reply, &exchange.error) {
            (Some(reply), _) => {
                if !reply.text.is_empty() {
                    request.tokens.send(&reply.text);
                }
                Ok(reply.clone())
            }
            (None, Some(error)) => Err(error.to_error()),
            (None, None) => Err(LlmError::new("the recorded exchange has neither a reply nor an error")),
        }
    }

    fn capabilities(&self) -> Capabilities {
        self.shared.header.capabilities()
    }
}

impl fmt::Debug for Player {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exchanges = self.shared.exchanges.len();
        f.debug_struct("Player")
            .field("exchanges", &exchanges)
            .finish_non_exhaustive()
    }
}

/// The text, whose last character may be cut off.
fn text_of(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).or_else(|error| {
        let problem = error.utf8_error();
        let mut bytes = error.into_bytes();
        if problem.error_len().is_some() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        bytes.truncate(problem.valid_up_to());
        String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    })
}

/// The text without an exchange that was not written to its end: each line ends with a line break, and is JSON.
fn without_cut_line(text: &str) -> &str {
    let end = text.rfind('\n').map_or(0, |at| at + 1);
    let (whole, last) = text.split_at(end);
    let cut = !whole.is_empty()
        && serde_json::from_str::<serde::de::IgnoredAny>(last)
            .is_err_and(|error| error.is_eof() && !last.trim().is_empty());
    if !cut {
        return text;
    }
    tracing::warn!(
        line = whole.lines().count() + 1,
        "the last exchange of the recording was not written to its end, and is left out"
    );
    whole
}

fn header(line: &str) -> Result<Header, RecordingError> {
    // A byte order mark is what some editors add.
    let line = line.trim_start_matches('\u{feff}');
    let value: serde_json::Value = serde_json::from_str(line)
        .map_err(|error| RecordingError::Header(format!("its first line is no JSON: {error}")))?;
    if value["format"] != FORMAT {
        return Err(RecordingError::Header(format!(
            "its first line has no \"format\": \"{FORMAT}\""
        )));
    }
    if value["version"] != VERSION {
        let message = format!(
            "it is of version {}, and this program reads version {VERSION}",
            value["version"]
        );
        return Err(RecordingError::Header(message));
    }
    serde_json::from_value(value).map_err(|error| RecordingError::Header(error.to_string()))
}

fn exchange(line: usize, text: &str) -> Result<Exchange, RecordingError> {
    let problem = |problem: String| RecordingError::Line { line, problem };
    let exchange: Exchange = serde_json::from_str(text).map_err(|error| problem(error.to_string()))?;
    if exchange.reply.is_some() == exchange.error.is_some() {
        return Err(problem("it needs either a reply or an error".to_owned()));
    }
    Ok(exchange.numbered())
}

/// What exchanges are looked up by.
fn conversation(exchange: &Exchange) -> String {
    let messages = serde_json::to_string(&exchange.messages).unwrap_or_default();
    format!("{}\0{}\0{messages}", exchange.node, exchange.stage.as_str())
}

/// Whether two exchanges of the same conversation were asked alike.
fn same_rest(a: &Exchange, b: &Exchange) -> bool {
    a.schema == b.schema && a.tools == b.tools && a.config == b.config
}

/// The first part in which they differ, and where.
fn differing(recorded: &Exchange, asked: &Exchange, text: &str) -> Option<String> {
    let pretty = |value: Result<String, serde_json::Error>| value.unwrap_or_default();
    let parts = |exchange: &Exchange| {
        [
            ("its schema", pretty(serde_json::to_string_pretty(&exchange.schema))),
            ("its tools", pretty(serde_json::to_string_pretty(&exchange.tools))),
            (
                "its configuration",
                pretty(serde_json::to_string_pretty(&exchange.config)),
            ),
        ]
    };
    if let Some(excerpt) = first_difference(&recorded.text(), text) {
        return Some(format!("its text:\n{excerpt}"));
    }
    // Parts that differ in the order of keys only are equal.
    let equal = [
        recorded.schema == asked.schema,
        recorded.tools == asked.tools,
        recorded.config == asked.config,
    ];
    let both = parts(recorded).into_iter().zip(parts(asked)).zip(equal);
    both.filter(|(_, equal)| !equal)
        .find_map(|(((name, recorded), (_, asked)), _)| {
            Some(format!("{name}:\n{}", first_difference(&recorded, &asked)?))
        })
}

fn shown(exchange: &Exchange) -> String {
    let (number, node, stage) = (exchange.number, &exchange.node, exchange.stage.as_str());
    format!(
        "number {number}: node '{node}', stage {stage}: {}",
        super::names::head(&exchange.text(), 80)
    )
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
