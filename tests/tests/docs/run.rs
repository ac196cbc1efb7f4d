//! Running a workflow of the documentation.
//!
//! The first workflow is started with `START`. Every tool that it names is a stub that returns its arguments. Two comments can
//! say more, each on a line of its own:
//!
//! ```yaml
//! # context: {"attempts": 3}          what the execution starts with, as JSON
//! # signals: START, A_DONE, DONE      what is broadcast altogether, in order
//! ```

use serde_json::{Map, Value};
use soe_core::config::{Config, NodeKind, Registry};
use soe_core::runtime::{Engine, Orchestration};
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
    let engine = engine(config.registry())?;
    let context: Map<String, Value> = match comment(text, "context") {
        Some(json) => serde_json::from_str(json)?,
        None => Map::new(),
    };
    let orchestration = Orchestration::new(config, workflow).signal("START").context(context);
    let finished = engine.orchestrate(orchestration).await?;

    for event in engine.telemetry(&finished.execution, 0, 10_000).await? {
        if ["context_warning", "node_error"].contains(&event.kind.name()) {
            return Err(format!("while it ran: {:?}", event.kind).into());
        }
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

/// An engine with a stub for every tool that the workflows name.
fn engine(registry: &Registry) -> Result<Engine, Box<dyn std::error::Error>> {
    let mut names = Vec::new();
    for node in registry.workflows.values().flat_map(|workflow| workflow.nodes.values()) {
        if let NodeKind::Tool(tool) = &node.kind
            && !names.contains(&tool.tool)
        {
            names.push(tool.tool.clone());
        }
    }
    let stub = |arguments: Value, _: ToolContext| async move { Ok::<_, ToolError>(arguments) };
    let builder = names.into_iter().fold(Engine::builder(), |builder, name| {
        builder.tool(raw_tool(name, "Returns its arguments.", stub))
    });
    Ok(builder.build()?)
}
