//! `soe run` and `soe signal`

use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use serde::Serialize;
use serde_json::{Map, Value};
use soe_backends::{ExecutionId, Limits, Status};
use soe_core::config::{Config, NodeKind, ValidateOptions, Workflow};
use soe_core::llm::Llms;
use soe_core::runtime::{Engine, EngineError, EngineErrorKind};
use soe_core::tools::builtin;

use crate::args::{Format, Run, SendSignal};
use crate::awaited::triggers;
use crate::inherit::Workflows;
use crate::interrupt::Interrupts;
use crate::log::Log;
use crate::output::{self, WARNING, paint, safe};
use crate::problems::{Problem, Source, render};
use crate::session::{Session, current_workflow, engine};
use crate::tools::Loaded;
use crate::{Colors, Usage, llm, store, suitable, tools};

/// The signal that starts a workflow if no other is given.
const START: &str = "START";

/// The last line of `--json` when nothing was started.
#[derive(Serialize)]
struct Refusal<'r> {
    execution: Option<&'r str>,
    status: &'static str,
    error: String,
    diagnostics: &'r [Problem],
}

/// Runs a workflow from its start. Gives the exit code.
pub(crate) async fn run(args: Run, colors: Colors, traces: bool) -> anyhow::Result<u8> {
    let json = args.format.json;
    refuse_as_json(json, start(args, colors, traces).await)
}

async fn start(args: Run, colors: Colors, traces: bool) -> anyhow::Result<u8> {
    check(&args)?;
    let source = args.file.as_deref().map(workflow_file).transpose()?;
    let named = &args.tools.files;
    let tools_files = source.as_ref().map(|source| tools::files_for(named, source));
    let tools = tools::load(&tools_files.unwrap_or_else(|| named.clone()))?;
    let llms = llm::read(&args.llm)?;
    let config = configuration(source.as_ref(), &tools, &llms, &args.format, colors)?;
    let Usable::Yes(config) = config else {
        return Ok(1);
    };
    let reader = reader(&args, &tools).await?;
    let workflows = Workflows::of(config.as_deref(), &args.inherit, &reader).await?;
    let name = workflows.choose(args.workflow.as_deref())?;
    let signals = match args.signals.is_empty() {
        true => vec![START.to_owned()],
        false => args.signals.clone(),
    };
    let workflow = workflows.registry.workflow(&name)?.clone();
    if workflows.are_inherited {
        check_tools(&workflow, &tools)?;
    }
    llm::check_nodes(&workflow, &args.llm)?;
    let mut orchestration = args.inherit.orchestration(config, name);
    orchestration = orchestration
        .signals(signals.iter().map(String::as_str))
        .context(context(args.context.as_deref())?)
        .schedule(args.schedule.into())
        .limits(limits(Limits::default(), &args.limits)?);
    for (field, value) in &args.set {
        orchestration = orchestration.field(field.as_str(), value.clone());
    }
    if let Some(id) = args.id {
        // Before a recording is begun: it replaces the one before.
        if reader.status(&id).await.is_ok() {
            bail!("there is an execution of that id already: {id}");
        }
        orchestration = orchestration.id(id);
    }
    let session = Session {
        engine: engine(&tools, llm::connect(&args.llm, &llms)?, args.store.as_deref()).await?,
        tools,
        llm: args.llm,
        scripted: llms.scripted,
        store: args.store,
        format: args.format,
        colors,
        interrupts: Interrupts::new()?,
        from_start: true,
    };
    let mut log = session.log(traces, 0);
    warn_unheard(&workflow, &signals, &mut log, &session);
    let tokens = session.tokens();
    let execution = session.engine.start(orchestration).await?;
    let events = execution.events();
    session.follow(execution.id(), events, tokens, log).await
}

/// Goes on with a stored execution. Gives the exit code.
pub(crate) async fn signal(args: SendSignal, colors: Colors, traces: bool) -> anyhow::Result<u8> {
    let json = args.format.json;
    refuse_as_json(json, go_on(args, colors, traces).await)
}

