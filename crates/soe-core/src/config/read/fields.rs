//! Reading single fields of a node.

use std::sync::Arc;

use indexmap::IndexMap;

use super::Known;
use super::suspicious::{check_boolean_like, check_shadowing};
use crate::config::codes::{Code, INVALID_VALUE, MISSING_FIELD, RESERVED_NAME, TEMPLATE_ERROR};
use crate::config::diagnostic::{Diagnostic, Problems};
use crate::config::yaml::{Content, Mapping, Tree};
use crate::config::{Parameter, Position};
use crate::template::Template;

/// A node that is being read.
pub(super) struct NodeReader<'a> {
    pub(super) problems: &'a mut Problems,
    pub(super) known: Known<'a>,
    pub(super) workflow: &'a str,
    pub(super) node: &'a str,
    pub(super) fields: &'a Mapping,
    /// Where the node's name is.
    pub(super) position: Option<Position>,
}

impl<'a> NodeReader<'a> {
    /// Reports a problem of this node.
    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        let diagnostic = diagnostic.workflow(self.workflow).node(self.node);
        self.problems.push(diagnostic);
    }

    /// Reports a problem of a field.
    pub(super) fn report(&mut self, code: Code, path: &str, position: Option<Position>, message: impl Into<String>) {
        self.push(Diagnostic::new(code, message).field(path).at(position));
    }

    /// The value of `field`; null counts as missing.
    pub(super) fn get(&self, field: &str) -> Option<&'a Tree> {
        self.fields
            .get(field)
            .map(|entry| &entry.value)
            .filter(|value| !value.is_null())
    }

    /// Says that `field` is missing, and what it is for.
    pub(super) fn missing(&mut self, field: &str, purpose: &str) {
        let position = self.fields.get(field).map_or(self.position, |entry| entry.key_position);
        self.report(
            MISSING_FIELD,
            field,
            position,
            format!("'{field}' is required: {purpose}"),
        );
    }

    /// A name: text as it is written.
    pub(super) fn name(&mut self, field: &str) -> Option<Arc<str>> {
        let tree = self.get(field)?;
        match tree.as_name() {
            Some(name) if !name.is_empty() => {
                let name = name.clone();
                self.boolean_like(field, tree);
                Some(name)
            }
            Some(_) => {
                self.report(
                    INVALID_VALUE,
                    field,
                    tree.position,
                    format!("'{field}' must be a string that is not empty"),
                );
                None
            }
            None => {
                let message = format!("'{field}' must be a string, not {}", tree.type_name());
                self.report(INVALID_VALUE, field, tree.position, message);
                None
            }
        }
    }

    /// A name that the node can't do without.
    pub(super) fn required_name(&mut self, field: &str, purpose: &str) -> Option<Arc<str>> {
        match self.get(field) {
            None => {
                self.missing(field, purpose);
                None
            }
            Some(tree) if tree.as_name().is_some_and(|name| name.is_empty()) => {
                self.missing(field, purpose);
                None
            }
            Some(_) => self.name(field),
        }
    }

    /// The name of a context field that the node writes.
    pub(super) fn written_field(&mut self, field: &str) -> Option<Arc<str>> {
        let name = self.name(field)?;
        let position = self.get(field).and_then(|tree| tree.position);
        self.check_reserved(field, &name, position);
        let (workflow, node) = (self.workflow, self.node);
        check_shadowing(self.problems, &name, position, |d| {
            d.workflow(workflow).node(node).field(field)
        });
        Some(name)
    }

    pub(super) fn check_reserved(&mut self, path: &str, name: &str, position: Option<Position>) {
        if name.starts_with("__") {
            let field = path.split('[').next().unwrap_or(path);
            let message = format!("'{field}' cannot be '{name}': names that begin with '__' are reserved");
            self.report(RESERVED_NAME, path, position, message);
        }
    }

    /// A list of names; empty if it is missing.
    pub(super) fn names(&mut self, field: &str, what: &str) -> Vec<Arc<str>> {
        let Some(tree) = self.get(field) else {
            return Vec::new();
        };
        let Content::List(items) = &tree.content else {
            let message = format!("'{field}' must be a list of {what}, not {}", tree.type_name());
            self.push(
                Diagnostic::new(INVALID_VALUE, message)
                    .field(field)
                    .at(tree.position)
                    .help(format!("write {field}: [NAME, ...]")),
            );
            return Vec::new();
        };
        let mut names = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            match item.as_name().filter(|name| !name.is_empty()) {
                Some(name) => {
                    names.push(name.clone());
                    if item.written.is_some() {
                        self.boolean_like(&format!("{field}[{i}]"), item);
                    }
                }
                None => {
                    let found = if item.as_name().is_some() {
                        "empty text"
                    } else {
                        item.type_name()
                    };
                    let message = format!("All items in '{field}' must be strings, not {found}");
                    self.report(INVALID_VALUE, &format!("{field}[{i}]"), item.position, message);
                }
            }
        }
        names
    }

    /// A list of names with at least one in it.
    pub(super) fn required_names(&mut self, field: &str, what: &str, purpose: &str) -> Vec<Arc<str>> {
        let is_empty = match self.get(field).map(|tree| &tree.content) {
            None => true,
            Some(Content::List(items)) => items.is_empty(),
            Some(Content::Text(text)) => text.is_empty(),
            Some(_) => false,
        };
        if is_empty {
            self.missing(field, purpose);
            return Vec::new();
        }
        self.names(field, what)
    }

    /// A list of names of context fields, none of them reserved.
    pub(super) fn field_names(&mut self, field: &str) -> Vec<Arc<str>> {
        let names = self.names(field, "context field names");
        if names.iter().any(|name| name.starts_with("__"))
            && let Some(Content::List(items)) = self.get(field).map(|tree| &tree.content)
        {
            for (i, item) in items.iter().enumerate() {
                if let Some(name) = item.as_name() {
                    self.check_reserved(&format!("{field}[{i}]"), name, item.position);
                }
            }
        }
        names
    }

    /// Text with templates in it.
    pub(super) fn template(&mut self, path: &str, text: &str, tree: &Tree) -> Option<Template> {
        match Template::compile(text) {
            Ok(template) => {
                self.check_template_fields(path, &template, tree.position);
                Some(template)
            }
            Err(error) => {
                let position = tree.position;
                let message = format!("Jinja syntax error: {error}");
                let mut diagnostic = Diagnostic::new(TEMPLATE_ERROR, message).field(path).at(position);
                if let (Some(first), Some(line)) = (tree.text_line, error.line()) {
                    let below = u32::try_from(line.saturating_sub(1)).unwrap_or(u32::MAX);
                    diagnostic.line = Some(first.saturating_add(below));
                    diagnostic.column = None;
                }
                self.push(diagnostic);
                None
            }
        }
    }

    fn check_template_fields(&mut self, path: &str, template: &Template, position: Option<Position>) {
        let (workflow, node) = (self.workflow, self.node);
        for name in template.context_fields() {
            check_shadowing(self.problems, name, position, |d| {
                d.workflow(workflow).node(node).field(path)
            });
        }
    }

    /// A value in which every string is a template.
    pub(super) fn parameter(&mut self, path: &str, tree: &Tree) -> Option<Parameter> {
        match &tree.content {
            Content::Text(text) if has_tags(text) => self.template(path, text, tree).map(Parameter::Template),
            Content::List(items) => {
                let items: Vec<_> = items
                    .iter()
                    .enumerate()
                    .map(|(i, item)| self.parameter(&format!("{path}[{i}]"), item))
                    .collect();
                let items: Vec<_> = items.into_iter().collect::<Option<_>>()?;
                if items.iter().any(|item| !matches!(item, Parameter::Literal(_))) {
                    return Some(Parameter::List(items));
                }
                tree.to_value().ok().map(Parameter::Literal)
            }
            Content::Map(map) => {
                let entries = self.parameters(path, map)?;
                if entries.values().any(|entry| !matches!(entry, Parameter::Literal(_))) {
                    return Some(Parameter::Map(entries));
                }
                tree.to_value().ok().map(Parameter::Literal)
            }
            _ => tree.to_value().ok().map(Parameter::Literal),
        }
    }

    /// The values of a mapping in which every string is a template.
    pub(super) fn parameters(&mut self, path: &str, map: &Mapping) -> Option<IndexMap<Arc<str>, Parameter>> {
        let entries: Vec<_> = map
            .iter()
            .map(|(key, entry)| (key.clone(), self.parameter(&format!("{path}.{key}"), &entry.value)))
            .collect();
        entries.into_iter().map(|(key, value)| Some((key, value?))).collect()
    }

    fn boolean_like(&mut self, path: &str, tree: &Tree) {
        let (workflow, node) = (self.workflow, self.node);
        check_boolean_like(self.problems, tree, |d| d.workflow(workflow).node(node).field(path));
    }

    /// Warns if the signal name in `tree` is a boolean to others.
    pub(super) fn check_signal(&mut self, path: &str, tree: &Tree) {
        self.boolean_like(path, tree);
    }
}

/// Whether text is more than itself to a template engine.
pub(super) fn has_tags(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains("{#")
}
