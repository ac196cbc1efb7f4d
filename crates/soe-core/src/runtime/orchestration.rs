//! What an execution is started with.

use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use soe_backends::{ExecutionId, ExecutionState, History, Limits, Schedule, Value};

use crate::config::Config;

/// What an execution is started with: a checked configuration or that of another execution, the workflow to run, its first
/// signals and its context.
///
/// ```
/// use soe_core::config::Config;
/// use soe_core::runtime::Orchestration;
///
/// let config = Config::from_yaml(
///     "hello: {Start: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: DONE}]}}",
/// )?;
/// let orchestration = Orchestration::new(config, "hello").signal("START").field("user", "alice");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "an orchestration does nothing until it is given to an engine"]
pub struct Orchestration {
    /// Without one, the workflows are inherited.
    pub(super) config: Option<Arc<Config>>,
    pub(super) config_from: Option<ExecutionId>,
    pub(super) context_from: Option<ExecutionId>,
    pub(super) workflow: Arc<str>,
    pub(super) signals: Vec<Arc<str>>,
    pub(super) fields: IndexMap<Arc<str>, History>,
    pub(super) id: Option<ExecutionId>,
    pub(super) schedule: Schedule,
    pub(super) limits: Option<Arc<Limits>>,
}

impl Orchestration {
    /// Runs `workflow` out of `config`. One configuration can be shared by any number of executions.
    pub fn new(config: impl Into<Arc<Config>>, workflow: impl Into<Arc<str>>) -> Self {
        Self {
            config: Some(config.into()),
            ..Self::without_config(workflow)
        }
    }

    /// Runs `workflow` out of what is [inherited](Self::inherit_config_from).
    pub fn without_config(workflow: impl Into<Arc<str>>) -> Self {
        Self {
            config: None,
            config_from: None,
            context_from: None,
            workflow: workflow.into(),
            signals: Vec::new(),
            fields: IndexMap::new(),
            id: None,
            schedule: Schedule::default(),
            limits: None,
        }
    }

    /// Adds a signal to the first batch.
    pub fn signal(mut self, signal: impl Into<Arc<str>>) -> Self {
        self.signals.push(signal.into());
        self
    }

    /// Adds signals to the first batch.
    pub fn signals<S: Into<Arc<str>>>(mut self, signals: impl IntoIterator<Item = S>) -> Self {
        self.signals.extend(signals.into_iter().map(Into::into));
        self
    }

    /// Appends a value to a field of the initial context. The engine refuses one that is [too deep](Value::is_too_deep).
    pub fn field(mut self, name: impl Into<Arc<str>>, value: impl Into<Value>) -> Self {
        self.fields.entry(name.into()).or_default().push(value.into().bounded());
        self
    }

    /// Appends the entries of a JSON object to the fields of the initial context.
    pub fn context(self, fields: serde_json::Map<String, serde_json::Value>) -> Self {
        fields
            .into_iter()
            .fold(self, |this, (name, value)| this.field(name, value))
    }

    /// Starts with the histories of an exported context; fields given besides are appended to them.
    pub fn import(mut self, export: ContextExport) -> Self {
        self.fields = appended(export.fields, self.fields);
        self
    }

    /// Copies the configuration of an execution: its workflows as they are now, changes at run time included, and the
    /// identities and the context schema of its tree. What a configuration that is given besides has of these (workflows,
    /// `identities`, `context_schema`) is taken from there instead, section by section.
    ///
    /// The new execution has its own copy: nothing depends on the source afterwards. The workflows are checked against the
    /// engine's tools, LLMs and node types, as those of a given configuration are.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use soe_core::config::Config;
    /// use soe_core::runtime::{Engine, Orchestration};
    ///
    /// let engine = Engine::builder().build()?;
    /// let config = Config::from_yaml(
    ///     "hello: {Start: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: DONE}]}}",
    /// )?;
    /// let first = engine.orchestrate(Orchestration::new(config, "hello").signal("START").field("user", "alice")).await?;
    /// let next = Orchestration::without_config("hello")
    ///     .inherit_config_from(first.execution.clone())
    ///     .inherit_context_from(first.execution)
    ///     .signal("START");
    /// let next = engine.orchestrate(next).await?;
    /// assert_eq!(engine.context(&next.execution).await?.value("user"), Some(&"alice".into()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn inherit_config_from(mut self, source: ExecutionId) -> Self {
        self.config_from = Some(source);
        self
    }

    /// Copies the context of an execution: every field with its whole history. Fields that are given besides are appended to
    /// that. What the engine counts (`__operational__`) and who the parent was (`__parent__`) are not copied; the limits
    /// hold as for any initial context.
    pub fn inherit_context_from(mut self, source: ExecutionId) -> Self {
        self.context_from = Some(source);
        self
    }

    /// The execution's id; without it, the engine makes one. One that ends like the id of a child (`.3.0`, or a dot and 32
    /// hexadecimal digits) is refused.
    pub fn id(mut self, id: ExecutionId) -> Self {
        self.id = Some(id);
        self
    }

    /// The order in which nodes run; concurrent by default.
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// What the execution and its children may use; without it, the engine's limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(Arc::new(limits));
        self
    }
}

/// Histories with others behind them.
pub(super) fn appended(
    mut fields: IndexMap<Arc<str>, History>,
    more: IndexMap<Arc<str>, History>,
) -> IndexMap<Arc<str>, History> {
    for (name, history) in more {
        let entry = fields.entry(name).or_default();
        history.iter().for_each(|value| entry.push(value.clone()));
    }
    fields
}

/// The context of an execution, to be kept or moved: every field with its whole history. Reserved fields are left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContextExport {
    /// The execution that it comes from.
    pub execution: ExecutionId,
    /// The workflow that it ran.
    pub workflow: Arc<str>,
    /// The histories.
    pub fields: IndexMap<Arc<str>, History>,
}

impl ContextExport {
    pub(super) fn of(state: &ExecutionState) -> Self {
        let fields = state
            .context
            .fields
            .iter()
            .map(|(name, history)| (name.clone(), history.clone()))
            .collect();
        Self {
            execution: state.id.clone(),
            workflow: state.workflow.clone(),
            fields,
        }
    }
}
