//! Running a workflow of the documentation.
//!
//! The first workflow is started with `START`. Every tool that it names is a stub that returns its arguments. Comments can
//! say more, each on a line of its own:
//!
//! ```yaml
//! # context: {"attempts": 3}          what the execution starts with, as JSON
//! # reply: - {node: Ask, output: 5}   a rule of the mocked LLM; all of them have to be used
//! # signals: START, A_DONE, DONE      what is broadcast altogether, in order
//! ```

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use soe_core::config::{Config, NodeKind, Registry};
use soe_core::runtime::{Engine, Orchestration};
use soe_core::testing::MockLlm;
use soe_core::tools::{ToolContext, ToolError, raw_tool};

/// Runs a workflow to rest; says what goes wrong, what validation warns about, and what differs from what its comments say.
pub(crate) async fn run(text: &str) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::from_yaml(text)?;
    if let Some(warning) = config.warnings().first() {
        return Err(warning.to_string().into());
    }
    let workflow = config
        .registry()
        .workflows
        .keys()
        .next()
        .cloned()
        .ok_or("there is no workflow")?;
    let llm = llm(text)?;
    let engine = engine(config.registry(), &llm)?;
    let context: Map<String, Value> = match comment(text, "context") {
        Some(json) => serde_json::from_str(json)?,
        None => Map::new(),
    };
    let orchestration = Orchestration::new(config, workflow).signal("START").context(context);
    let finished = engine.orchestrate(orchestration).await?;

    for event in engine.telemetry(&finished.execution, 0, 10_000).await? {
        // A script may have replies that are meant to be refused.
        let is_problem = match event.kind.name() {
            "context_warning" => true,
            "node_error" => llm.calls() == 0,
            _ => false,
        };
        if is_problem {
            return Err(format!("while it ran: {:?}", event.kind).into());
        }
    }
    if let Some(unused) = llm.unused().first() {
        return Err(format!("not used: {unused}").into());
    }
    let Some(expected) = comment(text, "signals") else {
        return Ok(());
    };
    let context = engine.context(&finished.execution).await?;
    let broadcast: Vec<&str> = context.operational.signals.iter().map(AsRef::as_ref).collect();
    let broadcast = broadcast.join(", ");
    match broadcast == expected {
        true => Ok(()),
        false => Err(format!("it broadcasts {broadcast}, not {expected}").into()),
    }
}

/// What a comment `# NAME: ...` says.
fn comment<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let prefix = format!("# {name}: ");
    text.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::trim)
}

/// The LLM that the comments script; without a script, none of its requests is answered.
fn llm(text: &str) -> Result<MockLlm, Box<dyn std::error::Error>> {
    let rules: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# reply: ")).collect();
    match rules.is_empty() {
        true => Ok(MockLlm::new()),
        false => Ok(MockLlm::from_yaml(&rules.join("\n"))?),
    }
}

/// An engine with a stub for every tool that the workflows name, and the mock for every LLM.
fn engine(registry: &Registry, llm: &MockLlm) -> Result<Engine, Box<dyn std::error::Error>> {
    let (mut tools, mut llms) = (BTreeSet::new(), BTreeSet::new());
    for node in registry.workflows.values().flat_map(|workflow| workflow.nodes.values()) {
        match &node.kind {
            NodeKind::Tool(tool) => _ = tools.insert(tool.tool.clone()),
            NodeKind::Llm(llm) => llms.extend(llm.llm.clone()),
            NodeKind::Agent(agent) => {
                tools.extend(agent.tools.iter().cloned());
                llms.extend(agent.llm.llm.clone());
            }
            _ => {}
        }
    }
    let stub = |arguments: Value, _: ToolContext| async move { Ok::<_, ToolError>(arguments) };
    let builder = Engine::builder().llm(llm.clone());
    let builder = llms
        .into_iter()
        .fold(builder, |builder, name| builder.named_llm(name, llm.clone()));
    let builder = tools.into_iter().fold(builder, |builder, name| {
        builder.tool(raw_tool(name, "Returns its arguments.", stub))
    });
    Ok(builder.build()?)
}
