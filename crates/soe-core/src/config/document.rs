//! A checked configuration, from whatever it was written in.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use indexmap::IndexMap;
use serde::Serialize;
use soe_backends::Value;

use super::codes::{
    INVALID_CONFIG, INVALID_IDENTITY, INVALID_SECTION, MISSPELLED_SECTION, NO_INITIAL_SIGNALS, NOT_SERIALIZABLE,
    UNKNOWN_WORKFLOW,
};
use super::diagnostic::{ConfigError, Diagnostic, Problems, Report};
use super::read::{self, Known};
use super::schema::{ContextSchema, read_context_schema};
use super::text::{duplicate_key, empty_config, in_config, invalid_yaml};
use super::yaml::{Content, Document, Entry, Mapping, Tree, read_document};
use super::{Registry, Workflow, graph};

/// The system prompts by the name of their identity.
pub type Identities = IndexMap<Arc<str>, Arc<str>>;

const SECTIONS: &[&str] = &["workflows", "context_schema", "identities"];

/// What authors write in place of a section's name, too far from it for a slip.
const SECTION_HABITS: &[(&str, &str)] = &[
    ("identity", "identities"),
    ("schema", "context_schema"),
    ("schemas", "context_schema"),
];

/// What a configuration is checked against, beside itself. What is `None` isn't checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValidateOptions {
    /// Every tool that can be called, built-in ones included. Others are errors.
    pub tools: Option<BTreeSet<String>>,
    /// Every custom node type that is registered. Others get a warning.
    pub node_types: Option<BTreeSet<String>>,
    /// Every signal that is sent from outside: those that executions start with, those that are broadcast to them later,
    /// and the failure signals of tools. With it, a trigger that nothing sends gets a warning, and so does a node that
    /// none of these signals leads to.
    pub sent_signals: Option<BTreeSet<String>>,
}

/// A configuration without errors. Cheap to clone, immutable, shared by any number of executions.
///
/// ```
/// use soe_core::config::Config;
///
/// let config = Config::from_yaml("
/// greeting:
///   hello:
///     node_type: llm
///     event_triggers: [START]
///     prompt: Greet {{ context.name }}
///     output_field: greeting
///     event_emissions:
///       - signal_name: DONE
/// ").unwrap();
/// assert_eq!(config.registry().workflows["greeting"].nodes.len(), 1);
///
/// let error = Config::from_yaml("greeting: {hello: {node_type: llm}}").unwrap_err();
/// assert!(error.to_string().contains("'event_triggers' is required"));
/// assert!(error.to_string().contains("'prompt' is required"));
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    registry: Arc<Registry>,
    identities: Option<Arc<Identities>>,
    context_schema: Option<Arc<ContextSchema>>,
    warnings: Arc<[Diagnostic]>,
}

impl Config {
    /// Reads a YAML text.
    ///
    /// # Errors
    /// All problems, if one of them is an error.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        Self::from_yaml_with(text, &ValidateOptions::default())
    }

    /// Reads a YAML text, and checks it against `options` too.
    ///
    /// # Errors
    /// All problems, if one of them is an error.
    pub fn from_yaml_with(text: &str, options: &ValidateOptions) -> Result<Self, ConfigError> {
        let mut problems = Problems::default();
        let config = read_text(text, options, &mut problems);
        finish(config, problems)
    }

    /// Takes a configuration that is already parsed.
    ///
    /// # Errors
    /// All problems, if one of them is an error. None has a position.
    pub fn from_value(value: serde_json::Value) -> Result<Self, ConfigError> {
        Self::from_value_with(value, &ValidateOptions::default())
    }

    /// Takes a configuration that is already parsed, and checks it against `options` too.
    ///
    /// # Errors
    /// All problems, if one of them is an error. None has a position.
    pub fn from_value_with(value: serde_json::Value, options: &ValidateOptions) -> Result<Self, ConfigError> {
        let mut problems = Problems::default();
        let config = read_config(&read::tree_of_json(value)?, options, &mut problems);
        finish(config, problems)
    }

    /// Takes a configuration from anything that can be serialised.
    ///
    /// # Errors
    /// All problems, if one of them is an error; or that the value can't be serialised to JSON.
    pub fn from_serialize(value: &impl Serialize) -> Result<Self, ConfigError> {
        let json = serde_json::to_value(value).map_err(|error| {
            Diagnostic::new(
                NOT_SERIALIZABLE,
                format!("the configuration can't be serialised: {error}"),
            )
        })?;
        Self::from_value(json)
    }

    /// The compiled workflows.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The `identities` section, if there is one.
    pub fn identities(&self) -> Option<&Arc<Identities>> {
        self.identities.as_ref()
    }

    /// The `context_schema` section, if there is one.
    pub fn context_schema(&self) -> Option<&Arc<ContextSchema>> {
        self.context_schema.as_ref()
    }

    /// What looks wrong, but can be used.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// The workflow `name`.
    ///
    /// # Errors
    /// There is none of that name; the error names those that there are.
    pub fn workflow(&self, name: &str) -> Result<&Arc<Workflow>, ConfigError> {
        self.registry.workflow(name)
    }

    /// Checks that an execution of the workflow `name` can start with `signals`.
    ///
    /// # Errors
    /// The workflow doesn't exist, there is no signal, or one is empty.
    pub fn check_start<S: AsRef<str>>(&self, name: &str, signals: &[S]) -> Result<(), ConfigError> {
        self.workflow(name)?;
        if signals.is_empty() || signals.iter().any(|signal| signal.as_ref().is_empty()) {
            let message = "'initial_signals' cannot be empty: an execution starts with at least one signal";
            return Err(Diagnostic::new(NO_INITIAL_SIGNALS, message).workflow(name).into());
        }
        Ok(())
    }
}

