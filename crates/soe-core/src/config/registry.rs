//! Registries: stored ones, and those that come of changing one at run time.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use indexmap::IndexMap;
use sha2::{Digest, Sha256};
use soe_backends::{RegistryId, Value};

use super::diagnostic::{ConfigError, Diagnostic, Problems};
use super::document::{document_of, looks_like_workflow};
use super::read::{self, Known};
use super::text::{duplicate_key, invalid_yaml, nothing_injected};
use super::yaml::{Document, Entry, Mapping, Tree, parse_json, read_document};
use super::{Registry, ValidateOptions, Workflow, graph};
use crate::config::codes::INVALID_CONFIG;

/// A registry that came of a change, and what looks wrong with what was changed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Changed {
    /// The new registry. Nodes that were not touched are shared with the old one.
    pub registry: Registry,
    /// Warnings about what was injected.
    pub warnings: Arc<[Diagnostic]>,
}

type Workflows = IndexMap<Arc<str>, Arc<Workflow>>;

impl Registry {
    /// Compiles a stored document: [`Registry::document`] of a registry that was accepted before.
    ///
    /// Since nodes and workflows can be removed at run time, a workflow may be empty here, and a child node may name a
    /// workflow that no longer exists.
    ///
    /// # Errors
    /// All problems, if one of them is an error.
    pub fn from_document(document: Value) -> Result<Self, ConfigError> {
        let tree = read::tree_of_stored(&document)?;
        let Some(map) = tree.as_map() else {
            let message = format!(
                "a registry must be an object of workflows by name, not {}",
                tree.type_name()
            );
            return Err(Diagnostic::new(INVALID_CONFIG, message).into());
        };
        let options = ValidateOptions::default();
        let known = Known {
            options: &options,
            workflows: None,
            stored: true,
        };
        let mut problems = Problems::default();
        let mut workflows = Workflows::with_capacity(map.len());
        for (name, entry) in map.iter() {
            if let Some(workflow) = read::read_workflow(name, &entry.value, None, known, &mut problems) {
                workflows.insert(name.clone(), Arc::new(workflow));
            }
        }
        problems.into_result()?;
        Ok(Self::of_workflows(workflows))
    }

    /// Adds the workflow `name`, or replaces it at its place. `nodes` is `node name -> configuration`, alone or under the
    /// name of a workflow, as a value or as YAML or JSON text.
    ///
    /// # Errors
    /// All problems of the workflow, if one of them is an error. The registry is as it was.
    pub fn with_workflow(&self, name: &str, nodes: &Value, options: &ValidateOptions) -> Result<Changed, ConfigError> {
        let name: Arc<str> = name.into();
        let entry = Entry::from(nodes_of(definition(nodes)?, &name));
        let names = self.names_with(&name);
        let known = Known {
            options,
            workflows: Some(&names),
            stored: false,
        };
        let mut problems = Problems::default();
        let workflow = read::read_workflow(&name, &entry.value, None, known, &mut problems);
        let mut workflows = self.workflows.clone();
        if let Some(workflow) = workflow {
            workflows.insert(name.clone(), Arc::new(workflow));
            let checked = Mapping::from_iter([(name, entry)]);
            graph::check(&workflows, &checked, true, options, &mut problems);
        }
        changed(workflows, problems)
    }

    /// Adds the node `name` to `workflow`, or replaces it at its place. `config` is its configuration, as a value or as
    /// YAML or JSON text.
    ///
    /// # Errors
    /// There is no such workflow; or all problems of the node, if one of them is an error. The registry is as it was.
    pub fn with_node(
        &self,
        workflow: &str,
        name: &str,
        config: &Value,
        options: &ValidateOptions,
    ) -> Result<Changed, ConfigError> {
        let old = self.workflow(workflow)?;
        let name: Arc<str> = name.into();
        let entry = Entry::from(definition(config)?);
        let names = self.names_with(&old.name);
        let known = Known {
            options,
            workflows: Some(&names),
            stored: false,
        };
        let mut problems = Problems::default();
        let node = read::read_node(workflow, &name, &entry, known, &mut problems);
        let mut workflows = self.workflows.clone();
        if let Some(node) = node {
            let mut nodes = old.nodes.clone();
            nodes.insert(name.clone(), Arc::new(node));
            workflows.insert(old.name.clone(), Arc::new(Workflow::new(old.name.clone(), nodes)));
            check_node_in_graph(&workflows, &old.name, &name, entry, options, &mut problems);
        }
        changed(workflows, problems)
    }

