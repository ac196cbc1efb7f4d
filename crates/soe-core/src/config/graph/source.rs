//! Where the parts of a workflow are written.

use crate::config::Position;
use crate::config::diagnostic::Diagnostic;
use crate::config::yaml::{Content, Mapping, Tree};

/// The document that workflows were read from.
#[derive(Clone, Copy)]
pub(super) struct Source<'a>(pub(super) &'a Mapping);

impl Source<'_> {
    /// Says that `diagnostic` is about a node.
    pub(super) fn at_node(&self, workflow: &str, node: &str, diagnostic: Diagnostic) -> Diagnostic {
        let position = self.nodes(workflow).and_then(|nodes| nodes.get(node)?.key_position);
        diagnostic.workflow(workflow).node(node).at(position)
    }

    /// Says that `diagnostic` is about an item of a list of a node.
    pub(super) fn at_item(
        &self,
        workflow: &str,
        node: &str,
        list: &str,
        i: usize,
        diagnostic: Diagnostic,
    ) -> Diagnostic {
        let position = self.item(workflow, node, list, i).and_then(|item| item.position);
        diagnostic
            .workflow(workflow)
            .node(node)
            .field(format!("{list}[{i}]"))
            .at(position)
    }

    /// Says that `diagnostic` is about a field of an emission of a node.
    pub(super) fn at_emission(
        &self,
        workflow: &str,
        node: &str,
        i: usize,
        field: &str,
        diagnostic: Diagnostic,
    ) -> Diagnostic {
        let position = self.emission_field(workflow, node, i, field);
        let path = format!("event_emissions[{i}].{field}");
        diagnostic.workflow(workflow).node(node).field(path).at(position)
    }

    fn emission_field(&self, workflow: &str, node: &str, i: usize, field: &str) -> Option<Position> {
        let emission = self.item(workflow, node, "event_emissions", i)?;
        emission.as_map()?.get(field)?.value.position
    }

    fn item(&self, workflow: &str, node: &str, list: &str, i: usize) -> Option<&Tree> {
        let fields = self.nodes(workflow)?.get(node)?.value.as_map()?;
        match &fields.get(list)?.value.content {
            Content::List(items) => items.get(i),
            _ => None,
        }
    }

    fn nodes(&self, workflow: &str) -> Option<&Mapping> {
        self.0.get(workflow)?.value.as_map().map(AsRef::as_ref)
    }
}
