//! Forks: new executions that go on with what another one had.

use std::sync::Arc;

use indexmap::IndexMap;
use soe_backends::{ExecutionId, History, Limits, Value};

use super::{Engine, EngineError, Execution};
use crate::machine::{self, Machine};

/// From where a fork goes on, and what is different in it.
///
/// ```
/// use soe_core::runtime::Fork;
///
/// let fork = Fork::at(12).field("tone", "kinder");
/// ```
#[derive(Clone, Debug)]
#[must_use = "a fork does nothing until it is given to an engine"]
pub struct Fork {
    version: Option<u64>,
    fields: IndexMap<Arc<str>, History>,
    id: Option<ExecutionId>,
    limits: Option<Arc<Limits>>,
}

impl Fork {
    /// Goes on from a version: from what that commit of the source made.
    pub fn at(version: u64) -> Self {
        Self {
            version: Some(version),
            ..Self::latest()
        }
    }

    /// Goes on from what is stored now. That can be had of every store.
    pub fn latest() -> Self {
        Self {
            version: None,
            fields: IndexMap::new(),
            id: None,
            limits: None,
        }
    }

    /// Appends a value to a field of the context.
    pub fn field(mut self, name: impl Into<Arc<str>>, value: impl Into<Value>) -> Self {
        self.fields.entry(name.into()).or_default().push(value.into().bounded());
        self
    }

    /// Appends the entries of a JSON object to the fields of the context.
    pub fn context(self, fields: serde_json::Map<String, serde_json::Value>) -> Self {
        fields
            .into_iter()
            .fold(self, |this, (name, value)| this.field(name, value))
    }

    /// The fork's id; without it, the engine makes one. As for [`Orchestration::id`](super::Orchestration::id), one that ends like the id of a child is refused.
    pub fn id(mut self, id: ExecutionId) -> Self {
        self.id = Some(id);
        self
    }

    /// What the fork and its children may use; without it, what the source may.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(Arc::new(limits));
        self
    }
}

impl Engine {
    /// Starts an execution that goes on with a copy of what `source` had: with its fields, its counters, its workflows, what its
    /// tree shared (identities, context schema, conversation history), and where it stood. One that rested rests, until it is
    /// sent a signal; one that ran runs by itself: runs in flight start again from their beginning, and read the fork's
    /// context. What the source had failed with is tried again.
    ///
    /// The fork is the root of a tree of its own. It has no parent and no children: what those had still to tell doesn't come. A
    /// child node in flight starts its children again. The source isn't changed, may still run, and may be deleted afterwards.
    ///
    /// Cancel safety: as [`Engine::start`].
    ///
    /// ```no_run
    /// # async fn example(engine: &soe_core::runtime::Engine, order: &soe_backends::ExecutionId) -> Result<(), Box<dyn std::error::Error>> {
    /// use soe_core::runtime::Fork;
    ///
    /// let other = engine.fork(order, Fork::at(7).field("price", 90)).await?;
    /// other.wait().await?;
    /// println!("{:?}", other.context().await?.value("answer"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Engine::state_at`] for the source. The fork is refused (a reserved field, a limit, a tool, LLM or node type that this
    /// engine doesn't have), there is an execution of its id, the store fails, or the engine is shut down. Nothing was started
    /// then.
    pub async fn fork(&self, source: &ExecutionId, fork: Fork) -> Result<Execution, EngineError> {
        let shared = &self.shared;
        shared.check_open()?;
        let state = match fork.version {
            Some(version) => shared.state_at(source, version).await?,
            None => shared.load(source).await?,
        };
        let registries = shared.call(shared.registries.load(&shared.backends, &state)).await?;
        for registry in &registries {
            shared.check_runnable(registry, &state.workflow)?;
        }
        let main = state.main_execution_id();
        let tree = shared
            .call(shared.backends.shared_at(source, fork.version, main))
            .await?;
        let (fields, limits) = (fork.fields.into_iter().collect(), fork.limits);
        let begun = self.begin_as(fork.id, |id| {
            let fork = machine::Fork {
                id,
                source: state,
                shared: tree,
                registries,
                fields,
                limits,
            };
            Machine::fork(shared.now(), fork, shared.specs.clone())
        });
        begun.await?.execution(self).await
    }
}
