//! From parser events to a [`Tree`], within limits.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use indexmap::map::Entry as Slot;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::error::{YamlError, YamlErrorKind};
use super::scalar;
use super::tree::{Content, Entry, Mapping, Position, Step, Tree};
use super::{Document, DuplicateKey, YamlLimits};

/// Duplicate keys beyond this many are not remembered one by one.
const MAX_DUPLICATES: usize = 1_000;

/// A scalar counts as one more node for each of these bytes.
const BYTES_PER_NODE: usize = 256;

/// Reads the one document of `text`; `None` if there is none.
pub(super) fn load(text: &str, limits: &YamlLimits) -> Result<Option<Document>, YamlError> {
    if text.len() > limits.bytes {
        return Err(YamlError::new(YamlErrorKind::TooLarge(limits.bytes), None));
    }
    check_characters(text)?;
    let mut loader = Loader {
        parser: Parser::new_from_str(text),
        limits,
        anchors: HashMap::new(),
        nodes: 0,
        path: Vec::new(),
        duplicates: Vec::new(),
        unterminated_end: (!text.ends_with(['\n', '\r'])).then(|| text.chars().count()),
    };
    let mut root = None;
    loop {
        let (event, span) = loader.next()?;
        match event {
            Event::DocumentStart(_) if root.is_some() => {
                return Err(at(YamlErrorKind::SeveralDocuments, &span));
            }
            Event::DocumentStart(_) => {
                let (event, span) = loader.next()?;
                root = Some(loader.node(event, span, 0)?.tree);
            }
            Event::StreamEnd => break,
            _ => {}
        }
    }
    let duplicates = loader.duplicates;
    Ok(root.map(|root| Document { root, duplicates }))
}

struct Loader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    limits: &'t YamlLimits,
    /// Complete anchored nodes by the parser's number for them.
    anchors: HashMap<usize, Loaded>,
    nodes: usize,
    path: Vec<Step>,
    duplicates: Vec<DuplicateKey>,
    /// The number of characters of a text whose last line isn't ended.
    unterminated_end: Option<usize>,
}

/// A node, and what it costs to copy it.
#[derive(Clone)]
struct Loaded {
    tree: Tree,
    /// How many nodes it stands for.
    weight: usize,
    /// How many levels there are below it.
    height: usize,
}