impl Registry {
    /// The workflow `name`.
    ///
    /// # Errors
    /// There is none of that name; the error names those that there are.
    pub fn workflow(&self, name: &str) -> Result<&Arc<Workflow>, ConfigError> {
        self.workflows.get(name).ok_or_else(|| {
            const MAX_LISTED: usize = 20;
            let mut names: Vec<_> = self.workflows.keys().take(MAX_LISTED).map(AsRef::as_ref).collect();
            if self.workflows.len() > MAX_LISTED {
                names.push("...");
            }
            let help = format!("available workflows: {}", names.join(", "));
            Diagnostic::new(UNKNOWN_WORKFLOW, format!("Workflow '{name}' not found in config"))
                .help(help)
                .into()
        })
    }
}

/// Checks a YAML text, and says everything that is wrong or looks wrong with it.
pub fn validate(text: &str, options: &ValidateOptions) -> Report {
    let mut problems = Problems::default();
    read_text(text, options, &mut problems);
    problems.into_report()
}

/// Checks a configuration that is already parsed. The problems have no positions.
pub fn validate_value(value: serde_json::Value, options: &ValidateOptions) -> Report {
    let mut problems = Problems::default();
    match read::tree_of_json(value) {
        Ok(tree) => {
            read_config(&tree, options, &mut problems);
            problems.into_report()
        }
        Err(error) => error.report().clone(),
    }
}

fn finish(config: Option<Config>, problems: Problems) -> Result<Config, ConfigError> {
    let warnings = problems.into_result()?;
    match config {
        Some(config) => Ok(Config { warnings, ..config }),
        None => Err(Diagnostic::new(INVALID_CONFIG, "the configuration can't be used").into()),
    }
}

fn read_text(text: &str, options: &ValidateOptions, problems: &mut Problems) -> Option<Config> {
    match read_document(text) {
        Ok(Some(Document { root, duplicates })) => {
            let combined = root.as_map().is_some_and(|map| map.contains_key("workflows"));
            for duplicate in &duplicates {
                problems.push(in_config(duplicate_key(duplicate), duplicate, combined));
            }
            read_config(&root, options, problems)
        }
        Ok(None) => {
            problems.push(empty_config());
            None
        }
        Err(error) => {
            problems.push(invalid_yaml(text, &error));
            None
        }
    }
}

fn read_config(root: &Tree, options: &ValidateOptions, problems: &mut Problems) -> Option<Config> {
    let map = match &root.content {
        Content::Null => {
            problems.push(empty_config());
            return None;
        }
        Content::Map(map) if map.is_empty() => {
            problems.push(empty_config().at(root.position));
            return None;
        }
        Content::Map(map) => map,
        _ => {
            let message = format!(
                "a configuration must be an object of workflows by name, not {}",
                root.type_name()
            );
            problems.push(Diagnostic::new(INVALID_CONFIG, message).at(root.position));
            return None;
        }
    };
    let Some(workflows) = map.get("workflows") else {
        check_sections_without_workflows(map, problems);
        return read_sections(map, None, None, options, problems);
    };
    check_section_names(map, problems);
    let section = |name: &str| map.get(name).map(|entry| &entry.value).filter(|tree| !tree.is_null());
    let Some(workflows) = workflows.value.as_map() else {
        let found = workflows.value.type_name();
        let message = format!("'workflows' section must be an object containing workflow definitions, not {found}");
        problems.push(
            Diagnostic::new(INVALID_SECTION, message)
                .at(workflows.key_position)
                .field("workflows"),
        );
        read_sections(
            &Mapping::new(),
            section("identities"),
            section("context_schema"),
            options,
            problems,
        );
        return None;
    };
    read_sections(
        workflows,
        section("identities"),
        section("context_schema"),
        options,
        problems,
    )
}

