//! What the commands share that go on with stored executions.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use soe_backends::{ExecutionId, ExecutionState};
use soe_core::config::{NodeKind, Registry, Workflow};
use soe_core::llm::Llms;
use soe_core::runtime::Engine;
use soe_core::tools::builtin;

use crate::args::{Format, LlmOptions};
use crate::awaited::triggers;
use crate::interrupt::Interrupts;
use crate::log::Log;
use crate::output::{WARNING, paint, safe};
use crate::refusal::show_problems;
use crate::session::{Session, current_registry, engine};
use crate::tools::Loaded;
use crate::{Colors, llm, store, tools};

/// The options of a command that goes on with stored executions, and what their files have.
pub(crate) struct GoingOn {
    pub(crate) store: PathBuf,
    pub(crate) format: Format,
    pub(crate) colors: Colors,
    tools: Loaded,
    llm: LlmOptions,
    llms: llm::Files,
    /// Looks into the store. The engine that runs is made when it is known that it is needed: a recording replaces the one
    /// before.
    pub(crate) reader: Engine,
}

impl GoingOn {
    /// Reads the files of tools and LLMs, and opens the store. `None` if the files have errors; they are shown.
    pub(crate) async fn read(
        store: PathBuf,
        tools: &[PathBuf],
        llm: LlmOptions,
        format: Format,
        colors: Colors,
    ) -> anyhow::Result<Option<Self>> {
        llm.check()?;
        store::check(&store)?;
        let tools = tools::load(tools)?;
        let llms = llm::read(&llm)?;
        if !tools.is_usable() || !llms.problems.is_empty() {
            show_problems(tools.files.iter().chain(&llms.problems), None, &format, colors)?;
            return Ok(None);
        }
        let reader = engine(&tools, Llms::new(), Some(&store)).await?;
        Ok(Some(Self {
            store,
            format,
            colors,
            tools,
            llm,
            llms,
            reader,
        }))
    }

    /// A stored execution and the workflow that it runs, which has all that it needs.
    ///
    /// # Errors
    /// There is no such execution, or tools or LLMs are missing.
    pub(crate) async fn load(&self, id: &ExecutionId) -> anyhow::Result<(ExecutionState, Option<Arc<Workflow>>)> {
        let state = self.reader.state(id).await?;
        let workflow = self.check(&state).await?;
        Ok((state, workflow))
    }

    /// The workflow that a stored execution runs, which has all that it needs.
    ///
    /// # Errors
    /// Tools or LLMs are missing.
    pub(crate) async fn check(&self, state: &ExecutionState) -> anyhow::Result<Option<Arc<Workflow>>> {
        let registry = current_registry(&self.reader, state).await?;
        let workflow = registry
            .as_ref()
            .and_then(|registry| registry.workflows.get(&state.workflow).cloned());
        if let (Some(registry), Some(workflow)) = (&registry, &workflow) {
            let checked =
                check_tools(registry, workflow, &self.tools).and_then(|()| llm::check_nodes(workflow, &self.llm));
            checked.with_context(|| format!("execution {}", state.id))?;
        }
        Ok(workflow)
    }

    /// The engine, ready to run.
    pub(crate) async fn session(self) -> anyhow::Result<Session> {
        Ok(Session {
            engine: engine(&self.tools, llm::connect(&self.llm, &self.llms)?, Some(&self.store)).await?,
            tools: self.tools,
            llm: self.llm,
            scripted: self.llms.scripted,
            store: Some(self.store),
            format: self.format,
            colors: self.colors,
            interrupts: Interrupts::new()?,
            from_start: false,
        })
    }
}

/// A workflow that doesn't listen to what it is sent rests at once, which surprises.
pub(crate) fn warn_unheard(workflow: &Workflow, signals: &[String], log: &mut Log, session: &Session) {
    let batch: Vec<Arc<str>> = signals.iter().map(|signal| signal.as_str().into()).collect();
    if session.format.quiet || session.format.json || !workflow.listeners(&batch).is_empty() {
        return;
    }
    let names: Vec<_> = triggers(workflow).iter().map(|name| safe(name).into_owned()).collect();
    let text = format!(
        "no node of workflow '{}' listens to {}; they listen to {}",
        safe(&workflow.name),
        signals.join(", "),
        names.join(", ")
    );
    log.note(&format!("{}: {text}", paint(session.colors.stderr, WARNING, "warning")));
}

/// A stored workflow runs with the tools that this command has: they must be there.
pub(crate) fn check_tools(registry: &Registry, workflow: &Workflow, tools: &Loaded) -> anyhow::Result<()> {
    let (mut seen, mut left) = (BTreeSet::from([&workflow.name]), vec![workflow]);
    while let Some(workflow) = left.pop() {
        check_tools_of(workflow, tools)?;
        // What its children run needs to be there as well.
        let started = workflow.nodes.values().filter_map(|node| match &node.kind {
            NodeKind::Child(child) => registry.workflows.get(&child.workflow),
            _ => None,
        });
        left.extend(started.filter(|child| seen.insert(&child.name)).map(AsRef::as_ref));
    }
    Ok(())
}

fn check_tools_of(workflow: &Workflow, tools: &Loaded) -> anyhow::Result<()> {
    let specs = tools.registry.specs();
    let needed = workflow.nodes.values().flat_map(|node| match &node.kind {
        NodeKind::Tool(tool) => std::slice::from_ref(&tool.tool),
        NodeKind::Agent(agent) => agent.tools.as_slice(),
        _ => &[],
    });
    let is_there = |tool: &&Arc<str>| specs.contains(tool) || builtin::is_builtin(tool);
    let missing = needed.filter(|tool| !is_there(tool)).map(AsRef::as_ref);
    let missing: std::collections::BTreeSet<&str> = missing.collect();
    if !missing.is_empty() {
        let names = missing.into_iter().collect::<Vec<_>>().join(", ");
        bail!(
            "workflow '{}' needs the tools {names}: give the file that describes them with --tools",
            workflow.name
        );
    }
    Ok(())
}
