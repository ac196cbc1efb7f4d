//! Names that refer to a section of the configuration, and probably to another entry of it.
//!
//! Both may be missing from their section on purpose: an identity without a system prompt, a field without a schema. So
//! only names that resemble one that is there are reported.

use super::fields::has_tags;
use super::names::{closest, is_anagram, similar_signals};
use crate::config::codes::MISSPELLED_NAME;
use crate::config::diagnostic::{Diagnostic, Problems};
use crate::config::yaml::{Mapping, Tree};

/// Pairs of names that are compared for one section; suggestions beyond that aren't worth their time.
const MAX_COMPARISONS: usize = 500_000;

/// Warns about identities and output fields of nodes that look like slips in a name of these sections.
pub(crate) fn check_references(
    workflows: &Mapping,
    identities: Option<&Tree>,
    context_schema: Option<&Tree>,
    problems: &mut Problems,
) {
    let mut sections = vec![];
    if let Some(section) = identities.and_then(Tree::as_map) {
        sections.push(Section {
            field: "identity",
            name: "identities",
            entries: names(section),
            comparisons: MAX_COMPARISONS,
            meant: identity,
        });
    }
    if let Some(section) = context_schema.and_then(Tree::as_map) {
        sections.push(Section {
            field: "output_field",
            name: "context_schema",
            entries: names(section),
            comparisons: MAX_COMPARISONS,
            meant: schema,
        });
    }
    for (workflow, entry) in workflows {
        for (node, entry) in entry.value.as_map().into_iter().flat_map(|nodes| nodes.iter()) {
            let Some(fields) = entry.value.as_map().filter(|fields| asks_llm(fields)) else {
                continue;
            };
            for section in &mut sections {
                if let Some(problem) = section.check(fields) {
                    problems.push(problem.workflow(workflow).node(node));
                }
            }
        }
    }
}

struct Section<'a> {
    /// The field of nodes that refers to it.
    field: &'static str,
    name: &'static str,
    /// In the order of the alphabet.
    entries: Vec<&'a str>,
    /// How many names may still be compared.
    comparisons: usize,
    /// The entry that a name is probably meant to be.
    meant: fn(&str, &[&'a str]) -> Option<&'a str>,
}

impl Section<'_> {
    fn check(&mut self, fields: &Mapping) -> Option<Diagnostic> {
        let tree = &fields.get(self.field)?.value;
        let name = tree.as_name()?;
        if self.entries.binary_search(&name.as_ref()).is_ok() || has_tags(name) {
            return None;
        }
        self.comparisons = self.comparisons.checked_sub(self.entries.len())?;
        let meant = (self.meant)(name, &self.entries)?;
        let message = format!("'{name}' is not in the section '{}'", self.name);
        let problem = Diagnostic::new(MISSPELLED_NAME, message).help(format!("did you mean '{meant}'?"));
        Some(problem.field(self.field).at(tree.position))
    }
}

fn names(section: &Mapping) -> Vec<&str> {
    let mut names: Vec<&str> = section.keys().map(AsRef::as_ref).collect();
    names.sort_unstable();
    names
}

fn asks_llm(fields: &Mapping) -> bool {
    let node_type = fields.get("node_type").and_then(|entry| entry.value.as_name());
    node_type.is_some_and(|name| matches!(name.as_ref(), "llm" | "agent"))
}

fn identity<'a>(name: &str, defined: &[&'a str]) -> Option<&'a str> {
    let anagram = defined.iter().find(|other| is_anagram(name, other)).copied();
    anagram.or_else(|| closest(name, defined.iter().copied().filter(|other| same_digits(name, other))))
}

/// Stricter: a field and its plural, or a family of fields, may well have a schema for one of them only.
fn schema<'a>(name: &str, defined: &[&'a str]) -> Option<&'a str> {
    let plural = |a: &str, b: &str| a.strip_suffix('s') == Some(b);
    let candidates = || {
        let others = defined.iter().copied();
        others.filter(|other| !plural(name, other) && !plural(other, name))
    };
    let anagram = candidates().find(|other| is_anagram(name, other) && same_digits(name, other));
    anagram.or_else(|| similar_signals(name, candidates()))
}

fn same_digits(a: &str, b: &str) -> bool {
    let digits = |name: &str| -> String { name.chars().filter(char::is_ascii_digit).collect() };
    digits(a) == digits(b)
}