fn read_sections(
    workflows: &Mapping,
    identities: Option<&Tree>,
    context_schema: Option<&Tree>,
    options: &ValidateOptions,
    problems: &mut Problems,
) -> Option<Config> {
    let names: HashSet<Arc<str>> = workflows.keys().cloned().collect();
    let known = Known {
        options,
        workflows: Some(&names),
        stored: false,
    };
    let mut compiled = IndexMap::with_capacity(workflows.len());
    for (name, entry) in workflows {
        if let Some(workflow) = read::read_workflow(name, &entry.value, entry.key_position, known, problems) {
            compiled.insert(name.clone(), Arc::new(workflow));
        }
    }
    read::check_references(workflows, identities, context_schema, problems);
    let complete = compiled.len() == workflows.len();
    graph::check(&compiled, workflows, complete, options, problems);
    let identities = identities.map(|tree| Arc::new(read_identities(tree, problems)));
    let context_schema = context_schema.map(|tree| Arc::new(read_context_schema(tree, problems)));
    let registry = complete.then(|| Arc::new(Registry::of_workflows(compiled)))?;
    Some(Config {
        registry,
        identities,
        context_schema,
        warnings: Arc::default(),
    })
}

fn read_identities(tree: &Tree, problems: &mut Problems) -> Identities {
    let Some(map) = tree.as_map() else {
        let message = "'identities' section must be an object: identity name to its prompt";
        problems.push(
            Diagnostic::new(INVALID_SECTION, message)
                .at(tree.position)
                .field("identities"),
        );
        return Identities::new();
    };
    let mut identities = Identities::with_capacity(map.len());
    for (name, entry) in map.iter() {
        match &entry.value.content {
            Content::Text(prompt) => {
                identities.insert(name.clone(), prompt.clone());
            }
            _ => {
                let found = entry.value.type_name();
                let message = format!("identities.{name}: identity prompt must be a string, not {found}");
                let problem = Diagnostic::new(INVALID_IDENTITY, message).at(entry.value.position);
                problems.push(problem.field(format!("identities.{name}")));
            }
        }
    }
    identities
}

fn check_sections_without_workflows(map: &Mapping, problems: &mut Problems) {
    for name in ["identities", "context_schema"] {
        if let Some(entry) = map.get(name) {
            let message = format!("'{name}' is read as a workflow, since there is no 'workflows' section beside it");
            problems.push(misspelled_section(name, message, entry).help("put the workflows under 'workflows:'"));
        }
    }
}

fn check_section_names(map: &Mapping, problems: &mut Problems) {
    for (name, entry) in map {
        if SECTIONS.contains(&name.as_ref()) {
            continue;
        }
        let habit = SECTION_HABITS
            .iter()
            .find(|(habit, section)| *habit == name.as_ref() && !map.contains_key(*section));
        let habit = habit
            .filter(|_| !looks_like_workflow(&entry.value))
            .map(|(_, section)| *section);
        if let Some(meant) = habit.or_else(|| read::closest(name, SECTIONS.iter().copied())) {
            let message = format!("the section '{name}' is ignored");
            problems.push(misspelled_section(name, message, entry).help(format!("did you mean '{meant}'?")));
        } else if looks_like_workflow(&entry.value) {
            let message = format!("'{name}' looks like a workflow, but stands beside 'workflows' and is ignored");
            problems.push(misspelled_section(name, message, entry).help("move it under 'workflows:'"));
        }
    }
}

fn misspelled_section(name: &str, message: String, entry: &Entry) -> Diagnostic {
    Diagnostic::new(MISSPELLED_SECTION, message)
        .field(name)
        .at(entry.key_position)
}

pub(super) fn looks_like_workflow(tree: &Tree) -> bool {
    let is_node = |entry: &Entry| entry.value.as_map().is_some_and(|node| node.contains_key("node_type"));
    tree.as_map()
        .is_some_and(|map| !map.is_empty() && map.values().all(is_node))
}

/// The document of a registry, made of its nodes as they are stored.
pub(super) fn document_of(workflows: &IndexMap<Arc<str>, Arc<Workflow>>) -> Value {
    Value::map(workflows.iter().map(|(name, workflow)| {
        let nodes = workflow
            .nodes
            .iter()
            .map(|(name, node)| (name.clone(), Value::Map(node.config.clone())));
        (name.clone(), Value::map(nodes))
    }))
}