    /// Removes the workflow `name`. Child nodes that name it stay, and fail when they run.
    ///
    /// # Errors
    /// There is no such workflow.
    pub fn without_workflow(&self, name: &str) -> Result<Registry, ConfigError> {
        self.workflow(name)?;
        let mut workflows = self.workflows.clone();
        workflows.shift_remove(name);
        Ok(Self::of_workflows(workflows))
    }

    /// Removes the node `name` of `workflow`; `None` if the workflow has no such node.
    ///
    /// # Errors
    /// There is no such workflow.
    pub fn without_node(&self, workflow: &str, name: &str) -> Result<Option<Registry>, ConfigError> {
        let old = self.workflow(workflow)?;
        let mut nodes = old.nodes.clone();
        if nodes.shift_remove(name).is_none() {
            return Ok(None);
        }
        let mut workflows = self.workflows.clone();
        workflows.insert(old.name.clone(), Arc::new(Workflow::new(old.name.clone(), nodes)));
        Ok(Some(Self::of_workflows(workflows)))
    }

    pub(super) fn of_workflows(workflows: Workflows) -> Self {
        let document = document_of(&workflows);
        Self {
            id: id_of(&document),
            document,
            workflows,
        }
    }

    fn names_with(&self, name: &Arc<str>) -> HashSet<Arc<str>> {
        self.workflows.keys().chain([name]).cloned().collect()
    }
}

/// The document of what is injected.
fn definition(value: &Value) -> Result<Tree, ConfigError> {
    let Value::Text(text) = value else {
        return read::tree_of_value(value);
    };
    if let Some(value) = parse_json(text) {
        return read::tree_of_value(&value);
    }
    let document = read_document(text).map_err(|error| invalid_yaml(text, &error))?;
    let Some(Document { root, duplicates }) = document else {
        return Err(nothing_injected().into());
    };
    let mut problems = Problems::default();
    for duplicate in &duplicates {
        let path = read::path_of(&duplicate.path, &duplicate.key);
        problems.push(duplicate_key(duplicate).field(path));
    }
    problems.into_result()?;
    Ok(root)
}

/// The nodes in what is injected as the workflow `name`: they may stand alone, or under a workflow's name.
fn nodes_of(tree: Tree, name: &str) -> Tree {
    let Some(map) = tree.as_map() else {
        return tree;
    };
    let is_node = |entry: &Entry| entry.value.as_map().is_some_and(|node| node.contains_key("node_type"));
    let wrapped = match (map.get(name), map.len()) {
        (Some(entry), _) if entry.value.as_map().is_some() && !is_node(entry) => Some(entry),
        (None, 1) => map.values().next().filter(|entry| looks_like_workflow(&entry.value)),
        _ => None,
    };
    wrapped.map_or(tree.clone(), |entry| entry.value.clone())
}

/// Of the warnings about the graph, those that are about the node that was injected.
fn check_node_in_graph(
    workflows: &Workflows,
    workflow: &Arc<str>,
    name: &Arc<str>,
    entry: Entry,
    options: &ValidateOptions,
    problems: &mut Problems,
) {
    let nodes = Mapping::from_iter([(name.clone(), entry)]);
    let checked = Mapping::from_iter([(workflow.clone(), Entry::from(Tree::of_map(nodes)))]);
    let mut found = Problems::default();
    graph::check(workflows, &checked, true, options, &mut found);
    let about_it = |problem: &Diagnostic| problem.node.as_deref() == Some(name.as_ref());
    let found = found.into_report().diagnostics.into_iter();
    found.filter(about_it).for_each(|problem| problems.push(problem));
}

fn changed(workflows: Workflows, problems: Problems) -> Result<Changed, ConfigError> {
    let warnings = problems.into_result()?;
    Ok(Changed {
        registry: Registry::of_workflows(workflows),
        warnings,
    })
}

/// SHA-256 of the compact JSON text, keys in the order of the document, since order is meaning here.
fn id_of(document: &Value) -> RegistryId {
    struct Hasher(Sha256);
    impl io::Write for Hasher {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut hasher = Hasher(Sha256::new());
    serde_json::to_writer(&mut hasher, document).expect("values have text keys, and hashing can't fail");
    RegistryId::from_digest(hasher.0.finalize().into())
}