async fn go_on(args: SendSignal, colors: Colors, traces: bool) -> anyhow::Result<u8> {
    args.llm.check()?;
    store::check(&args.store)?;
    let tools = tools::load(&args.tools)?;
    let llms = llm::read(&args.llm)?;
    if !tools.is_usable() || !llms.problems.is_empty() {
        show_problems(tools.files.iter().chain(&llms.problems), None, &args.format, colors)?;
        return Ok(1);
    }
    // The LLMs are made when it is known that they are needed: a recording replaces the one before.
    let reader = engine(&tools, Llms::new(), Some(&args.store)).await?;
    let state = reader.state(&args.id).await?;
    let workflow = current_workflow(&reader, &state).await?;
    if let Some(workflow) = &workflow {
        check_tools(workflow, &tools)?;
        llm::check_nodes(workflow, &args.llm)?;
    }
    let session = Session {
        engine: engine(&tools, llm::connect(&args.llm, &llms)?, Some(&args.store)).await?,
        tools,
        llm: args.llm,
        scripted: llms.scripted,
        store: Some(args.store),
        format: args.format,
        colors,
        interrupts: Interrupts::new()?,
        from_start: false,
    };
    let mut log = session.log(traces, state.next_event);
    if state.status == Status::Running && !session.format.quiet {
        let text = "it was left running: what was in flight is done again. If another process still runs it, one of both fails";
        log.note(&format!("{}: {text}", paint(colors.stderr, WARNING, "note")));
    }
    // Any signal takes up what was left running, so only a resting execution can surprise.
    if let (Some(workflow), Status::Rested | Status::Prepared) = (&workflow, state.status) {
        warn_unheard(workflow, &args.signals, &mut log, &session);
    }
    let (events, tokens) = (session.engine.events_from(&args.id, state.next_event), session.tokens());
    session.engine.broadcast_signals(&args.id, args.signals).await?;
    session.follow(&args.id, events, tokens, log).await
}

/// What can be said of the command before anything is read.
fn check(args: &Run) -> anyhow::Result<()> {
    let file = args.file.as_deref();
    if file == Some(Path::new("-")) && args.context.as_deref() == Some("@-") {
        return Err(Usage("stdin can't be both the workflow and the context".to_owned()).into());
    }
    if file.is_none() && args.inherit.config.is_none() {
        return Err(Usage("a workflow file or --inherit-config is needed".to_owned()).into());
    }
    Ok(args.llm.check()?)
}

/// A file that isn't a tools file by mistake.
fn workflow_file(file: &Path) -> anyhow::Result<Source> {
    let source = Source::read(file)?;
    if tools::is_tools_file(file) {
        bail!(
            "{} is a tools file by its name; what runs is a workflow file",
            source.name
        );
    }
    if let Some(problem) = suitable::misnamed_tools(&source) {
        bail!("{}: {}", source.name, problem.message);
    }
    Ok(source)
}

/// An engine that looks into the store. What is to be inherited is there.
async fn reader(args: &Run, tools: &Loaded) -> anyhow::Result<Engine> {
    if let (true, Some(store)) = (args.inherit.any(), &args.store) {
        store::check(store)?;
    }
    let reader = engine(tools, Llms::new(), args.store.as_deref()).await?;
    args.inherit.check(&reader).await?;
    Ok(reader)
}

/// What comes of the files of a run.
enum Usable {
    /// The checked configuration, if there is a file for it.
    Yes(Option<Arc<Config>>),
    /// There are errors; they are shown.
    No,
}

fn configuration(
    source: Option<&Source>,
    tools: &Loaded,
    llms: &llm::Files,
    format: &Format,
    colors: Colors,
) -> anyhow::Result<Usable> {
    let options = ValidateOptions {
        tools: Some(tools.names.clone()),
        ..ValidateOptions::default()
    };
    let read = source.map(|source| Config::from_yaml_with(&source.text, &options));
    let diagnostics = match &read {
        Some(Ok(config)) => config.warnings(),
        Some(Err(error)) => error.diagnostics(),
        None => &[],
    };
    let problems: Vec<Problem> = diagnostics.iter().map(Problem::from).collect();
    let files = tools.files.iter().chain(&llms.problems);
    show_problems(
        files,
        source.map(|source| (source, problems.as_slice())),
        format,
        colors,
    )?;
    if !tools.is_usable() || !llms.problems.is_empty() {
        return Ok(Usable::No);
    }
    Ok(match read {
        Some(Ok(config)) => Usable::Yes(Some(Arc::new(config))),
        Some(Err(_)) => Usable::No,
        None => Usable::Yes(None),
    })
}

