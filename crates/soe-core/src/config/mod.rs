//! Workflow configuration: YAML or parsed values become typed workflows, checked before anything runs.
//!
//! [`Config::from_yaml`] reads, checks and compiles in one pass, and reports every problem it meets. At run time,
//! [`Registry::with_workflow`] and [`Registry::with_node`] check and compile what is injected in the same way.

mod codes;
mod diagnostic;
mod document;
mod graph;
mod read;
mod registry;
mod schema;
mod text;
mod workflow;
mod yaml;

pub use diagnostic::{ConfigError, Diagnostic, Report, Severity};
pub use document::{Config, Identities, ValidateOptions, validate, validate_value};
pub(crate) use read::closest;
pub use registry::Changed;
pub use schema::{ContextSchema, FieldSchema, FieldType};
pub use workflow::{
    AgentNode, Arguments, ChildNode, Condition, Emission, FanOut, LlmNode, Node, NodeKind, Parameter, Registry,
    ToolNode, Workflow,
};
#[cfg(feature = "testing")]
pub(crate) use yaml::{Content, Mapping, Tree, read_document};
pub use yaml::{Position, YamlError, YamlErrorKind, parse_yaml};

#[cfg(test)]
mod tests;
