//! An execution that is followed to its end, with what that needs.

use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use soe_backends::{ExecutionId, ExecutionState, Status};
use soe_core::config::{Registry, Workflow};
use soe_core::llm::Llms;
use soe_core::runtime::{Engine, EngineError, EngineErrorKind, EventStream, TokenStream};

use crate::args::{Format, LlmOptions};
use crate::awaited::{Awaited, awaited};
use crate::follow::{End, Follower};
use crate::interrupt::Interrupts;
use crate::llm::{LlmUsage, Scripted};
use crate::log::{Log, Mode};
use crate::output::{self, ERROR, GOOD, WARNING, paint, safe, seconds, shell_path, shell_word};
use crate::stored::Outcome;
use crate::tools::Loaded;
use crate::{Colors, store};

/// What commands need while an execution goes on.
pub(crate) struct Session {
    pub(crate) engine: Engine,
    pub(crate) tools: Loaded,
    pub(crate) llm: LlmOptions,
    pub(crate) scripted: Scripted,
    pub(crate) store: Option<PathBuf>,
    pub(crate) format: Format,
    pub(crate) colors: Colors,
    pub(crate) interrupts: Interrupts,
    /// The execution is followed from its first signal on.
    pub(crate) from_start: bool,
}

impl Session {
    /// The log of an execution whose next event is number `next`; `traces` says that others write to stderr too.
    pub(crate) fn log(&self, traces: bool, next: u64) -> Log {
        let mode = match (self.format.json, self.format.quiet) {
            (true, false) => Mode::Json,
            (_, true) => Mode::Quiet,
            (false, false) => Mode::Lines,
        };
        Log::new(mode, self.colors.stderr, traces, next)
    }

    /// What LLMs say from now on, if it is to be shown. LLMs need not stream if nobody looks.
    pub(crate) fn tokens(&self) -> Option<TokenStream> {
        let Format {
            json,
            quiet,
            stream,
            no_stream,
        } = self.format;
        let shown = stream || !(json || quiet || no_stream) && stderr().is_terminal();
        shown.then(|| self.engine.all_tokens())
    }

    /// Follows the execution and prints how it ended. Gives the exit code.
    pub(crate) async fn follow(
        mut self,
        id: &ExecutionId,
        events: EventStream,
        tokens: Option<TokenStream>,
        mut log: Log,
    ) -> anyhow::Result<u8> {
        let follower = Follower {
            engine: &self.engine,
            log: &mut log,
            interrupts: &mut self.interrupts,
            is_stored: self.store.is_some(),
            tokens,
        };
        let followed = follower.follow(id, events).await;
        let End { state, interrupted } = followed.inspect_err(|error| self.say_what_is_left(id, error))?;
        log.clear();
        let (outcome, waits_for) = self.outcome(&state).await?;
        if self.format.json {
            output::print(&output::json_line(&outcome)?)?;
        } else {
            output::print(&output::json_pretty(&outcome.context)?)?;
            self.explain(&outcome, &state, &waits_for, &log);
        }
        Ok(match (interrupted, state.status) {
            // It was over before the interruption came.
            (Some(_), Status::Rested) | (None, Status::Rested | Status::Prepared) => 0,
            (Some(code), Status::Running | Status::Cancelled) => code,
            _ => 1,
        })
    }

    /// Says how to go on when the store has failed: what was shown is stored.
    fn say_what_is_left(&self, id: &ExecutionId, error: &anyhow::Error) {
        let failed = error.downcast_ref::<EngineError>();
        if self.store.is_some() && failed.is_some_and(|error| *error.kind() == EngineErrorKind::Backend) {
            let command = self.command("resume", &[id.as_str()]);
            output::eprint(&format!("When the store works again:\n  {command}\n"));
        }
    }

    /// How an execution stands, and what it waits for.
    async fn outcome(&self, state: &ExecutionState) -> anyhow::Result<(Outcome, Awaited)> {
        let workflow = current_workflow(&self.engine, state).await?;
        let waits_for = match (&workflow, state.status) {
            (Some(workflow), Status::Rested | Status::Prepared | Status::Running) => {
                awaited(workflow, &self.tools.registry.specs(), state)
            }
            _ => Awaited::default(),
        };
        let usage = LlmUsage::of(&self.engine, state).await;
        let outcome = Outcome::new(state, waits_for.all().cloned().collect(), usage);
        Ok((outcome, waits_for))
    }

    /// Prints how one of several executions ended: a line on stderr, or the result as JSON.
    pub(crate) async fn report(&self, state: &ExecutionState) -> anyhow::Result<()> {
        let (outcome, _) = self.outcome(state).await?;
        if self.format.json {
            output::print(&output::json_line(&outcome)?)?;
        } else {
            self.say_failure(state, None);
            self.say_how_it_ended(&outcome, state);
        }
        Ok(())
    }

    /// Says on stderr how it ended, and how to go on.
    fn explain(&self, outcome: &Outcome, state: &ExecutionState, waits_for: &Awaited, log: &Log) {
        let quiet = self.format.quiet;
        self.say_failure(state, Some(log));
        // What is left behind is no result: how to go on is said in any case.
        let running = state.status == Status::Running;
        if quiet && !running {
            return;
        }
        self.say_how_it_ended(outcome, state);
        if !quiet {
            for line in outcome.usage.lines() {
                output::eprint(&format!("{line}\n"));
            }
            self.warn_left_over(state, waits_for);
        }
        if self.store.is_some() && matches!(state.status, Status::Running | Status::Failed) {
            let command = self.command("resume", &[outcome.execution.as_str()]);
            let what = if running {
                "To go on"
            } else {
                "To run what failed again"
            };
            output::eprint(&format!("{what}:\n  {command}\n"));
        } else if !outcome.waits_for.is_empty() {
            output::eprint(&self.next_step(outcome, waits_for));
        }
    }

