//! `soe run`

use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use serde_json::{Map, Value};
use soe_backends::Limits;
use soe_core::config::{Config, ValidateOptions};
use soe_core::llm::Llms;
use soe_core::runtime::Engine;

use crate::args::{Format, Run};
use crate::going_on::{check_tools, warn_unheard};
use crate::inherit::Workflows;
use crate::interrupt::Interrupts;
use crate::limits::limits;
use crate::problems::{Problem, Source};
use crate::refusal::{refuse_as_json, show_problems};
use crate::session::{Session, engine};
use crate::tools::Loaded;
use crate::{Colors, Shown, Usage, llm, store, suitable, tools};

/// The signal that starts a workflow if no other is given.
const START: &str = "START";

/// Runs a workflow from its start. Gives the exit code.
pub(crate) async fn run(args: Run, colors: Colors, shown: Shown) -> anyhow::Result<u8> {
    let json = args.format.json;
    refuse_as_json(json, start(args, colors, shown).await)
}

async fn start(args: Run, colors: Colors, shown: Shown) -> anyhow::Result<u8> {
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
    // What children need, too: nothing is to be started that can't be gone on with.
    check_tools(&workflows.registry, &workflow, &tools)?;
    llm::check_nodes(&workflows.registry, &workflow, &args.llm)?;
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
        expectations: args.expectations,
    };
    let mut log = session.log(shown, 0);
    warn_unheard(&workflow, &signals, &mut log, &session);
    let tokens = session.tokens();
    let execution = session.engine.start(orchestration).await?;
    let events = execution.tree_events();
    session.follow(execution.id(), events, tokens, log).await
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
