//! Forks: new executions that go on with what another one had.

use std::sync::Arc;

use indexmap::IndexMap;
use soe_backends::{ExecutionId, History, Limits, Value};

use super::{Engine, EngineError, EngineErrorKind, Execution};
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

    /// Appends a value to a field of the root's context. What is tried again in the root reads it.
    pub fn field(mut self, name: impl Into<Arc<str>>, value: impl Into<Value>) -> Self {
        self.fields.entry(name.into()).or_default().push(value.into().bounded());
        self
    }

    /// Appends the entries of a JSON object to the fields of the root's context.
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
    /// Starts a tree that goes on with a copy of what the tree of `source` had: with its executions and their fields, counters and
    /// workflows, with what they share (identities, context schema, conversation history), and where they stood. What rested
    /// rests, until it is sent a signal; what ran runs by itself: runs in flight start again, under keys of the fork. What the
    /// root had failed with is tried again.
    ///
    /// The executions are named after the new root, with the same paths. The source isn't changed, may still run, and may be deleted
    /// afterwards. Its inbox isn't copied.
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
    /// As [`Engine::tree_at`] for the source, which must be a root ([`EngineErrorKind::NotRoot`]). The fork is refused (a reserved field, a limit, a tool, LLM or node type that this
    /// engine doesn't have), there is a tree of its id, the store fails, or the engine is shut down. Nothing was started
    /// then.
    pub async fn fork(&self, source: &ExecutionId, fork: Fork) -> Result<Execution, EngineError> {
        let shared = &self.shared;
        shared.check_open()?;
        if !source.is_root() {
            let kind = EngineErrorKind::NotRoot { root: source.root() };
            return Err(EngineError::new(kind).of(source));
        }
        let tree = match fork.version {
            Some(version) => shared.tree_at(source, version).await?,
            None => shared.load_tree(source).await?,
        };
        let registries = shared.call(shared.registries.load(&shared.backends, &tree)).await?;
        shared.check_taken_up(&tree, &registries)?;
        let turns = shared.call(shared.backends.turns_at(source, fork.version)).await?;
        let (fields, limits) = (fork.fields.into_iter().collect(), fork.limits);
        let begun = self.begin_as(fork.id, |id| {
            let fork = machine::Fork {
                id,
                source: tree,
                turns,
                registries,
                fields,
                limits,
            };
            Machine::fork(shared.now(), fork, shared.specs.clone())
        });
        begun.await?.execution(self).await
    }
}
