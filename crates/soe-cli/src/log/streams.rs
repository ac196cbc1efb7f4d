//! What LLMs say as it arrives, cut into lines: several may talk at the same time.

use std::fmt;
use std::sync::Arc;

use soe_backends::RunId;
use soe_core::runtime::TokenPiece;

use crate::output::safe;

/// The fewest characters of a line, however narrow the terminal is.
const NARROW: usize = 20;

/// The replies that are on their way.
#[derive(Default)]
pub(super) struct Streams(Vec<Reply>);

struct Reply {
    run: RunId,
    call: u32,
    node: Arc<str>,
    /// What is not shown yet.
    text: String,
    /// The log has said that the LLM was asked. Before that nothing is shown: events and text come on different ways.
    announced: bool,
}

/// A line of what an LLM says to a node.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    node: Arc<str>,
    text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", safe(&self.node), safe(&self.text))
    }
}

impl Streams {
    /// Takes a piece of text.
    pub(super) fn push(&mut self, piece: &TokenPiece) {
        let index = self.find(&piece.run, piece.call).unwrap_or_else(|| {
            self.0.push(Reply {
                run: piece.run.clone(),
                call: piece.call,
                node: piece.node.clone(),
                text: String::new(),
                announced: false,
            });
            self.0.len() - 1
        });
        self.0[index].text.push_str(&piece.text);
    }

    /// The log has said that the LLM was asked.
    pub(super) fn announce(&mut self, run: &RunId, call: u32, node: &Arc<str>) {
        match self.find(run, call) {
            Some(index) => self.0[index].announced = true,
            None => self.0.push(Reply {
                run: run.clone(),
                call,
                node: node.clone(),
                text: String::new(),
                announced: true,
            }),
        }
    }

    /// Whatever is there may be shown, even if the event was missed.
    pub(super) fn announce_all(&mut self) {
        self.0.iter_mut().for_each(|reply| reply.announced = true);
    }

    /// The lines that are complete, or longer than `width` with the node's name before them.
    pub(super) fn lines(&mut self, width: usize) -> Vec<Line> {
        let announced = self.0.iter_mut().filter(|reply| reply.announced);
        announced.flat_map(|reply| reply.lines(width)).collect()
    }

    /// The line that a piece has begun or gone on with.
    pub(super) fn partial(&self, piece: &TokenPiece) -> Option<Line> {
        let reply = &self.0[self.find(&piece.run, piece.call)?];
        (reply.announced && !reply.text.trim().is_empty()).then(|| reply.line(&reply.text))
    }

    /// The rest of a reply that is complete.
    pub(super) fn end_of(&mut self, run: &RunId, call: u32) -> Vec<Line> {
        let reply = self.find(run, call).map(|index| self.0.remove(index));
        reply.map_or_else(Vec::new, Reply::rest)
    }

    /// The rest of all replies.
    pub(super) fn end(&mut self) -> Vec<Line> {
        self.0.drain(..).flat_map(Reply::rest).collect()
    }

    fn find(&self, run: &RunId, call: u32) -> Option<usize> {
        self.0.iter().position(|reply| reply.call == call && reply.run == *run)
    }
}

impl Reply {
    fn lines(&mut self, width: usize) -> Vec<Line> {
        let width = width.saturating_sub(self.node.chars().count() + 2).max(NARROW);
        let (mut lines, mut from) = (Vec::new(), 0);
        while let Some(length) = line_length(&self.text[from..], width) {
            lines.push(self.line(&self.text[from..from + length]));
            from += length;
        }
        self.text.drain(..from);
        lines.retain(|line| !line.text.is_empty());
        lines
    }

    fn rest(mut self) -> Vec<Line> {
        let mut lines = self.lines(usize::MAX);
        lines.push(self.line(&self.text));
        lines.retain(|line| !line.text.is_empty());
        lines
    }

    fn line(&self, text: &str) -> Line {
        let (node, text) = (self.node.clone(), text.trim_end().to_owned());
        Line { node, text }
    }
}

/// The bytes of the first line, with what ends it; `None` if it isn't complete. A long one ends behind a space.
fn line_length(text: &str, width: usize) -> Option<usize> {
    let (mut space, mut chars) = (None, 0);
    for (at, c) in text.char_indices() {
        let end = at + c.len_utf8();
        if c == '\n' {
            return Some(end);
        }
        if chars == width {
            return Some(space.unwrap_or(at));
        }
        chars += 1;
        if c == ' ' {
            space = Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_they_end_or_behind_a_space() {
        let cut = |text: &str| {
            let length = line_length(text, 8)?;
            Some(text[..length].to_owned())
        };
        assert_eq!(cut("short"), None);
        assert_eq!(cut("a\nb"), Some("a\n".to_owned()));
        assert_eq!(cut("one two three"), Some("one two ".to_owned()));
        assert_eq!(cut("größergrößer"), Some("größergr".to_owned()));
    }
}
