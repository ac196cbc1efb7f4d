//! Running a workflow of the documentation.
//!
//! The first workflow is started with `START`. Every tool that it names is a stub that returns its arguments; built-in
//! tools are real. Comments can say more, each on a line of its own:
//!
//! ```yaml
//! # context: {"attempts": 3}          what the execution starts with, as JSON
//! # limits: {"llm_calls": 3}          its limits
//! # reply: - {node: Ask, output: 5}   a rule of the mocked LLM; all of them have to be used
//! # tool: {"name": "fetch", "answers": [{"error": "down"}, 5], "failure_signal": "FETCH_FAILED"}
//! # tool: {"name": "work", "sends": ["PAUSE"]}   signals that it sends, and other keys: see `ScriptedTool`
//! # then: APPROVED                    a batch that is sent from outside when the execution rests
//! # signals: START, A_DONE, DONE      what is broadcast altogether, in order
//! # fields: {"total": 5}              values that fields have at the end
//! # fails: llm_calls                  the execution fails, and its error says this
//! # denied: may not use               the policy denies calls, each with a reason that says this
//! ```

use std::collections::BTreeSet;

use soe_backends::{EventKind, ExecutionId};
use soe_core::config::{Config, NodeKind, Registry};
use soe_core::runtime::{Engine, EngineError, Orchestration};

use crate::script::{Script, ScriptedTool};

type Problem = Box<dyn std::error::Error>;

/// Runs a workflow to rest; says what goes wrong, what validation warns about, and what differs from what its comments say.
pub(crate) async fn run(text: &str) -> Result<(), Problem> {
    let config = Config::from_yaml(text)?;
    if let Some(warning) = config.warnings().first() {
        return Err(warning.to_string().into());
    }
    let script = Script::of(text)?;
    let first = config.registry().workflows.keys().next().cloned();
    let workflow = first.ok_or("there is no workflow")?;
    let engine = engine(config.registry(), &script)?;
    let orchestration = Orchestration::new(config, workflow)
        .id("documented".parse()?)
        .signal("START")
        .context(script.context.clone());
    let orchestration = match &script.limits {
        Some(limits) => orchestration.limits(limits.clone()),
        None => orchestration,
    };
    let id: ExecutionId = "documented".parse()?;
    match (
        run_to_the_end(&engine, &id, orchestration, &script).await,
        &script.fails,
    ) {
        (Ok(()), None) => {}
        (Ok(()), Some(expected)) => return Err(format!("it doesn't fail with '{expected}'").into()),
        (Err(error), Some(expected)) if format!("{error:#}").contains(expected) => {}
        (Err(error), _) => return Err(error.into()),
    }
    if let Some(unused) = script.llm.unused().first() {
        return Err(format!("not used: {unused}").into());
    }
    check_events(&engine, &id, &script).await?;
    check_result(&engine, &id, &script).await
}

async fn run_to_the_end(
    engine: &Engine,
    id: &ExecutionId,
    orchestration: Orchestration,
    script: &Script,
) -> Result<(), EngineError> {
    engine.orchestrate(orchestration).await?;
    for batch in &script.then {
        engine.broadcast_signals(id, batch.iter().map(String::as_str)).await?;
        engine.wait(id).await?;
    }
    Ok(())
}

async fn check_events(engine: &Engine, id: &ExecutionId, script: &Script) -> Result<(), Problem> {
    let mut denied = false;
    for event in engine.telemetry(id, 0, 10_000).await? {
        let is_problem = match &event.kind {
            EventKind::ContextWarning { .. } => true,
            EventKind::NodeError { .. } => !script.has_failures(),
            EventKind::PolicyDenied { reason, .. } => {
                denied = true;
                !script.denied.as_ref().is_some_and(|expected| reason.contains(expected))
            }
            _ => false,
        };
        if is_problem {
            return Err(format!("while it ran: {:?}", event.kind).into());
        }
    }
    match &script.denied {
        Some(expected) if !denied => Err(format!("nothing is denied with '{expected}'").into()),
        _ => Ok(()),
    }
}

async fn check_result(engine: &Engine, id: &ExecutionId, script: &Script) -> Result<(), Problem> {
    let context = engine.context(id).await?;
    let broadcast: Vec<&str> = context.operational.signals.iter().map(AsRef::as_ref).collect();
    let broadcast = broadcast.join(", ");
    if let Some(expected) = &script.signals
        && broadcast != *expected
    {
        return Err(format!("it broadcasts {broadcast}, not {expected}").into());
    }
    for (field, expected) in &script.fields {
        let value = context.value(field).map(|value| value.to_json());
        if value.as_ref() != Some(expected) {
            let value = value.map_or("nothing".to_owned(), |value| value.to_string());
            return Err(format!("'{field}' is {value}, not {expected}").into());
        }
    }
    Ok(())
}

/// An engine with a stub for every tool that the workflows name, and the mock for every LLM.
fn engine(registry: &Registry, script: &Script) -> Result<Engine, Problem> {
    let (mut tools, mut llms) = (BTreeSet::new(), BTreeSet::new());
    for node in registry.workflows.values().flat_map(|workflow| workflow.nodes.values()) {
        match &node.kind {
            NodeKind::Tool(tool) => tools.extend(tool.grant.iter().flatten().chain([&tool.tool]).cloned()),
            NodeKind::Llm(llm) => llms.extend(llm.llm.clone()),
            NodeKind::Agent(agent) => {
                tools.extend(agent.tools.iter().cloned());
                llms.extend(agent.llm.llm.clone());
            }
            _ => {}
        }
    }
    let scripted = |name: &str| script.tools.iter().any(|tool| tool.name == name);
    let stubs: Vec<_> = tools
        .iter()
        .filter(|name| !name.starts_with("soe_") && !scripted(name))
        .map(|name| ScriptedTool::echo(name))
        .collect();
    let builder = Engine::builder().llm(script.llm.clone());
    let builder = llms
        .into_iter()
        .fold(builder, |builder, name| builder.named_llm(name, script.llm.clone()));
    let tools = script.tools.iter().chain(&stubs);
    let builder = tools.fold(builder, |builder, tool| builder.tool(tool.definition()));
    Ok(builder.build()?)
}
