//! What the commands share that go on with stored executions.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use soe_backends::{ExecutionId, ExecutionState, Status, TreeState};
use soe_core::config::{NodeKind, Registry, Workflow};
use soe_core::llm::Llms;
use soe_core::runtime::Engine;
use soe_core::tools::builtin;

use crate::args::{Format, LlmOptions};
use crate::awaited::triggers;
use crate::expect::Expectations;
use crate::interrupt::Interrupts;
use crate::log::Log;
use crate::output::{WARNING, paint, safe};
use crate::refusal::show_problems;
use crate::session::{Session, engine};
use crate::tools::Loaded as Tools;
use crate::waits::Lookout;
use crate::workflows::reachable;
use crate::{Colors, llm, store, tools};

/// The options of a command that goes on with stored executions, and what their files have.
pub(crate) struct GoingOn {
    pub(crate) store: PathBuf,
    pub(crate) format: Format,
    pub(crate) colors: Colors,
    tools: Tools,
    llm: LlmOptions,
    llms: llm::Files,
    /// Looks into the store. The engine that runs is made when it is known that it is needed: a recording replaces the one
    /// before.
    pub(crate) reader: Engine,
}

/// A stored execution.
pub(crate) struct Loaded {
    pub(crate) tree: Arc<TreeState>,
    pub(crate) state: Arc<ExecutionState>,
    /// Its workflows, and the one that it runs, if the store has them.
    pub(crate) registry: Option<Arc<Registry>>,
    pub(crate) workflow: Option<Arc<Workflow>>,
}

impl Loaded {
    /// Where it stands.
    pub(crate) fn status(&self) -> Option<Status> {
        self.tree.status(self.state.number)
    }

    pub(crate) fn root_status(&self) -> Option<Status> {
        self.tree.status(0)
    }
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

    /// A stored execution with its tree, which has all that it needs to go on.
    ///
    /// # Errors
    /// There is no such execution, or tools or LLMs are missing.
    pub(crate) async fn load(&self, id: &ExecutionId) -> anyhow::Result<Loaded> {
        let tree = self.reader.tree(id).await?;
        let Some(state) = tree.find(id).cloned() else {
            // The engine's own words.
            return Err(self
                .reader
                .status(id)
                .await
                .map_or_else(Into::into, |_| anyhow!("execution {id} is not there")));
        };
        self.check(&tree, Some(&state)).await?;
        let registry = Lookout::new(&self.reader, None).registry(&state).await?;
        let workflow = registry
            .as_ref()
            .and_then(|registry| registry.workflows.get(&state.workflow).cloned());
        Ok(Loaded {
            tree,
            state,
            registry,
            workflow,
        })
    }

    /// Checks that a tree has what it needs to go on: the root, what runs, and the execution that is addressed.
    ///
    /// # Errors
    /// Tools or LLMs are missing.
    pub(crate) async fn check(&self, tree: &TreeState, addressed: Option<&ExecutionState>) -> anyhow::Result<()> {
        let mut lookout = Lookout::new(&self.reader, None);
        let mut checked = BTreeSet::new();
        let is_addressed = |state: &ExecutionState| addressed.is_some_and(|addressed| addressed.number == state.number);
        for state in tree.executions.values() {
            let runs = state.status == Status::Running && tree.status(state.number) == Some(Status::Running);
            if !(state.number == 0 || runs || is_addressed(state))
                || !checked.insert((&state.registry, &state.workflow))
            {
                continue;
            }
            let Some(registry) = lookout.registry(state).await? else {
                continue;
            };
            if let Some(workflow) = registry.workflows.get(&state.workflow) {
                let tools = check_tools(&registry, workflow, &self.tools);
                let checked = tools.and_then(|()| llm::check_nodes(&registry, workflow, &self.llm));
                checked.with_context(|| format!("execution {}", state.id))?;
            }
        }
        Ok(())
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
            expectations: Expectations::default(),
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

/// A stored workflow, and those that its children run, run with the tools that this command has: they must be there.
pub(crate) fn check_tools(registry: &Registry, workflow: &Arc<Workflow>, tools: &Tools) -> anyhow::Result<()> {
    let mut workflows = reachable(registry, workflow).into_iter();
    workflows.try_for_each(|workflow| check_tools_of(workflow, tools))
}

fn check_tools_of(workflow: &Workflow, tools: &Tools) -> anyhow::Result<()> {
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
