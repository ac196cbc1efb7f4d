//! What the executions of a tree share, for applications: conversation history, identities, context schema.

use std::sync::Arc;

use indexmap::IndexMap;
use soe_backends::{Backends, ExecutionId, Turn, Value};

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
        Ok(self.state(execution).await?.main_execution_id().clone())
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

    /// The identities: name to system prompt; empty where none are stored.
    ///
    /// # Errors
    /// The store fails.
    pub async fn identities(&self) -> Result<IndexMap<Arc<str>, Arc<str>>, EngineError> {
        match self.backends().identities() {
            Some(store) => Ok(store.identities(&self.main).await?),
            None => Ok(IndexMap::new()),
        }
    }

    /// Replaces the identities; with an empty map, deletes them. Requests that are made from now on see them.
    ///
    /// # Errors
    /// There is no store for identities, or it fails.
    pub async fn replace_identities(&self, identities: &IndexMap<Arc<str>, Arc<str>>) -> Result<(), EngineError> {
        let store = self.backends().identities().ok_or_else(|| missing("identities"))?;
        match identities.is_empty() {
            true => store.delete_identities(&self.main).await?,
            false => store.put_identities(&self.main, identities).await?,
        }
        Ok(())
    }

    /// The context schema: field to its definition; empty where none is stored.
    ///
    /// # Errors
    /// The store fails.
    pub async fn context_schema(&self) -> Result<IndexMap<Arc<str>, Value>, EngineError> {
        match self.backends().schemas() {
            Some(store) => Ok(store.schemas(&self.main).await?),
            None => Ok(IndexMap::new()),
        }
    }

    /// Replaces the context schema; with an empty map, deletes it. Requests that are made from now on see it.
    ///
    /// # Errors
    /// A definition is refused, there is no store for schemas, or it fails.
    pub async fn replace_context_schema(&self, schema: &IndexMap<Arc<str>, Value>) -> Result<(), EngineError> {
        ContextSchema::from_document(&Value::Map(Arc::new(schema.clone())))?;
        let store = self.backends().schemas().ok_or_else(|| missing("context schemas"))?;
        match schema.is_empty() {
            true => store.delete_schemas(&self.main).await?,
            false => store.put_schemas(&self.main, schema).await?,
        }
        Ok(())
    }

    fn backends(&self) -> &Backends {
        self.engine.backends()
    }
}

fn missing(what: &str) -> EngineError {
    EngineError::because(EngineErrorKind::Refused, format!("this engine has no store for {what}"))
}
