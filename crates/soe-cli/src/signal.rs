//! `soe signal`

use anyhow::Context as _;
use soe_backends::Status;

use crate::args::SendSignal;
use crate::going_on::{GoingOn, warn_unheard};
use crate::output::{WARNING, paint};
use crate::refusal::refuse_as_json;
use crate::{Colors, Shown, owner};

/// Sends signals to a stored execution, and follows its tree until all of it rests. Gives the exit code.
pub(crate) async fn signal(args: SendSignal, colors: Colors, shown: Shown) -> anyhow::Result<u8> {
    let json = args.format.json;
    refuse_as_json(json, send(args, colors, shown).await)
}

async fn send(args: SendSignal, colors: Colors, shown: Shown) -> anyhow::Result<u8> {
    let read = GoingOn::read(args.store, &args.tools, args.llm, args.format, colors).await?;
    let Some(going_on) = read else {
        return Ok(1);
    };
    let loaded = going_on.load(&args.id).await?;
    let mut session = going_on.session().await?;
    session.expectations = args.expectations;
    let (root, from) = (args.id.root(), loaded.tree.next_event);
    let mut log = session.log(shown, from);
    // Any signal takes up what was left running, so only a resting execution can surprise.
    if let (Some(workflow), Some(Status::Rested | Status::Prepared)) = (&loaded.workflow, loaded.status()) {
        warn_unheard(workflow, &args.signals, &mut log, &session);
    }
    let status = loaded.root_status();
    log.know(loaded.tree, loaded.registry);
    let (events, tokens) = (session.engine.tree_events(&root, from), session.tokens());
    let process = owner::other(&session.engine, &root).await?;
    let engine = session.engine.clone();
    let sent = owner::retried(async || {
        let signals = args.signals.iter().map(String::as_str);
        engine.broadcast_signals(&args.id, signals).await
    });
    sent.await.context("the signals were not sent")?;
    if status == Some(Status::Running) && !session.format.quiet {
        let text = match process {
            Some(process) => format!("{process} runs it and has taken the signals: it is followed"),
            None => "it was left running: what was in flight is done again".to_owned(),
        };
        log.note(&format!("{}: {text}", paint(colors.stderr, WARNING, "note")));
    }
    session.follow(&args.id, events, tokens, log).await
}