impl<'t> Loader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), YamlError> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(self.syntax(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Loaded, YamlError> {
        if depth > self.limits.depth {
            return Err(at(YamlErrorKind::TooDeep(self.limits.depth), &span));
        }
        let (anchor, loaded) = match event {
            Event::Alias(id) => {
                let loaded = self.anchors.get(&id).cloned();
                let loaded = loaded.ok_or_else(|| at(YamlErrorKind::RecursiveAlias, &span))?;
                self.count(loaded.weight, &span)?;
                if depth + loaded.height > self.limits.depth {
                    return Err(at(YamlErrorKind::TooDeep(self.limits.depth), &span));
                }
                return Ok(loaded);
            }
            Event::Scalar(text, style, anchor, tag) => {
                (anchor, self.scalar(text, style, anchor > 0, tag.as_deref(), &span)?)
            }
            Event::SequenceStart(anchor, tag) => (anchor, self.sequence(tag.as_deref(), &span, depth)?),
            Event::MappingStart(anchor, tag) => (anchor, self.mapping(tag.as_deref(), &span, depth)?),
            _ => return Err(at(YamlErrorKind::Syntax("a value is expected".into()), &span)),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, loaded.clone());
        }
        Ok(loaded)
    }

    fn scalar(
        &mut self,
        text: Cow<'t, str>,
        style: ScalarStyle,
        is_anchored: bool,
        tag: Option<&Tag>,
        span: &Span,
    ) -> Result<Loaded, YamlError> {
        let weight = 1 + text.len() / BYTES_PER_NODE;
        self.count(weight, span)?;
        let block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
        let mut text = text.as_ref();
        // The parser ends the last line of a block even where the file doesn't; PyYAML doesn't.
        if block && self.unterminated_end.is_some_and(|end| span.end.index() >= end) {
            text = text.strip_suffix('\n').unwrap_or(text);
        }
        let position = position(&span.start);
        // The parser says where the block begins if it has an anchor or a tag, else where its first line with text is.
        let text_line = (style == ScalarStyle::Literal).then(|| {
            if is_anchored || tag.is_some() {
                return position.line.saturating_add(1);
            }
            let blank = text.bytes().take_while(|&b| b == b'\n').count();
            position.line.saturating_sub(u32::try_from(blank).unwrap_or(u32::MAX))
        });
        let content = match tag.filter(|tag| !is_non_specific(tag)) {
            Some(tag) => tagged(text, tag, span)?,
            None if style == ScalarStyle::Plain => scalar::resolve(text),
            None => Content::Text(text.into()),
        };
        let written = match &content {
            Content::Text(_) => None,
            _ => Some(text.into()),
        };
        let tree = Tree {
            content,
            position: Some(position),
            written,
            text_line,
        };
        Ok(Loaded {
            tree,
            weight,
            height: 0,
        })
    }

    fn sequence(&mut self, tag: Option<&Tag>, span: &Span, depth: usize) -> Result<Loaded, YamlError> {
        check_collection_tag(tag, &["seq"], "a list", span)?;
        self.count(1, span)?;
        let (mut weight, mut height): (usize, usize) = (1, 0);
        let mut items = Vec::new();
        loop {
            let (event, item_span) = self.next()?;
            if event == Event::SequenceEnd {
                break;
            }
            self.path.push(Step::Index(items.len()));
            let item = self.node(event, item_span, depth + 1)?;
            self.path.pop();
            weight = weight.saturating_add(item.weight);
            height = height.max(item.height + 1);
            items.push(item.tree);
        }
        Ok(Loaded {
            tree: collection(Content::List(items.into()), span),
            weight,
            height,
        })
    }

    fn mapping(&mut self, tag: Option<&Tag>, span: &Span, depth: usize) -> Result<Loaded, YamlError> {
        check_collection_tag(tag, &["map", "set"], "a mapping", span)?;
        self.count(1, span)?;
        let (mut weight, mut height): (usize, usize) = (1, 0);
        let mut own = Mapping::new();
        let mut merged = Mapping::new();
        loop {
            let (event, key_span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let key = self.key(event, key_span, depth)?;
            let (event, value_span) = self.next()?;
            self.path.push(Step::Key(key.clone()));
            let value = self.node(event, value_span, depth + 1)?;
            self.path.pop();
            weight = weight.saturating_add(value.weight).saturating_add(1);
            // What is merged ends up at this level, not below it.
            height = height.max(value.height + usize::from(!is_merge));
            if is_merge {
                merge(&mut merged, &value.tree, &value_span)?;
            } else {
                self.insert(&mut own, key, position(&key_span.start), value.tree);
            }
        }
        let entries = if merged.is_empty() {
            own
        } else {
            // A mapping's own keys win, at the place where the merged ones put them.
            merged.extend(own);
            merged
        };
        Ok(Loaded {
            tree: collection(Content::Map(Arc::new(entries)), span),
            weight,
            height,
        })
    }

    /// Keys are names: always the text as it is written.
    fn key(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Arc<str>, YamlError> {
        if matches!(event, Event::SequenceStart(..) | Event::MappingStart(..)) {
            return Err(at(YamlErrorKind::KeyNotScalar, &span));
        }
        let key = self.node(event, span, depth + 1)?.tree;
        match (key.content, key.written) {
            (Content::Text(text), _) | (_, Some(text)) => Ok(text),
            _ => Err(at(YamlErrorKind::KeyNotScalar, &span)),
        }
    }

    fn insert(&mut self, entries: &mut Mapping, key: Arc<str>, key_position: Position, value: Tree) {
        let entry = Entry {
            key_position: Some(key_position),
            value,
        };
        match entries.entry(key) {
            Slot::Vacant(slot) => {
                slot.insert(entry);
            }
            Slot::Occupied(mut slot) => {
                if self.duplicates.len() < MAX_DUPLICATES
                    && let Some(first) = slot.get().key_position
                {
                    self.duplicates.push(DuplicateKey {
                        key: slot.key().clone(),
                        first,
                        second: key_position,
                        path: self.path.clone(),
                    });
                }
                slot.insert(entry);
            }
        }
    }

    fn syntax(&self, error: &ScanError) -> YamlError {
        // The parser has a limit of its own on nested brackets, which it meets first on a single line.
        let kind = if error.info().contains("recursion limit") {
            YamlErrorKind::TooDeep(self.limits.depth)
        } else {
            YamlErrorKind::Syntax(error.info().to_owned())
        };
        YamlError::new(kind, position(error.marker()))
    }

    fn count(&mut self, weight: usize, span: &Span) -> Result<(), YamlError> {
        self.nodes = self.nodes.saturating_add(weight);
        if self.nodes > self.limits.nodes {
            return Err(at(YamlErrorKind::TooManyNodes(self.limits.nodes), span));
        }
        Ok(())
    }
}

/// Adds what a `<<` names. A later `<<` wins over an earlier one, in a list of mappings the first wins.
fn merge(merged: &mut Mapping, source: &Tree, span: &Span) -> Result<(), YamlError> {
    let not_mapping = || at(YamlErrorKind::MergeNotMapping, span);
    let mut add = |map: &Mapping| merged.extend(map.iter().map(|(key, entry)| (key.clone(), entry.clone())));
    match &source.content {
        Content::Map(map) => add(map),
        Content::List(items) => {
            for item in items.iter().rev() {
                add(item.as_map().ok_or_else(not_mapping)?);
            }
        }
        _ => return Err(not_mapping()),
    }
    Ok(())
}

fn tagged(text: &str, tag: &Tag, span: &Span) -> Result<Content, YamlError> {
    let content = match core_name(tag) {
        Some("str" | "timestamp") => Some(Content::Text(text.into())),
        Some("null") => Some(Content::Null),
        Some("bool") => scalar::boolean(&text.to_ascii_lowercase()).map(Content::Bool),
        Some("int") => scalar::integer(text),
        Some("float") => {
            let plain = || text.replace('_', "").parse::<f64>().ok();
            scalar::float(text).or_else(plain).map(Content::Float)
        }
        Some("seq" | "map" | "set") => None,
        _ => return Err(at(YamlErrorKind::UnsupportedTag(tag_text(tag)), span)),
    };
    content.ok_or_else(|| mismatch(tag, text, span))
}

fn check_collection_tag(tag: Option<&Tag>, allowed: &[&str], found: &str, span: &Span) -> Result<(), YamlError> {
    match tag {
        None => Ok(()),
        Some(tag) if is_non_specific(tag) => Ok(()),
        Some(tag) => match core_name(tag) {
            Some(name) if allowed.contains(&name) => Ok(()),
            Some("str" | "null" | "bool" | "int" | "float" | "timestamp" | "seq" | "map" | "set") => {
                Err(mismatch(tag, found, span))
            }
            _ => Err(at(YamlErrorKind::UnsupportedTag(tag_text(tag)), span)),
        },
    }
}

/// `!` alone, which leaves the resolution as it is.
fn is_non_specific(tag: &Tag) -> bool {
    (tag.handle.is_empty() && tag.suffix == "!") || (tag.handle == "!" && tag.suffix.is_empty())
}

fn core_name(tag: &Tag) -> Option<&str> {
    const CORE: &str = "tag:yaml.org,2002:";
    if tag.handle == CORE {
        Some(&tag.suffix)
    } else if tag.handle.is_empty() {
        tag.suffix.strip_prefix(CORE)
    } else {
        None
    }
}

fn tag_text(tag: &Tag) -> String {
    match core_name(tag) {
        Some(name) => format!("!!{name}"),
        None => format!("{}{}", tag.handle, tag.suffix),
    }
}

fn mismatch(tag: &Tag, value: &str, span: &Span) -> YamlError {
    let value = value.chars().take(80).collect();
    let tag = tag_text(tag);
    at(YamlErrorKind::TagMismatch { tag, value }, span)
}

fn collection(content: Content, span: &Span) -> Tree {
    Tree {
        content,
        position: Some(position(&span.start)),
        written: None,
        text_line: None,
    }
}

fn at(kind: YamlErrorKind, span: &Span) -> YamlError {
    YamlError::new(kind, position(&span.start))
}

fn position(marker: &Marker) -> Position {
    let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Position {
        line: narrow(marker.line().max(1)),
        column: narrow(marker.col().saturating_add(1)),
    }
}

/// The characters that PyYAML refuses: controls, and what is no character.
fn check_characters(text: &str) -> Result<(), YamlError> {
    let allowed = |(i, c): (usize, char)| match c {
        '\u{feff}' => i == 0,
        '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' => true,
        '\u{a0}'..='\u{fffd}' | '\u{10000}'.. => true,
        _ => false,
    };
    let Some((at, invalid)) = text.char_indices().find(|&found| !allowed(found)) else {
        return Ok(());
    };
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
    let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let position = Position {
        line: narrow(line),
        column: narrow(column),
    };
    Err(YamlError::new(YamlErrorKind::InvalidCharacter(invalid), position))
}
