//! What `soe run` takes of stored executions.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use soe_backends::ExecutionId;
use soe_core::config::{Config, Registry};
use soe_core::runtime::{Engine, Orchestration};

use crate::args::Inherit;

/// The workflows that one is chosen of.
pub(crate) struct Workflows {
    pub(crate) registry: Arc<Registry>,
    /// Where they are from, for errors: `in the file`.
    place: String,
    /// The one that the execution ran which they are inherited from.
    usual: Option<Arc<str>>,
}

impl Workflows {
    /// Those of the file, or else of the execution that the configuration is inherited from.
    pub(crate) async fn of(config: Option<&Config>, inherit: &Inherit, engine: &Engine) -> anyhow::Result<Self> {
        let own = config.map(Config::registry).cloned();
        match (own, &inherit.config) {
            (Some(registry), source) if source.is_none() || !registry.workflows.is_empty() => Ok(Self {
                registry,
                place: "in the file".to_owned(),
                usual: None,
            }),
            (_, Some(source)) => {
                let state = engine.state(source).await?;
                Ok(Self {
                    registry: engine.workflows(source).await?,
                    place: format!("in execution {source}"),
                    usual: Some(state.workflow.clone()),
                })
            }
            (_, None) => bail!("there are no workflows: a workflow file or --inherit-config is needed"),
        }
    }

    /// The workflow to run.
    pub(crate) fn choose(&self, wanted: Option<&str>) -> anyhow::Result<String> {
        let workflows = &self.registry.workflows;
        let names: Vec<&str> = workflows.keys().map(AsRef::as_ref).collect();
        let place = &self.place;
        let usual = self.usual.as_deref().filter(|name| workflows.contains_key(*name));
        match (wanted, names.as_slice()) {
            (Some(name), _) if workflows.contains_key(name) => Ok(name.to_owned()),
            (Some(name), _) => bail!("there is no workflow '{name}' {place}; there are: {}", names.join(", ")),
            (None, [only]) => Ok((*only).to_owned()),
            (None, []) => bail!("there is no workflow {place}"),
            (None, _) => usual.map(str::to_owned).with_context(|| {
                let names = names.join(", ");
                format!("there are several workflows {place}: say with --workflow which of them: {names}")
            }),
        }
    }
}

impl Inherit {
    /// Refuses sources that are not there, before anything is begun.
    pub(crate) async fn check(&self, engine: &Engine) -> anyhow::Result<()> {
        for (source, what) in [(&self.config, "configuration"), (&self.context, "context")] {
            if let Some(source) = source {
                exists(engine, source)
                    .await
                    .with_context(|| format!("the {what} can't be inherited"))?;
            }
        }
        Ok(())
    }

    pub(crate) fn any(&self) -> bool {
        self.config.is_some() || self.context.is_some()
    }

    /// What is to be run, with what it inherits.
    pub(crate) fn orchestration(&self, config: Option<Arc<Config>>, workflow: String) -> Orchestration {
        let mut orchestration = match config {
            Some(config) => Orchestration::new(config, workflow),
            None => Orchestration::without_config(workflow),
        };
        if let Some(source) = &self.config {
            orchestration = orchestration.inherit_config_from(source.clone());
        }
        if let Some(source) = &self.context {
            orchestration = orchestration.inherit_context_from(source.clone());
        }
        orchestration
    }
}

async fn exists(engine: &Engine, id: &ExecutionId) -> anyhow::Result<()> {
    // The text alone: nothing was started, so it is no error of an execution.
    let status = engine.status(id).await;
    status.map(drop).map_err(|error| anyhow::anyhow!("{error:#}"))
}
