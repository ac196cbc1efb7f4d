//! `soe resume`

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use soe_backends::{ExecutionId, ExecutionSummary, Limits, ListQuery, Status};
use soe_core::runtime::{Engine, EngineError, EngineErrorKind};

use crate::Colors;
use crate::args::Resume;
use crate::going_on::GoingOn;
use crate::limits::limits;
use crate::output::{self, WARNING, paint};
use crate::refusal::refuse_as_json;
use crate::session::Session;

/// Takes up what was interrupted, or goes on with an execution that has failed. Gives the exit code.
pub(crate) async fn resume(args: Resume, colors: Colors, traces: bool) -> anyhow::Result<u8> {
    let json = args.format.json;
    refuse_as_json(json, go_on(args, colors, traces).await)
}

async fn go_on(args: Resume, colors: Colors, traces: bool) -> anyhow::Result<u8> {
    // Wrong limits are the command line's fault, whatever is in the store.
    limits(Limits::default(), &args.limits)?;
    let read = GoingOn::read(args.store, &args.tools, args.llm, args.format, colors).await?;
    match (read, args.id) {
        (None, _) => Ok(1),
        (Some(going_on), Some(id)) => one(going_on, &id, &args.limits, traces).await,
        (Some(going_on), None) => all(going_on).await,
    }
}

async fn one(going_on: GoingOn, id: &ExecutionId, given: &[(String, String)], traces: bool) -> anyhow::Result<u8> {
    let (state, _) = going_on.load(id).await?;
    let session = going_on.session().await?;
    let mut log = session.log(traces, state.next_event);
    let (events, tokens) = (session.engine.events_from(id, state.next_event), session.tokens());
    if given.is_empty() {
        session.engine.resume(id).await?;
    } else {
        let limits = limits(Limits::clone(&state.limits), given)?;
        session.engine.resume_with(id, limits).await?;
    }
    if !matches!(state.status, Status::Running | Status::Failed) && !session.format.quiet {
        let text = format!("nothing is left to do: it is {}", state.status);
        log.note(&format!("{}: {text}", paint(session.colors.stderr, WARNING, "note")));
    }
    session.follow(id, events, tokens, log).await
}

/// How waiting ended.
enum Ended {
    /// With this exit code.
    Interrupted(u8),
    /// Everything has come to an end, or another process sees to it.
    All { failed: bool },
}

/// Takes up everything that was interrupted, and waits until all of it rests.
async fn all(going_on: GoingOn) -> anyhow::Result<u8> {
    let unsettled = unsettled(&going_on.reader).await?;
    check_all(&going_on, &unsettled).await?;
    let mut session = going_on.session().await?;
    let recovered = session.engine.recover().await?;
    for error in &recovered.errors {
        output::print_error(session.colors.stderr, &error.clone().into());
    }
    match wait_for_all(&mut session, &unsettled).await? {
        Ended::Interrupted(code) => {
            output::eprint("interrupted: stopping (again to stop at once)\n");
            let report = session.engine.shutdown(Duration::ZERO).await;
            let stopped = output::count(report.stopped.len() as u64, "execution");
            let command = session.command("resume", &[]);
            output::eprint(&format!("{stopped} stopped. To go on:\n  {command}\n"));
            Ok(code)
        }
        Ended::All { failed } => {
            if unsettled.is_empty() {
                note(&session, "nothing was left running");
            }
            Ok(u8::from(failed || recovered.refused > 0))
        }
    }
}

/// What is left to do for executions of this store.
async fn unsettled(engine: &Engine) -> anyhow::Result<Vec<ExecutionSummary>> {
    let mut query = ListQuery {
        unsettled: true,
        ..ListQuery::default()
    };
    let mut found = Vec::new();
    loop {
        let page = engine.list(&query).await?;
        found.extend(page.executions);
        query.after = page.next;
        if query.after.is_none() {
            return Ok(found);
        }
    }
}

/// Nothing is taken up if something is missing: an execution would fail for a forgotten option. What others run is
/// theirs.
async fn check_all(going_on: &GoingOn, unsettled: &[ExecutionSummary]) -> anyhow::Result<()> {
    let mut seen: BTreeSet<(&ExecutionId, &Arc<str>)> = BTreeSet::new();
    for execution in unsettled {
        if going_on.reader.check_free(&execution.id).await.is_err() {
            continue;
        }
        if seen.insert((&execution.main_execution_id, &execution.workflow)) {
            let loaded = going_on.load(&execution.id).await;
            loaded.context("nothing was taken up")?;
        }
    }
    Ok(())
}

/// Reports each execution as it ends.
async fn wait_for_all(session: &mut Session, unsettled: &[ExecutionSummary]) -> anyhow::Result<Ended> {
    let engine = session.engine.clone();
    let wait = |execution: &ExecutionSummary| {
        let (engine, id) = (engine.clone(), execution.id.clone());
        let is_root = execution.main_execution_id == id;
        async move { (engine.wait(&id).await, id, is_root) }
    };
    let mut waiting: FuturesUnordered<_> = unsettled.iter().map(wait).collect();
    let mut failed = false;
    loop {
        tokio::select! {
            biased;
            code = session.interrupts.first() => return Ok(Ended::Interrupted(code)),
            next = waiting.next() => match next {
                None => return Ok(Ended::All { failed }),
                Some((result, id, true)) => failed |= !report(session, &id, result.err()).await?,
                Some((_, _, false)) => {}
            }
        }
    }
}

/// Says how an execution ended. Gives whether it is as it should be: it rests, or another process sees to it.
async fn report(session: &Session, id: &ExecutionId, error: Option<EngineError>) -> anyhow::Result<bool> {
    let not_active = |error: &EngineError| *error.kind() == EngineErrorKind::NotActive;
    let left = match error {
        Some(error) if not_active(&error) => match session.engine.check_free(id).await {
            Err(elsewhere) if matches!(elsewhere.kind(), EngineErrorKind::Elsewhere { .. }) => {
                note(session, &elsewhere.to_string());
                return Ok(true);
            }
            // Why it wasn't taken up is said by others.
            _ => return Ok(false),
        },
        Some(error) if !matches!(error.kind(), EngineErrorKind::Failed(_) | EngineErrorKind::Ended(_)) => Some(error),
        _ => None,
    };
    if let Some(error) = left {
        output::print_error(session.colors.stderr, &error.into());
        return Ok(false);
    }
    let state = session.engine.state(id).await?;
    session.report(&state).await?;
    Ok(state.status == Status::Rested)
}

fn note(session: &Session, text: &str) {
    if !session.format.quiet {
        let word = paint(session.colors.stderr, WARNING, "note");
        output::eprint(&format!("{word}: {}\n", output::safe(text)));
    }
}
