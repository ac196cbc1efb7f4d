//! A tree that is followed to its end, with what that needs.

use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use soe_backends::{ExecutionId, ExecutionState, Status, TreeState};
use soe_core::llm::Llms;
use soe_core::runtime::{Engine, EngineError, EngineErrorKind, EventStream, TokenStream};

use crate::args::{Format, LlmOptions};
use crate::awaited::Awaited;
use crate::expect::Expectations;
use crate::follow::{End, Follower};
use crate::interrupt::Interrupts;
use crate::llm::{LlmUsage, Scripted};
use crate::log::{Log, Mode};
use crate::outcome::Outcome;
use crate::output::{self, ERROR, WARNING, paint, safe, shell_path, shell_word};
use crate::tools::Loaded;
use crate::waits::{Lookout, Waits};
use crate::{Colors, Shown, owner, store, summary};

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
    pub(crate) expectations: Expectations,
}

impl Session {
    /// The log of a tree whose next event is number `next`.
    pub(crate) fn log(&self, shown: Shown, next: u64) -> Log {
        let mode = match (self.format.json, self.format.quiet) {
            (true, false) => Mode::Json,
            (_, true) => Mode::Quiet,
            (false, false) => Mode::Lines,
        };
        Log::new(mode, self.colors.stderr, shown, next)
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

    /// Follows the tree of an execution and prints how it ended. Gives the exit code.
    pub(crate) async fn follow(
        mut self,
        id: &ExecutionId,
        events: EventStream,
        tokens: Option<TokenStream>,
        mut log: Log,
    ) -> anyhow::Result<u8> {
        let from = log.next();
        let follower = Follower {
            engine: &self.engine,
            log: &mut log,
            interrupts: &mut self.interrupts,
            is_stored: self.store.is_some(),
            tokens,
        };
        let followed = follower.follow(&id.root(), events).await;
        let End { tree, interrupted } = followed.inspect_err(|error| self.say_what_is_left(&id.root(), error))?;
        log.clear();
        let ended = self.ended(tree, id).await?;
        if self.format.json {
            output::print(&output::json_line(&ended.outcome)?)?;
        } else {
            output::print(&output::json_pretty(&ended.outcome.context)?)?;
            self.explain(&ended, &log).await;
        }
        let met = self.meets(&ended, from).await?;
        let code = ended.code(interrupted);
        Ok(if code == 0 { u8::from(!met) } else { code })
    }

    /// Whether what came of a tree is as expected, of its events from number `from` on; says what is not.
    pub(crate) async fn meets(&self, ended: &Ended, from: u64) -> anyhow::Result<bool> {
        let (tree, color) = (&ended.tree, self.colors.stderr);
        let met = self.expectations.are_met(&self.engine, tree, &ended.waits, from, color);
        met.await
    }

    /// Says how to go on when the store has failed: what was shown is stored.
    fn say_what_is_left(&self, id: &ExecutionId, error: &anyhow::Error) {
        let failed = error.downcast_ref::<EngineError>();
        if self.store.is_some() && failed.is_some_and(|error| *error.kind() == EngineErrorKind::Backend) {
            let command = self.command("resume", &[id.as_str()]);
            output::eprint(&format!("When the store works again:\n  {command}\n"));
        }
    }

    /// How an execution and its tree stand, and what they wait for.
    pub(crate) async fn ended(&self, tree: Arc<TreeState>, id: &ExecutionId) -> anyhow::Result<Ended> {
        let found = tree.find(id).or(tree.root_state()).cloned();
        let state = found.with_context(|| format!("execution {id} is not in its tree"))?;
        let mut lookout = Lookout::new(&self.engine, Some(self.tools.registry.specs()));
        let awaited = match tree.status(state.number) {
            Some(Status::Rested | Status::Prepared | Status::Running) => lookout.awaited(&state).await?,
            _ => Awaited::default(),
        };
        let waits = lookout.look(&tree).await?;
        let usage = LlmUsage::of(&self.engine, &tree).await;
        let outcome = Outcome::new(&tree, &state, &awaited, &waits, usage);
        Ok(Ended {
            tree,
            state,
            awaited,
            waits,
            outcome,
        })
    }

    /// Prints how one of several trees ended: lines on stderr, or the result as JSON.
    pub(crate) fn report(&self, ended: &Ended) -> anyhow::Result<()> {
        if self.format.json {
            output::print(&output::json_line(&ended.outcome)?)?;
        } else {
            self.say_failure(&ended.state, None);
            self.say_how_it_ended(ended);
        }
        Ok(())
    }

    /// Says on stderr how it ended, and how to go on.
    async fn explain(&self, ended: &Ended, log: &Log) {
        let (quiet, outcome) = (self.format.quiet, &ended.outcome);
        self.say_failure(&ended.state, Some(log));
        // What is left behind is no result: how to go on is said in any case.
        let running = ended.tree.status(0) == Some(Status::Running);
        if quiet && !running {
            return;
        }
        self.say_how_it_ended(ended);
        if !quiet {
            for line in outcome.usage.lines() {
                output::eprint(&format!("{line}\n"));
            }
            self.warn_left_over(ended);
        }
        if running && let Ok(Some(process)) = owner::other(&self.engine, &ended.tree.root).await {
            output::eprint(&format!("{process} goes on with it\n"));
            return;
        }
        let command = |name: &str, arguments: &[&str]| self.command(name, arguments);
        let resumed = match (running, ended.tree.ended_at(ended.state.number), outcome.failed.first()) {
            (true, ..) => Some(("To go on", &ended.tree.root)),
            (_, Some(failed), _) if failed.status == Status::Failed => Some(("To run what failed again", &failed.id)),
            (_, None, Some(failed)) => Some(("To run what failed again", &failed.execution)),
            _ => None,
        };
        if let (Some(_), Some((what, id))) = (&self.store, resumed) {
            output::eprint(&format!("{what}:\n  {}\n", command("resume", &[id.as_str()])));
        }
        if !running {
            let store = self.store.as_deref();
            let steps = summary::next_steps(outcome, &ended.awaited, &ended.waits, store, &command);
            output::eprint(&steps);
        }
    }

    /// Says why an execution has failed; the first line only, if the log has shown it all.
    fn say_failure(&self, state: &ExecutionState, log: Option<&Log>) {
        if let Some(failure) = &state.failure {
            let failure = failure.to_string();
            let shown = match log.is_some_and(|log| log.has_shown(&state.id, &failure)) {
                true => output::headline(&failure),
                false => output::safe_lines(&failure),
            };
            output::eprint(&format!("{}: {shown}\n", paint(self.colors.stderr, ERROR, "error")));
        }
    }

    fn say_how_it_ended(&self, ended: &Ended) {
        let color = self.colors.stderr;
        output::eprint(&summary::how_it_ended(&ended.outcome, &ended.state, &ended.tree, color));
        output::eprint(&summary::failed_children(&ended.outcome.failed, color));
    }

    /// Says what was recorded or scripted and never asked for. What a script has for nodes that can still run, or ran in
    /// another process, isn't left over; and where something has failed, that is why.
    fn warn_left_over(&self, ended: &Ended) {
        let rests = ended.tree.status(0) == Some(Status::Rested);
        let is_over = self.from_start && rests && ended.waits.count == 0 && ended.outcome.failed.is_empty();
        let unused = self.scripted.unused_rules().filter(|_| is_over);
        for line in self.scripted.left_over().chain(unused) {
            let warning = paint(self.colors.stderr, WARNING, "warning");
            output::eprint(&format!("{warning}: {}\n", safe(&line)));
        }
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

/// What came of an execution and its tree.
pub(crate) struct Ended {
    pub(crate) tree: Arc<TreeState>,
    pub(crate) state: Arc<ExecutionState>,
    awaited: Awaited,
    waits: Waits,
    outcome: Outcome,
}

impl Ended {
    /// The exit code: that of the execution and that of the root.
    pub(crate) fn code(&self, interrupted: Option<u8>) -> u8 {
        let of = |status: Option<Status>| match (interrupted, status) {
            // It was over before the interruption came.
            (Some(_), Some(Status::Rested)) | (None, Some(Status::Rested | Status::Prepared)) => 0,
            (Some(code), Some(Status::Running | Status::Cancelled)) => code,
            _ => 1,
        };
        let (root, own) = (of(self.tree.status(0)), of(self.tree.status(self.state.number)));
        if root == 0 { own } else { root }
    }
}
