//! How an engine is put together.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use soe_backends::{Backends, Limits, Timestamp};

use super::Engine;
use super::shared::{Clock, Settings, Shared};
use crate::llm::{Llm, Llms, RegisterLlmError};
use crate::nodes::{CustomNode, NodeTypes, RegisterNodeError};
use crate::policy::Policy;
use crate::tools::{RegisterToolError, ToolDefinition, ToolRegistry};

/// Builds an [`Engine`]: stores, tools, node types, limits. Everything has a default.
///
/// ```
/// use soe_core::runtime::Engine;
///
/// let engine = Engine::builder().max_tasks(64).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "build() makes the engine"]
pub struct EngineBuilder {
    backends: Option<Backends>,
    tools: ToolRegistry,
    nodes: NodeTypes,
    llms: Llms,
    limits: Limits,
    max_tasks: Option<usize>,
    max_llm_calls: Option<usize>,
    clock: Clock,
    policy: Policy,
    lease: Duration,
    error: Option<BuildError>,
}

/// An engine that can't be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A tool was refused.
    #[error(transparent)]
    Tool(#[from] RegisterToolError),
    /// A node type was refused.
    #[error(transparent)]
    NodeType(#[from] RegisterNodeError),
    /// An LLM was refused.
    #[error(transparent)]
    Llm(#[from] RegisterLlmError),
    /// The policy names something that is no built-in tool.
    #[error("the policy names tools that are not built in: {}", .0.join(", "))]
    UnknownBuiltin(Vec<String>),
    /// With no request allowed, no LLM would ever be asked.
    #[error("max_llm_calls must be at least 1")]
    NoLlmCalls,
    /// With no task allowed, nothing would ever run.
    #[error("max_tasks must be at least 1")]
    NoTasks,
}

impl Default for EngineBuilder {
    fn default() -> Self {
        Self {
            backends: None,
            tools: ToolRegistry::new(),
            nodes: NodeTypes::new(),
            llms: Llms::new(),
            limits: Limits::default(),
            max_tasks: None,
            max_llm_calls: None,
            clock: Arc::new(|| Timestamp::from(SystemTime::now())),
            policy: Policy::default(),
            lease: Duration::from_secs(30),
            error: None,
        }
    }
}

impl EngineBuilder {
    /// Where executions are stored; in memory by default.
    pub fn backends(mut self, backends: Backends) -> Self {
        self.backends = Some(backends);
        self
    }

    /// Adds a tool. A refused one is the error of [`EngineBuilder::build`].
    pub fn tool(mut self, tool: ToolDefinition) -> Self {
        if let Err(error) = self.tools.register(tool) {
            self.error.get_or_insert(error.into());
        }
        self
    }

    /// Uses these tools; those added before are forgotten.
    pub fn tools(mut self, tools: ToolRegistry) -> Self {
        self.tools = tools;
        self
    }

    /// Adds a node type under the name that workflows give as `node_type`. A refused one is the error of
    /// [`EngineBuilder::build`].
    pub fn node_type(mut self, name: impl Into<Arc<str>>, node: impl CustomNode) -> Self {
        if let Err(error) = self.nodes.register(name, node) {
            self.error.get_or_insert(error.into());
        }
        self
    }

    /// The LLM for nodes that name none.
    ///
    /// ```
    /// use soe_core::llm::llm_fn;
    /// use soe_core::runtime::Engine;
    ///
    /// let engine = Engine::builder()
    ///     .llm(llm_fn(|prompt, _config| async move { Ok(format!("you said {prompt}")) }))
    ///     .build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn llm(mut self, llm: impl Into<Llm>) -> Self {
        self.llms.set_default(llm);
        self
    }

    /// Adds an LLM that nodes name in their field `llm`. A refused one is the error of [`EngineBuilder::build`].
    pub fn named_llm(mut self, name: impl Into<Arc<str>>, llm: impl Into<Llm>) -> Self {
        if let Err(error) = self.llms.register(name, llm) {
            self.error.get_or_insert(error.into());
        }
        self
    }

    /// Uses these LLMs; those added before are forgotten.
    pub fn llms(mut self, llms: Llms) -> Self {
        self.llms = llms;
        self
    }

    /// What an execution tree may use that brings no limits of its own.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// At most so many tool calls, requests to LLMs and custom nodes at a time, over all executions. The others wait; none
    /// is dropped. Unlimited by default.
    pub fn max_tasks(mut self, tasks: usize) -> Self {
        self.max_tasks = Some(tasks);
        self
    }

    /// At most so many requests to LLMs at a time, over all executions. The others wait; none is dropped. Unlimited by
    /// default; [`Llm::max_concurrency`] limits one LLM.
    pub fn max_llm_calls(mut self, calls: usize) -> Self {
        self.max_llm_calls = Some(calls);
        self
    }

    /// What workflows may do to themselves: which built-in tools there are, and how far they reach. By default they may
    /// change themselves within what their authors let them do: [`Policy::default`].
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// How long the engine's lease holds on what it runs, if it isn't renewed: when a process has ended without a word,
    /// another one may take up its executions after so long. (At once if it ran on the same machine and that is Linux.)
    /// 30 seconds by default; the engine renews it three times as often.
    pub fn lease(mut self, term: Duration) -> Self {
        self.lease = term;
        self
    }

    /// Where times come from; the system's clock by default. For tests.
    pub fn clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The engine.
    ///
    /// # Errors
    /// A tool or a node type was refused, a limit is zero, or the policy names a tool that is not built in.
    pub fn build(self) -> Result<Engine, BuildError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.max_tasks == Some(0) {
            return Err(BuildError::NoTasks);
        }
        if self.max_llm_calls == Some(0) {
            return Err(BuildError::NoLlmCalls);
        }
        if !self.policy.unknown_names().is_empty() {
            return Err(BuildError::UnknownBuiltin(self.policy.unknown_names().to_vec()));
        }
        let settings = Settings {
            backends: self.backends.unwrap_or_else(Backends::memory),
            tools: self.tools,
            nodes: self.nodes,
            llms: self.llms,
            limits: Arc::new(self.limits),
            max_tasks: self.max_tasks,
            max_llm_calls: self.max_llm_calls,
            clock: self.clock,
            policy: self.policy,
            lease: self.lease,
        };
        Ok(Engine::new(Shared::new(settings)))
    }
}

impl std::fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineBuilder")
            .field("tools", &self.tools)
            .field("nodes", &self.nodes)
            .field("llms", &self.llms)
            .field("limits", &self.limits)
            .field("max_tasks", &self.max_tasks)
            .field("max_llm_calls", &self.max_llm_calls)
            .field("policy", &self.policy)
            .field("lease", &self.lease)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}
