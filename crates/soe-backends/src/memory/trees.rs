//! What the executions of a tree share: identities, context schema, conversation history.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use indexmap::IndexMap;

use super::MemoryStore;
use crate::{
    BackendError, ContextSchemaBackend, ConversationHistoryBackend, ExecutionId, IdentityBackend, Turn, Value,
};

#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) identities: IndexMap<Arc<str>, Arc<str>>,
    pub(super) schemas: IndexMap<Arc<str>, Value>,
    turns: Vec<Turn>,
    /// The keys among `turns`, so that an append doesn't scan them.
    keys: HashSet<Arc<str>>,
}

impl Tree {
    pub(super) fn is_empty(&self) -> bool {
        self.identities.is_empty() && self.schemas.is_empty() && self.turns.is_empty()
    }

    pub(super) fn append(&mut self, turn: &Turn) {
        let is_new = turn.key.as_ref().is_none_or(|key| self.keys.insert(key.clone()));
        if is_new {
            self.turns.push(turn.clone());
        }
    }

    fn replace(&mut self, turns: &[Turn]) {
        self.turns = turns.to_vec();
        self.keys = turns.iter().filter_map(|turn| turn.key.clone()).collect();
    }
}

#[async_trait]
impl ContextSchemaBackend for MemoryStore {
    async fn schemas(&self, main: &ExecutionId) -> Result<IndexMap<Arc<str>, Value>, BackendError> {
        Ok(self.tree(main, |tree| tree.schemas.clone()))
    }

    async fn put_schemas(&self, main: &ExecutionId, schemas: &IndexMap<Arc<str>, Value>) -> Result<(), BackendError> {
        self.tree_mut(main, |tree| tree.schemas.clone_from(schemas));
        Ok(())
    }

    async fn delete_schemas(&self, main: &ExecutionId) -> Result<(), BackendError> {
        self.tree_mut(main, |tree| tree.schemas.clear());
        Ok(())
    }
}

#[async_trait]
impl IdentityBackend for MemoryStore {
    async fn identities(&self, main: &ExecutionId) -> Result<IndexMap<Arc<str>, Arc<str>>, BackendError> {
        Ok(self.tree(main, |tree| tree.identities.clone()))
    }

    async fn put_identities(
        &self,
        main: &ExecutionId,
        identities: &IndexMap<Arc<str>, Arc<str>>,
    ) -> Result<(), BackendError> {
        self.tree_mut(main, |tree| tree.identities.clone_from(identities));
        Ok(())
    }

    async fn delete_identities(&self, main: &ExecutionId) -> Result<(), BackendError> {
        self.tree_mut(main, |tree| tree.identities.clear());
        Ok(())
    }
}

#[async_trait]
impl ConversationHistoryBackend for MemoryStore {
    async fn turns(&self, main: &ExecutionId) -> Result<Vec<Turn>, BackendError> {
        Ok(self.tree(main, |tree| tree.turns.to_vec()))
    }

    async fn append_turns(&self, main: &ExecutionId, turns: &[Turn]) -> Result<(), BackendError> {
        self.tree_mut(main, |tree| {
            turns.iter().for_each(|turn| tree.append(turn));
        });
        Ok(())
    }

    async fn replace_turns(&self, main: &ExecutionId, turns: &[Turn]) -> Result<(), BackendError> {
        self.tree_mut(main, |tree| tree.replace(turns));
        Ok(())
    }

    async fn delete_turns(&self, main: &ExecutionId) -> Result<(), BackendError> {
        self.tree_mut(main, |tree| tree.replace(&[]));
        Ok(())
    }
}
