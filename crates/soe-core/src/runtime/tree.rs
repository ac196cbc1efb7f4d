//! What the executions of a tree share, for applications: conversation history, identities, context schema.

use std::sync::Arc;

use indexmap::IndexMap;
use soe_backends::{Backends, Definitions, ExecutionId, Turn, Value};

use super::{Engine, EngineError, EngineErrorKind};
use crate::config::ContextSchema;

/// The conversation history of an execution tree, from any execution in it. See [`Engine::conversation`].
#[derive(Clone, Debug)]
pub struct Conversation {
    engine: Engine,
    main: ExecutionId,
}

/// The identities and the context schema of an execution tree, from any execution in it. See [`Engine::definitions`].
#[derive(Clone, Debug)]
pub struct TreeDefinitions {
    engine: Engine,
    main: ExecutionId,
}

impl Engine {
    /// The conversation history that an execution shares with its tree.
    ///
    /// # Errors
    /// The execution doesn't exist, or the store fails.
    pub async fn conversation(&self, execution: &ExecutionId) -> Result<Conversation, EngineError> {
        Ok(Conversation {
            engine: self.clone(),
            main: self.main_of(execution).await?,
        })
    }

    /// The identities and the context schema that an execution shares with its tree.
    ///
    /// # Errors
    /// The execution doesn't exist, or the store fails.
    pub async fn definitions(&self, execution: &ExecutionId) -> Result<TreeDefinitions, EngineError> {
        Ok(TreeDefinitions {
            engine: self.clone(),
            main: self.main_of(execution).await?,
        })
    }

    async fn main_of(&self, execution: &ExecutionId) -> Result<ExecutionId, EngineError> {
        Ok(self.state(execution).await?.id.root())
    }
}

impl Conversation {
    /// The root of the tree, whose history it is.
    pub fn main_execution_id(&self) -> &ExecutionId {
        &self.main
    }

    /// All turns, oldest first; empty where no history is stored.
    ///
    /// # Errors
    /// The store fails.
    pub async fn turns(&self) -> Result<Vec<Turn>, EngineError> {
        match self.backends().conversations() {
            Some(store) => Ok(store.turns(&self.main).await?),
            None => Ok(Vec::new()),
        }
    }

    /// Appends turns together. Those whose key is stored already are left out.
    ///
    /// # Errors
    /// There is no store for histories, or it fails.
    pub async fn append(&self, turns: &[Turn]) -> Result<(), EngineError> {
        let store = self
            .backends()
            .conversations()
            .ok_or_else(|| missing("conversation histories"))?;
        Ok(store.append_turns(&self.main, turns).await?)
    }

    /// Replaces the history. A turn that a node appends at the same time is before or after that, as a whole.
    ///
    /// # Errors
    /// There is no store for histories, or it fails.
    pub async fn replace(&self, turns: &[Turn]) -> Result<(), EngineError> {
        let store = self
            .backends()
            .conversations()
            .ok_or_else(|| missing("conversation histories"))?;
        Ok(store.replace_turns(&self.main, turns).await?)
    }

    /// Deletes the history.
    ///
    /// # Errors
    /// The store fails.
    pub async fn delete(&self) -> Result<(), EngineError> {
        match self.backends().conversations() {
            Some(store) => Ok(store.delete_turns(&self.main).await?),
            None => Ok(()),
        }
    }

    fn backends(&self) -> &Backends {
        self.engine.backends()
    }
}

impl TreeDefinitions {
    /// The root of the tree, whose definitions they are.
    pub fn main_execution_id(&self) -> &ExecutionId {
        &self.main
    }

    /// The identities: name to system prompt.
    ///
    /// # Errors
    /// The tree doesn't exist any more, or the store fails.
    pub async fn identities(&self) -> Result<IndexMap<Arc<str>, Arc<str>>, EngineError> {
        Ok(self.current().await?.identities)
    }

    /// Replaces the identities. Requests that are made from now on see them. If another process runs the tree, that one does it.
    ///
    /// # Errors
    /// The tree doesn't exist any more, the store fails, or the engine is shut down.
    pub async fn replace_identities(&self, identities: &IndexMap<Arc<str>, Arc<str>>) -> Result<(), EngineError> {
        let definitions = Definitions {
            identities: identities.clone(),
            ..self.current().await?
        };
        self.engine.shared.define(&self.main, definitions).await
    }

    /// The context schema: field to its definition.
    ///
    /// # Errors
    /// The tree doesn't exist any more, or the store fails.
    pub async fn context_schema(&self) -> Result<IndexMap<Arc<str>, Value>, EngineError> {
        Ok(self.current().await?.context_schema)
    }

    /// Replaces the context schema. Requests that are made from now on see it. If another process runs the tree, that one does
    /// it.
    ///
    /// # Errors
    /// A definition is refused, the tree doesn't exist any more, the store fails, or the engine is shut down.
    pub async fn replace_context_schema(&self, schema: &IndexMap<Arc<str>, Value>) -> Result<(), EngineError> {
        ContextSchema::from_document(&Value::Map(Arc::new(schema.clone())))?;
        let definitions = Definitions {
            context_schema: schema.clone(),
            ..self.current().await?
        };
        self.engine.shared.define(&self.main, definitions).await
    }

    async fn current(&self) -> Result<Definitions, EngineError> {
        let tree = self.engine.shared.load_tree(&self.main).await?;
        Ok(tree.definitions.as_ref().clone())
    }
}

fn missing(what: &str) -> EngineError {
    EngineError::because(EngineErrorKind::Refused, format!("this engine has no store for {what}"))
}
