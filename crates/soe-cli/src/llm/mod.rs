//! The LLMs of a command: an endpoint, a script, a recording.

mod choice;
mod hiding;
mod needs;
mod usage;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use soe_core::llm::{Llm, Llms};
use soe_core::testing::{MockLlm, Player, Recorder, RecordingError};
use soe_llm_openai::{BuildError, OpenAi};

use crate::args::LlmOptions;
use crate::problems::{Problem, Source};

use hiding::Hiding;

pub(crate) use choice::{Choice, Kind, parse_choice};
pub(crate) use needs::check_nodes;
pub(crate) use usage::LlmUsage;

/// The variable that holds the key if no other is named.
const KEY: &str = "OPENAI_API_KEY";

/// What was read of the files that `--llm` names.
pub(crate) struct Files {
    /// For each choice, what its file made; `None` for an endpoint, and for a script with problems.
    ready: Vec<Option<Llm>>,
    /// Scripts that can't be used, and what is wrong with them.
    pub(crate) problems: Vec<(Source, Vec<Problem>)>,
    pub(crate) scripted: Scripted,
}

/// The LLMs whose answers are known before: something of them may be left over.
#[derive(Default)]
pub(crate) struct Scripted {
    players: Vec<(PathBuf, Player)>,
    mocks: Vec<(PathBuf, MockLlm)>,
}

impl Scripted {
    /// A line for each rule of a script that no request has used up.
    pub(crate) fn unused_rules(&self) -> impl Iterator<Item = String> {
        let lines = |(path, mock): &(PathBuf, MockLlm)| {
            let unused = mock.unused();
            let path = path.display().to_string();
            unused.into_iter().map(move |rule| format!("the script {path}: {rule}"))
        };
        self.mocks.iter().flat_map(lines)
    }

    /// A line for each recording of which something was never asked for.
    pub(crate) fn left_over(&self) -> impl Iterator<Item = String> {
        self.players.iter().filter_map(|(path, player)| {
            let unused = player.unused();
            let first = unused.first()?;
            let exchanges = crate::output::count(unused.len() as u64, "exchange");
            let (node, stage) = (&first.node, first.stage.as_str());
            Some(format!(
                "the recording {} has more than was asked for: {exchanges}, the first of node '{node}', stage {stage}",
                path.display()
            ))
        })
    }
}

/// Reads scripts and recordings. What is wrong inside a script is in the result; a file that can't be read is an error.
pub(crate) fn read(options: &LlmOptions) -> anyhow::Result<Files> {
    let mut files = Files {
        ready: Vec::new(),
        problems: Vec::new(),
        scripted: Scripted::default(),
    };
    for choice in &options.choices {
        let ready = match &choice.kind {
            Kind::OpenAi | Kind::Record(_) => None,
            Kind::Mock(path) => mock(path, &mut files.problems)?.map(|mock| {
                files.scripted.mocks.push((path.clone(), mock.clone()));
                mock.into()
            }),
            Kind::Replay(path) => {
                let player = open(path)?;
                files.scripted.players.push((path.clone(), player.clone()));
                Some(player.into())
            }
        };
        files.ready.push(ready);
    }
    Ok(files)
}

/// The LLMs, ready to be asked. Recordings are begun here: nothing should go wrong afterwards that can be known before.
pub(crate) fn connect(options: &LlmOptions, files: &Files) -> anyhow::Result<Llms> {
    let mut llms = Llms::new();
    let needed = options.choices.iter().any(|choice| choice.kind.is_endpoint());
    let endpoint = needed.then(|| endpoint(options)).transpose()?;
    for (choice, ready) in options.choices.iter().zip(&files.ready) {
        let llm = match (&choice.kind, &endpoint, ready) {
            (Kind::OpenAi, Some(endpoint), _) => endpoint.clone().into(),
            (Kind::Record(path), Some(endpoint), _) => {
                check_replaceable(path)?;
                Recorder::create(path, endpoint.clone())?.into()
            }
            (_, _, Some(ready)) => ready.clone(),
            _ => continue,
        };
        match &choice.name {
            None => llms.set_default(llm),
            Some(name) => llms.register(name.as_str(), llm)?,
        };
    }
    Ok(llms)
}

fn mock(path: &Path, problems: &mut Vec<(Source, Vec<Problem>)>) -> anyhow::Result<Option<MockLlm>> {
    let source = Source::read(path).context("the script of the mock LLM")?;
    match MockLlm::from_yaml(&source.text) {
        Ok(mock) => Ok(Some(mock)),
        Err(error) => {
            let found = error.problems().iter().map(|problem| {
                let rule = problem.rule.map(|rule| format!("rule {rule}: ")).unwrap_or_default();
                Problem {
                    field: problem.key.clone(),
                    help: problem.help.clone(),
                    ..Problem::error("invalid-mock", format!("{rule}{}", problem.message)).at(problem.position)
                }
            });
            problems.push((source, found.collect()));
            Ok(None)
        }
    }
}

fn open(path: &Path) -> anyhow::Result<Player> {
    Player::open(path).map_err(|error| match error {
        // It names the file.
        error @ RecordingError::Read { .. } => error.into(),
        error => anyhow::Error::from(error).context(path.display().to_string()),
    })
}

/// A recording replaces the one before, and nothing else: a slip in a name must not cost a file.
fn check_replaceable(path: &Path) -> anyhow::Result<()> {
    let there = path.metadata().is_ok_and(|data| data.is_file() && data.len() > 0);
    match Player::open(path) {
        Err(RecordingError::Header(_) | RecordingError::Read { .. }) if there => bail!(
            "{} is there and is no recording: it would be replaced; remove it, or choose another file",
            path.display()
        ),
        _ => Ok(()),
    }
}

fn endpoint(options: &LlmOptions) -> anyhow::Result<Hiding<OpenAi>> {
    let mut builder = OpenAi::builder()
        .native_tools(options.native_tools)
        .structured_output(options.structured_output);
    if let Some(url) = &options.base_url {
        builder = builder.base_url(url);
    }
    if let Some(model) = &options.model {
        builder = builder.model(model);
    }
    if let Some(timeout) = options.llm_timeout {
        builder = builder.timeout(timeout);
    }
    let variable = options.key_env.as_deref().unwrap_or(KEY);
    let key = std::env::var(variable).ok().filter(|key| !key.is_empty());
    // An endpoint of one's own may want no key; but whoever names a variable means one.
    if options.base_url.is_none() || options.key_env.is_some() || key.is_some() {
        builder = builder.key_from_env(variable);
    }
    match builder.build() {
        Ok(caller) => Ok(Hiding::new(caller, key)),
        Err(error @ BuildError::KeyFromEnv { .. }) if options.base_url.is_none() => {
            bail!("{error} (to try the workflow without a key: --llm mock:FILE)")
        }
        Err(error) => Err(error.into()),
    }
}
