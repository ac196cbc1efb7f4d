//! Where in a YAML text a value is written.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, Span};
use soe_core::config::Position;

/// The positions of keys and list items by their path, `tools.fetch.command[0]`. Those inside aliases are unknown.
#[derive(Debug, Default)]
pub(crate) struct Positions(HashMap<String, Position>);

/// Deeper values have no positions; a text that nests this deep is refused where it is read.
const MAX_DEPTH: usize = 64;

impl Positions {
    /// Those of a text; of one that isn't YAML, those before the mistake.
    pub(crate) fn of(text: &str) -> Self {
        let mut positions = Self::default();
        // What is open, instead of recursion: the text is anybody's.
        let mut open: Vec<Open> = Vec::new();
        for (event, span) in Parser::new_from_str(text).map_while(Result::ok) {
            let begins = matches!(event, Event::MappingStart(..) | Event::SequenceStart(..));
            match event {
                Event::MappingEnd | Event::SequenceEnd => {
                    open.pop();
                    continue;
                }
                Event::Scalar(..) | Event::Alias(_) => {}
                _ if begins => {}
                _ => continue,
            }
            let path = match open.last_mut() {
                None => Some(String::new()),
                Some(parent) => parent.enter(&event),
            };
            match (&path, open.last()) {
                (Some(path), Some(parent)) if parent.is_list => positions.insert(path.clone(), &span),
                (None, Some(parent)) if !begins => positions.insert(parent.key_path(), &span),
                // A key that is a list or a mapping: it is refused where the text is read.
                (None, _) => break,
                (Some(_), _) => {}
            }
            if begins && open.len() >= MAX_DEPTH {
                break;
            }
            if begins {
                open.push(Open::new(&event, path.unwrap_or_default()));
            }
        }
        positions
    }

    /// Of the value at `path`, or of the closest one around it.
    pub(crate) fn get(&self, path: &str) -> Option<Position> {
        let mut path = path;
        loop {
            if let Some(position) = self.0.get(path) {
                return Some(*position);
            }
            let end = path.rfind(['.', '['])?;
            path = &path[..end];
        }
    }

    fn insert(&mut self, path: String, span: &Span) {
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let position = Position {
            line: number(span.start.line()),
            column: number(span.start.col() + 1),
        };
        self.0.entry(path).or_insert(position);
    }
}

/// A list or a mapping that is not at its end.
struct Open {
    path: String,
    is_list: bool,
    items: usize,
    key: Option<String>,
}

impl Open {
    fn new(event: &Event<'_>, path: String) -> Self {
        let is_list = matches!(event, Event::SequenceStart(..));
        Self {
            path,
            is_list,
            items: 0,
            key: None,
        }
    }

    /// The path of the value that begins with `event`; `None` if it is a key, which is kept.
    fn enter(&mut self, event: &Event<'_>) -> Option<String> {
        if self.is_list {
            self.items += 1;
            return Some(format!("{}[{}]", self.path, self.items - 1));
        }
        match self.key.take() {
            Some(key) => Some(join(&self.path, &key)),
            None => {
                self.key = Some(match event {
                    Event::Scalar(text, ..) => text.to_string(),
                    _ => String::new(),
                });
                None
            }
        }
    }

    fn key_path(&self) -> String {
        join(&self.path, self.key.as_deref().unwrap_or_default())
    }
}

/// The path of an entry.
pub(super) fn join(path: &str, key: &str) -> String {
    match path.is_empty() {
        true => key.to_owned(),
        false => format!("{path}.{key}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_items_are_found() {
        let positions = Positions::of("tools:\n  fetch:\n    command: [curl, '{url}']\n    env:\n      A: 1\n");
        let at = |path| positions.get(path).map(|p| (p.line, p.column));
        assert_eq!(at("tools"), Some((1, 1)));
        assert_eq!(at("tools.fetch.command"), Some((3, 5)));
        assert_eq!(at("tools.fetch.command[1]"), Some((3, 21)));
        assert_eq!(at("tools.fetch.env.A"), Some((5, 7)));
        assert_eq!(at("tools.fetch.timeout"), Some((2, 3)), "the closest one around it");
        assert_eq!(at("other"), None);
    }

    #[test]
    fn texts_that_are_no_yaml_do_no_harm() {
        for text in ["", "a", "[", "a: [1, {b: ", "? [a]\n: 1\n", &"[".repeat(10_000)] {
            let _ = Positions::of(text).get("a");
        }
    }
}