/// Shows problems on stderr, or as the last line of `--json`; with `--quiet`, errors only.
pub(crate) fn show_problems<'f>(
    files: impl Iterator<Item = &'f (Source, Vec<Problem>)>,
    workflow: Option<(&Source, &[Problem])>,
    format: &Format,
    colors: Colors,
) -> anyhow::Result<()> {
    let files = files
        .map(|(source, problems)| (source, problems.as_slice()))
        .chain(workflow);
    let mut all = Vec::new();
    for (source, problems) in files {
        let shown = problems.iter().filter(|problem| problem.is_error() || !format.quiet);
        if !format.json {
            output::eprint(&render(shown, source, colors.stderr));
        }
        all.extend_from_slice(problems);
    }
    if format.json && all.iter().any(Problem::is_error) {
        let refusal = Refusal {
            execution: None,
            status: "refused",
            error: "the configuration can't be used".to_owned(),
            diagnostics: &all,
        };
        output::print(&output::json_line(&refusal)?)?;
    }
    Ok(())
}

/// With `--json`, an error is the last line too.
pub(crate) fn refuse_as_json(json: bool, result: anyhow::Result<u8>) -> anyhow::Result<u8> {
    if let (true, Err(error)) = (json, &result)
        && !error.is::<Usage>()
    {
        let about = error.downcast_ref::<EngineError>();
        let execution = about.and_then(|error| error.execution());
        let started = about.is_some_and(|error| *error.kind() != EngineErrorKind::Refused);
        let refusal = Refusal {
            execution: execution.map(ExecutionId::as_str),
            status: if started { "error" } else { "refused" },
            error: output::with_causes(error),
            diagnostics: &[],
        };
        output::print(&output::json_line(&refusal)?)?;
    }
    result
}

/// The fields of `--context`.
pub(crate) fn context(given: Option<&str>) -> anyhow::Result<Map<String, Value>> {
    let Some(given) = given else {
        return Ok(Map::new());
    };
    let text = match given.strip_prefix('@') {
        Some(file) => Source::read(Path::new(file))?.text,
        None => given.to_owned(),
    };
    match serde_json::from_str(&text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Usage("--context must be a JSON object".to_owned()).into()),
        Err(error) => Err(Usage(format!("--context is no JSON: {error}")).into()),
    }
}

/// `base` with the limits that are given instead of its own.
pub(crate) fn limits(base: Limits, given: &[(String, String)]) -> anyhow::Result<Limits> {
    let mut limits = serde_json::to_value(base)?;
    for (name, value) in given {
        let parsed = match name.as_str() {
            "active_time" => humantime::parse_duration(value)
                .ok()
                .and_then(|time| serde_json::to_value(time).ok()),
            _ => value.parse::<u64>().ok().map(Value::from),
        };
        let Some(slot) = limits.get_mut(name) else {
            let known: Vec<String> = limits
                .as_object()
                .into_iter()
                .flat_map(|map| map.keys().cloned())
                .collect();
            return Err(Usage(format!("there is no limit '{name}'; there are {}", known.join(", "))).into());
        };
        let Some(parsed) = parsed else {
            let expected = if name == "active_time" {
                "a duration such as 90s"
            } else {
                "a number"
            };
            return Err(Usage(format!("the limit '{name}' must be {expected}, not '{value}'")).into());
        };
        *slot = parsed;
    }
    serde_json::from_value(limits).map_err(|error| Usage(format!("--limit: {error}")).into())
}

/// A workflow that doesn't listen to what it is sent rests at once, which surprises.
fn warn_unheard(workflow: &Workflow, signals: &[String], log: &mut Log, session: &Session) {
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
pub(crate) fn check_tools(workflow: &Workflow, tools: &Loaded) -> anyhow::Result<()> {
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
