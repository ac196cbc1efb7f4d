//! What a new execution starts with: given, or copied from others.

use std::sync::Arc;

use indexmap::IndexMap;
use soe_backends::{Definitions, ExecutionId, ExecutionState, History};

use super::orchestration::{ContextExport, appended};
use super::shared::Shared;
use super::{EngineError, EngineErrorKind, Orchestration};
use crate::config::{Config, Registry};
use crate::machine::Inherited;

/// What a new execution starts with.
pub(super) struct Given {
    pub(super) registry: Arc<Registry>,
    pub(super) definitions: Definitions,
    pub(super) fields: IndexMap<Arc<str>, History>,
    pub(super) inherited: Inherited,
}

impl Shared {
    /// Takes what an orchestration gives, and copies what it inherits.
    ///
    /// # Errors
    /// There are no workflows, a source doesn't exist, or the store fails.
    pub(super) async fn given(&self, orchestration: &mut Orchestration) -> Result<Given, EngineError> {
        let config = orchestration.config.as_deref();
        let (registry, definitions) = match (&orchestration.config_from, config) {
            (Some(source), config) => self.inherited_config(source, config).await?,
            (None, Some(config)) => (config.registry().clone(), definitions(config)),
            (None, None) => {
                let message = "there are no workflows: either a config or inherit_config_from is needed";
                return Err(EngineError::because(EngineErrorKind::Refused, message));
            }
        };
        let mut given = Given {
            registry,
            definitions,
            fields: std::mem::take(&mut orchestration.fields),
            inherited: Inherited {
                config_from: orchestration.config_from.take(),
                ..Inherited::default()
            },
        };
        if let Some(source) = orchestration.context_from.take() {
            let state = self.source(&source, "context", "inherit_context_from").await?;
            given.inherited.merged = given.fields.keys().cloned().collect();
            given.fields = appended(ContextExport::of(&state).fields, given.fields);
            given.inherited.context_from = Some(source);
        }
        Ok(given)
    }

    /// What `config` has, and the rest of `source`.
    async fn inherited_config(
        &self,
        source: &ExecutionId,
        config: Option<&Config>,
    ) -> Result<(Arc<Registry>, Definitions), EngineError> {
        let state = self.source(source, "configuration", "inherit_config_from").await?;
        // A configuration must have the section: an empty one gives nothing.
        let own = config.map(Config::registry).filter(|own| !own.workflows.is_empty());
        let registry = match own {
            Some(own) => own.clone(),
            None => self.registry(&state.registry, source).await?,
        };
        let tree = self.load_tree(source).await?;
        let mut inherited = tree.definitions.as_ref().clone();
        if let Some(config) = config {
            let own = definitions(config);
            if config.identities().is_some() {
                inherited.identities = own.identities;
            }
            if config.context_schema().is_some() {
                inherited.context_schema = own.context_schema;
            }
        }
        Ok((registry, inherited))
    }

    async fn source(&self, source: &ExecutionId, what: &str, by: &str) -> Result<Arc<ExecutionState>, EngineError> {
        self.find(source).await?.ok_or_else(|| {
            let message = format!("its {what} can't be inherited ({by})");
            EngineError::because(EngineErrorKind::NotFound, message).of(source)
        })
    }
}

/// What is stored for an execution's tree.
fn definitions(config: &Config) -> Definitions {
    let schema = config.context_schema().and_then(|schema| schema.document.as_map());
    Definitions {
        identities: config
            .identities()
            .map(|identities| identities.as_ref().clone())
            .unwrap_or_default(),
        context_schema: schema.cloned().unwrap_or_default(),
    }
}