    /// Says why an execution has failed; the first line only, if the log has shown it all.
    fn say_failure(&self, state: &ExecutionState, log: Option<&Log>) {
        if let Some(failure) = &state.failure {
            let failure = failure.to_string();
            let shown = match log.is_some_and(|log| log.has_shown(&failure)) {
                true => output::headline(&failure),
                false => output::safe_lines(&failure),
            };
            output::eprint(&format!("{}: {shown}\n", paint(self.colors.stderr, ERROR, "error")));
        }
    }

    fn say_how_it_ended(&self, outcome: &Outcome, state: &ExecutionState) {
        let style = match state.status {
            Status::Failed | Status::Suspended => ERROR,
            Status::Cancelled | Status::Running => WARNING,
            _ => GOOD,
        };
        let children = state.context.operational.tree.children;
        let children = (children > 0).then(|| {
            let tree = state.context.operational.tree;
            let (children, calls) = (
                output::count(children, "child execution"),
                output::count(tree.tool_calls, "tool call"),
            );
            format!("{children}, with them {calls}")
        });
        let llm_calls = (outcome.llm_calls > 0).then(|| output::count(outcome.llm_calls, "LLM call"));
        let counts: Vec<String> = [output::count(state.runs_started, "node run")]
            .into_iter()
            .chain(llm_calls)
            .chain([
                output::count(outcome.tool_calls, "tool call"),
                output::count(outcome.errors, "error"),
            ])
            .chain(children)
            .collect();
        output::eprint(&format!(
            "{} is {}: {}, {} from first to last\n",
            state.id,
            paint(self.colors.stderr, style, state.status),
            counts.join(", "),
            seconds(state.updated_at.since(state.created_at))
        ));
    }

    /// Says what was recorded or scripted and never asked for. What a script has for nodes that can still run, or ran in
    /// another process, isn't left over.
    fn warn_left_over(&self, state: &ExecutionState, waits_for: &Awaited) {
        let is_over = self.from_start && state.status == Status::Rested && waits_for.needed.is_empty();
        let unused = self.scripted.unused_rules().filter(|_| is_over);
        for line in self.scripted.left_over().chain(unused) {
            let warning = paint(self.colors.stderr, WARNING, "warning");
            output::eprint(&format!("{warning}: {}\n", safe(&line)));
        }
    }

    /// What to send so that it goes on, and how.
    fn next_step(&self, outcome: &Outcome, waits_for: &Awaited) -> String {
        let names = |signals: &[Arc<str>]| {
            let names: Vec<String> = signals.iter().map(|name| safe(name).into_owned()).collect();
            output::alternatives(&names)
        };
        let mut text = match waits_for.needed.as_slice() {
            [] => String::new(),
            needed => format!("Nothing in the workflow sends {}. ", names(needed)),
        };
        if !waits_for.possible.is_empty() {
            text.push_str(&format!("It also listens to {}. ", names(&waits_for.possible)));
        }
        if self.store.is_some() {
            let signal = outcome.waits_for.first().map_or("SIGNAL", AsRef::as_ref);
            let command = self.command("signal", &[outcome.execution.as_str(), signal]);
            text.push_str(&format!("To go on:\n  {command}\n"));
        } else {
            text.push_str("With --store, the execution is kept, and `soe signal` goes on with it.\n");
        }
        text
    }

    /// A command on the same store, with the same tools and LLMs, as a shell reads it.
    pub(crate) fn command(&self, name: &str, arguments: &[&str]) -> String {
        let mut command = format!("soe {name}");
        for argument in arguments {
            command.push_str(&format!(" {}", shell_word(argument)));
        }
        if let Some(store) = &self.store {
            command.push_str(&format!(" --store {}", shell_path(store)));
        }
        for path in &self.tools.paths {
            command.push_str(&format!(" --tools {}", shell_path(path)));
        }
        command + &safe(&self.llm.shell_words())
    }
}

/// An engine with these tools and LLMs, and the store if one is given.
pub(crate) async fn engine(tools: &Loaded, llms: Llms, store: Option<&Path>) -> anyhow::Result<Engine> {
    let mut builder = Engine::builder().tools(tools.registry.clone()).llms(llms);
    if let Some(path) = store {
        builder = builder.backends(store::open(path).await?);
    }
    Ok(builder.build()?)
}

/// The workflow that an execution runs, as its registry is now.
pub(crate) async fn current_workflow(engine: &Engine, state: &ExecutionState) -> anyhow::Result<Option<Arc<Workflow>>> {
    let registry = current_registry(engine, state).await?;
    Ok(registry.and_then(|registry| registry.workflows.get(&state.workflow).cloned()))
}

/// All workflows of a stored execution.
pub(crate) async fn current_registry(engine: &Engine, state: &ExecutionState) -> anyhow::Result<Option<Registry>> {
    match engine.backends().workflows().registry(&state.registry).await? {
        Some(document) => Ok(Some(Registry::from_document(document.workflows.clone())?)),
        None => Ok(None),
    }
}
