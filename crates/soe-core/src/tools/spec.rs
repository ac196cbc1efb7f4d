//! What the engine knows about a tool without running it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use soe_backends::Value;

use super::arguments::{ArgumentsChecker, ArgumentsError, InvalidSchema};

/// A tool as workflows and LLMs see it: name, description, arguments, and how its runs are handled.
///
/// ```
/// use serde_json::json;
/// use soe_core::tools::ToolSpec;
///
/// let schema = json!({"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]});
/// let spec = ToolSpec::new("greet", "Greets somebody.", schema).unwrap();
///
/// assert!(spec.check_arguments(&json!({"to": "Ada"}).into()).is_ok());
/// let error = spec.check_arguments(&json!({"from": "Bob"}).into()).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "Tool 'greet': missing required parameter: to; unexpected parameter: from (it takes: to)"
/// );
/// ```
#[derive(Clone)]
pub struct ToolSpec {
    /// The name under which workflows use it.
    pub name: Arc<str>,
    /// What it does, for the LLM that decides about calling it.
    pub description: String,
    /// How often a failed run is tried again.
    pub max_retries: u32,
    /// The signal that is emitted when it has failed for good.
    pub failure_signal: Option<Arc<str>>,
    /// Whether a node with `context_parameter_field` passes the field's whole history as the single argument.
    pub process_accumulated: bool,
    /// The longest that one attempt may take.
    pub timeout: Option<Duration>,
    /// The most calls that may be in flight at a time.
    pub max_concurrency: Option<usize>,
    parameters: Arc<serde_json::Value>,
    checker: Arc<ArgumentsChecker>,
}

impl ToolSpec {
    /// A tool without retries, failure signal and limits, whose arguments are described by the JSON Schema `parameters`.
    ///
    /// An object schema with `properties` that says nothing about other ones allows no others. The empty schema `{}`
    /// allows everything.
    ///
    /// # Errors
    /// `parameters` is not a JSON Schema, or refers to something outside itself.
    pub fn new(
        name: impl Into<Arc<str>>,
        description: impl Into<String>,
        parameters: serde_json::Value,
    ) -> Result<Self, InvalidSchema> {
        let name = name.into();
        let checker = ArgumentsChecker::compile(&name, &parameters)?;
        Ok(Self {
            name,
            description: description.into(),
            max_retries: 0,
            failure_signal: None,
            process_accumulated: false,
            timeout: None,
            max_concurrency: None,
            parameters: Arc::new(parameters),
            checker: Arc::new(checker),
        })
    }

    /// The JSON Schema of the arguments, as it was given.
    pub fn parameters(&self) -> &serde_json::Value {
        &self.parameters
    }

    pub(crate) fn shared_parameters(&self) -> &Arc<serde_json::Value> {
        &self.parameters
    }

    /// Checks what a node or an LLM wants to pass.
    ///
    /// # Errors
    /// Every problem, with tool and parameter, in words that an LLM can correct itself by.
    pub fn check_arguments(&self, arguments: &Value) -> Result<(), ArgumentsError> {
        self.check_json(&arguments.to_json())
    }

    /// As [`ToolSpec::check_arguments`], on JSON.
    ///
    /// # Errors
    /// As [`ToolSpec::check_arguments`].
    pub fn check_json(&self, arguments: &serde_json::Value) -> Result<(), ArgumentsError> {
        self.checker.check(&self.name, arguments)
    }
}

impl fmt::Debug for ToolSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolSpec")
            .field("name", &self.name)
            .field("description", &self.description)
            .field("parameters", &self.parameters)
            .field("max_retries", &self.max_retries)
            .field("failure_signal", &self.failure_signal)
            .field("process_accumulated", &self.process_accumulated)
            .field("timeout", &self.timeout)
            .field("max_concurrency", &self.max_concurrency)
            .finish_non_exhaustive()
    }
}

/// The tools of an engine by name, in the order of registration. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ToolSpecs(Arc<IndexMap<Arc<str>, Arc<ToolSpec>>>);

impl ToolSpecs {
    /// The tool called `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<ToolSpec>> {
        self.0.get(name)
    }

    /// Whether there is a tool called `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// All tools.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ToolSpec>> {
        self.0.values()
    }

    /// The names of all tools.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.keys()
    }

    /// The number of tools.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no tool.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Of two tools with the same name the later one stays.
impl FromIterator<Arc<ToolSpec>> for ToolSpecs {
    fn from_iter<I: IntoIterator<Item = Arc<ToolSpec>>>(specs: I) -> Self {
        Self(Arc::new(
            specs.into_iter().map(|spec| (spec.name.clone(), spec)).collect(),
        ))
    }
}

impl FromIterator<ToolSpec> for ToolSpecs {
    fn from_iter<I: IntoIterator<Item = ToolSpec>>(specs: I) -> Self {
        specs.into_iter().map(Arc::new).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn specs_are_found_by_name_and_listed_in_order() {
        let spec = |name: &str| ToolSpec::new(name, "", json!({})).unwrap();
        let specs: ToolSpecs = [spec("b"), spec("a")].into_iter().collect();
        assert_eq!(specs.names().map(AsRef::as_ref).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(specs.get("a").unwrap().name.as_ref(), "a");
        assert!(specs.get("c").is_none() && !specs.contains("c"));
        assert_eq!(specs.iter().count(), specs.len());
    }

    #[test]
    fn the_schema_is_kept_as_it_was_given() {
        let schema = json!({"type": "object", "properties": {"x": {}}});
        let spec = ToolSpec::new("t", "", schema.clone()).unwrap();
        assert_eq!(spec.parameters(), &schema);
    }
}
