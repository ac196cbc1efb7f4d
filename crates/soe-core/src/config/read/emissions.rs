//! Reading `event_emissions`.

use std::sync::Arc;

use super::fields::NodeReader;
use crate::config::codes::{
    INVALID_CONDITION, INVALID_EMISSION, INVALID_VALUE, MISSING_SIGNAL_NAME, PLAIN_TEXT_CONDITION, RESERVED_NAME,
};
use crate::config::diagnostic::Diagnostic;
use crate::config::yaml::{Content, Mapping, Tree};
use crate::config::{Condition, Emission};
use crate::llm::SELECTED;

/// What a condition of plain text means on a node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PlainText {
    /// An LLM chooses by it, if there is a choice.
    Chosen,
    /// Nothing: it passes.
    Passes,
    /// What the type of the node makes of it.
    Unknown,
}

impl NodeReader<'_> {
    /// `event_emissions`; empty if they are missing.
    pub(super) fn emissions(&mut self, plain_text: PlainText) -> Vec<Emission> {
        let Some(tree) = self.get("event_emissions") else {
            return Vec::new();
        };
        let Content::List(items) = &tree.content else {
            let message = format!(
                "'event_emissions' must be a list of signals to emit, not {}",
                tree.type_name()
            );
            let help = "write event_emissions: [{signal_name: NAME}]";
            self.push(
                Diagnostic::new(INVALID_VALUE, message)
                    .field("event_emissions")
                    .at(tree.position)
                    .help(help),
            );
            return Vec::new();
        };
        if plain_text == PlainText::Chosen && is_choice(items) {
            self.check_selection();
        }
        let without_effect = match plain_text {
            PlainText::Passes => Some("only an LLM chooses by plain text"),
            PlainText::Chosen if !is_choice(items) => {
                Some("an LLM chooses by plain text only between several emissions, none of them with a template")
            }
            PlainText::Chosen | PlainText::Unknown => None,
        };
        let emissions = items.iter().enumerate();
        emissions
            .filter_map(|(i, item)| self.emission(i, item, without_effect))
            .collect()
    }

    /// `event_emissions` with at least one in it.
    pub(super) fn required_emissions(&mut self, plain_text: PlainText) -> Vec<Emission> {
        let is_empty = match self.get("event_emissions").map(|tree| &tree.content) {
            None => true,
            Some(Content::List(items)) => items.is_empty(),
            Some(_) => false,
        };
        if is_empty {
            self.missing("event_emissions", "a router does nothing but emit signals");
            return Vec::new();
        }
        self.emissions(plain_text)
    }

    /// `without_effect` says why conditions of plain text pass, if they do.
    fn emission(&mut self, i: usize, tree: &Tree, without_effect: Option<&str>) -> Option<Emission> {
        let path = format!("event_emissions[{i}]");
        let number = i + 1;
        let Some(map) = tree.as_map() else {
            let found = tree.type_name();
            let message =
                format!("Event emission at position {number} must be an object with 'signal_name', not {found}");
            self.report(INVALID_EMISSION, &path, tree.position, message);
            return None;
        };
        self.check_emission_fields(&path, map);
        let signal = self.signal_name(&path, number, map, tree);
        let condition = self.condition(&path, number, map, without_effect);
        let signal = signal?;
        Some(Emission {
            batch: [signal.clone()].into(),
            signal,
            condition: condition?,
        })
    }

    fn signal_name(&mut self, path: &str, number: usize, map: &Mapping, emission: &Tree) -> Option<Arc<str>> {
        let path = format!("{path}.signal_name");
        let tree = map.get("signal_name").map(|entry| &entry.value);
        match tree {
            Some(tree)
                if matches!(tree.content, Content::List(_) | Content::Map(_))
                    || tree.as_name().is_none() && !tree.is_null() =>
            {
                let message = format!("'signal_name' must be a string, not {}", tree.type_name());
                self.report(INVALID_VALUE, &path, tree.position, message);
                None
            }
            Some(tree) if tree.as_name().is_some_and(|name| !name.is_empty()) => {
                self.check_signal(&path, tree);
                tree.as_name().cloned()
            }
            _ => {
                let message = format!("Event emission at position {number} is missing 'signal_name'");
                let position = tree.map_or(emission.position, |tree| tree.position);
                self.report(MISSING_SIGNAL_NAME, &path, position, message);
                None
            }
        }
    }

    fn condition(
        &mut self,
        path: &str,
        number: usize,
        map: &Mapping,
        without_effect: Option<&str>,
    ) -> Option<Condition> {
        let Some(tree) = map.get("condition").map(|entry| &entry.value) else {
            return Some(Condition::Always);
        };
        let path = format!("{path}.condition");
        match &tree.content {
            Content::Null => Some(Condition::Always),
            Content::Text(text) if text.is_empty() => Some(Condition::Always),
            Content::Text(text) if is_template(text) => self.template(&path, text, tree).map(Condition::Jinja),
            Content::Text(text) => {
                if let Some(why) = without_effect {
                    let message = format!("a condition without '{{{{ }}}}' always passes here: {why}");
                    let help = "write a template, or drop the condition";
                    let problem = Diagnostic::new(PLAIN_TEXT_CONDITION, message).help(help);
                    self.push(problem.field(path).at(tree.position));
                }
                Some(Condition::PlainText(text.clone()))
            }
            _ => {
                let found = tree.type_name();
                let message = format!(
                    "Event emission at position {number} has invalid 'condition': it must be a Jinja string, not {found}"
                );
                self.report(INVALID_CONDITION, &path, tree.position, message);
                None
            }
        }
    }

    /// The signals that an LLM chooses come under a key beside the output.
    fn check_selection(&mut self) {
        let field = "output_field";
        if let Some(tree) = self
            .get(field)
            .filter(|tree| tree.as_name().is_some_and(|name| &**name == SELECTED))
        {
            let message = format!("'{field}' cannot be '{SELECTED}' where an LLM chooses signals");
            let help = "the LLM names its signals under that key, beside the output; choose another name";
            self.push(
                Diagnostic::new(RESERVED_NAME, message)
                    .help(help)
                    .field(field)
                    .at(tree.position),
            );
        }
    }
}

/// As [`Node::lets_llm_choose`](crate::config::Node::lets_llm_choose), before the emissions are read.
fn is_choice(items: &[Tree]) -> bool {
    let condition = |item: &Tree| match item.as_map()?.get("condition").map(|entry| &entry.value.content) {
        Some(Content::Text(text)) => Some(is_template(text)),
        _ => None,
    };
    items.len() > 1 && !items.iter().any(|item| condition(item) == Some(true))
}

fn is_template(condition: &str) -> bool {
    condition.contains("{{") || condition.contains("{%")
}
