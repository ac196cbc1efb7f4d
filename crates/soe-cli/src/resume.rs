//! `soe resume`

use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use soe_backends::{ExecutionId, ExecutionSummary, Limits, ListQuery, Status};
use soe_core::runtime::Engine;

use crate::args::Resume;
use crate::expect::Expectations;
use crate::follow::rest;
use crate::going_on::GoingOn;
use crate::limits::limits;
use crate::output::{self, WARNING, paint};
use crate::refusal::refuse_as_json;
use crate::session::Session;
use crate::{Colors, Shown, owner};

/// Takes up what was interrupted, or goes on with an execution that has failed. Gives the exit code.
pub(crate) async fn resume(args: Resume, colors: Colors, shown: Shown) -> anyhow::Result<u8> {
    let json = args.format.json;
    refuse_as_json(json, go_on(args, colors, shown).await)
}

async fn go_on(args: Resume, colors: Colors, shown: Shown) -> anyhow::Result<u8> {
    // Wrong limits are the command line's fault, whatever is in the store.
    limits(Limits::default(), &args.limits)?;
    let read = GoingOn::read(args.store, &args.tools, args.llm, args.format, colors).await?;
    match (read, args.id) {
        (None, _) => Ok(1),
        (Some(going_on), Some(id)) => one(going_on, &id, &args.limits, args.expectations, shown).await,
        (Some(going_on), None) => all(going_on, args.expectations).await,
    }
}

async fn one(
    going_on: GoingOn,
    id: &ExecutionId,
    given: &[(String, String)],
    expectations: Expectations,
    shown: Shown,
) -> anyhow::Result<u8> {
    let loaded = going_on.load(id).await?;
    let mut session = going_on.session().await?;
    session.expectations = expectations;
    let (root, from) = (id.root(), loaded.tree.next_event);
    let mut log = session.log(shown, from);
    let (events, tokens) = (session.engine.tree_events(&root, from), session.tokens());
    let process = owner::other(&session.engine, &root).await?;
    let (status, is_running) = (loaded.status(), loaded.root_status() == Some(Status::Running));
    let limits = match given {
        [] => None,
        given => Some(limits(Limits::clone(&loaded.tree.limits), given)?),
    };
    log.know(loaded.tree, loaded.registry);
    let engine = session.engine.clone();
    let resumed = owner::retried(async || match &limits {
        None => engine.resume(id).await,
        Some(limits) => engine.resume_with(id, limits.clone()).await,
    });
    resumed.await?;
    let text = match (process, status) {
        (Some(process), _) => Some(format!("{process} runs it: it is followed")),
        (None, Some(status)) if !is_running && status != Status::Failed => {
            Some(format!("nothing is left to do: it is {status}"))
        }
        _ => None,
    };
    if let Some(text) = text.filter(|_| !session.format.quiet) {
        log.note(&format!("{}: {text}", paint(session.colors.stderr, WARNING, "note")));
    }
    session.follow(id, events, tokens, log).await
}

/// A tree that was taken up.
struct TakenUp {
    root: ExecutionId,
    /// The number of its next event then.
    from: u64,
}

/// Takes up everything that was interrupted, and waits until all of it rests.
async fn all(going_on: GoingOn, expectations: Expectations) -> anyhow::Result<u8> {
    let unsettled = unsettled(&going_on.reader).await?;
    let found = !unsettled.is_empty();
    let taken_up = check_all(&going_on, unsettled).await?;
    let mut session = going_on.session().await?;
    session.expectations = expectations;
    let recovered = session.engine.recover().await?;
    for error in &recovered.errors {
        output::print_error(session.colors.stderr, &error.clone().into());
    }
    for damaged in &recovered.damaged {
        let error = anyhow::anyhow!("{} can't be read: {}", damaged.tree, damaged.problem);
        output::print_error(session.colors.stderr, &error);
    }
    let refused = recovered
        .errors
        .iter()
        .filter_map(|error| error.execution())
        .cloned()
        .collect::<Vec<_>>();
    let taken_up = taken_up
        .into_iter()
        .filter(|tree| !refused.contains(&tree.root))
        .collect();
    match wait_for_all(&mut session, taken_up).await? {
        Ended::Interrupted(code) => {
            output::eprint("interrupted: stopping (again to stop at once)\n");
            let report = session.engine.shutdown(Duration::ZERO).await;
            let stopped = output::count(report.stopped.len() as u64, "execution");
            let command = session.command("resume", &[]);
            output::eprint(&format!("{stopped} stopped. To go on:\n  {command}\n"));
            Ok(code)
        }
        Ended::All { failed } => {
            if !found {
                note(&session, "nothing was left running");
            }
            Ok(u8::from(failed || recovered.refused > 0))
        }
    }
}

/// How waiting ended.
enum Ended {
    /// With this exit code.
    Interrupted(u8),
    /// Everything has come to an end.
    All { failed: bool },
}

/// The trees of this store for which something is left to do.
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

/// Nothing is taken up if something is missing: an execution would fail for a forgotten option. What others run is theirs, and
/// is named.
async fn check_all(going_on: &GoingOn, unsettled: Vec<ExecutionSummary>) -> anyhow::Result<Vec<TakenUp>> {
    let mut taken_up = Vec::new();
    for ExecutionSummary { id: root, .. } in unsettled {
        if let Some(process) = owner::other(&going_on.reader, &root).await? {
            if !going_on.format.quiet {
                let word = paint(going_on.colors.stderr, WARNING, "note");
                output::eprint(&format!("{word}: {root} is left to {process}, which runs it\n"));
            }
            continue;
        }
        let tree = going_on.reader.tree(&root).await?;
        let checked = going_on.check(&tree, None).await;
        checked.context("nothing was taken up")?;
        taken_up.push(TakenUp {
            root,
            from: tree.next_event,
        });
    }
    Ok(taken_up)
}

/// Reports each tree as it ends.
async fn wait_for_all(session: &mut Session, taken_up: Vec<TakenUp>) -> anyhow::Result<Ended> {
    let engine = session.engine.clone();
    let wait = |tree: TakenUp| {
        let engine = engine.clone();
        async move { (rest(&engine, &tree.root).await, tree) }
    };
    let mut waiting: FuturesUnordered<_> = taken_up.into_iter().map(wait).collect();
    let mut failed = false;
    loop {
        tokio::select! {
            biased;
            code = session.interrupts.first() => return Ok(Ended::Interrupted(code)),
            next = waiting.next() => match next {
                None => return Ok(Ended::All { failed }),
                Some((Ok(()), tree)) => failed |= !report(session, &tree).await?,
                Some((Err(error), _)) => {
                    output::print_error(session.colors.stderr, &error);
                    failed = true;
                }
            }
        }
    }
}

/// Says how a tree ended. Gives whether it is as it should be.
async fn report(session: &Session, tree: &TakenUp) -> anyhow::Result<bool> {
    let state = session.engine.tree(&tree.root).await?;
    let ended = session.ended(state, &tree.root).await?;
    session.report(&ended)?;
    Ok(session.meets(&ended, tree.from).await? && ended.code(None) == 0)
}

fn note(session: &Session, text: &str) {
    if !session.format.quiet {
        let word = paint(session.colors.stderr, WARNING, "note");
        output::eprint(&format!("{word}: {}\n", output::safe(text)));
    }
}
