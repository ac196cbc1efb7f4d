//! `soe signal`

use anyhow::Context as _;
use soe_backends::Status;

use crate::Colors;
use crate::args::SendSignal;
use crate::going_on::{GoingOn, warn_unheard};
use crate::output::{WARNING, paint};
use crate::refusal::refuse_as_json;

/// Sends signals to a stored execution, and follows it until it rests. Gives the exit code.
pub(crate) async fn signal(args: SendSignal, colors: Colors, traces: bool) -> anyhow::Result<u8> {
    let json = args.format.json;
    refuse_as_json(json, send(args, colors, traces).await)
}

async fn send(args: SendSignal, colors: Colors, traces: bool) -> anyhow::Result<u8> {
    let read = GoingOn::read(args.store, &args.tools, args.llm, args.format, colors).await?;
    let Some(going_on) = read else {
        return Ok(1);
    };
    let (state, workflow) = going_on.load(&args.id).await?;
    let session = going_on.session().await?;
    let mut log = session.log(traces, state.next_event);
    // Any signal takes up what was left running, so only a resting execution can surprise.
    if let (Some(workflow), Status::Rested | Status::Prepared) = (&workflow, state.status) {
        warn_unheard(workflow, &args.signals, &mut log, &session);
    }
    let (events, tokens) = (session.engine.events_from(&args.id, state.next_event), session.tokens());
    let sent = session.engine.broadcast_signals(&args.id, args.signals).await;
    sent.context("the signals were not sent")?;
    if state.status == Status::Running && !session.format.quiet {
        let text = "it was left running: what was in flight is done again";
        log.note(&format!("{}: {text}", paint(colors.stderr, WARNING, "note")));
    }
    session.follow(&args.id, events, tokens, log).await
}
