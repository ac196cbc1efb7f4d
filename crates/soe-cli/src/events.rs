//! `soe events`

use std::time::Duration;

use soe_backends::{ExecutionId, Status};
use soe_core::runtime::Engine;

use crate::args::Events;
use crate::log::{Log, Mode};
use crate::output::{self, ERROR, paint};
use crate::{Colors, stored};

/// So many events are read at a time.
const PAGE: usize = 500;

/// How often the store is asked for more.
const INTERVAL: Duration = Duration::from_millis(200);

/// How often in a row nobody must be found to run an execution: between two processes there is a moment without one.
const NOBODY: u32 = 5;

/// Shows what has happened in a stored tree, or in one execution of it, and with `--follow` what happens. Gives the exit code.
pub(crate) async fn events(args: Events, colors: Colors) -> anyhow::Result<u8> {
    let engine = stored::open(&args.store).await?;
    let tree = engine.tree(&args.id).await?;
    let state = engine.state(&args.id).await?;
    let mode = if args.json { Mode::Json } else { Mode::Lines };
    let mut log = Log::printed(mode, colors.stdout, args.from, state.created_at);
    if args.id.is_root() {
        log.know(tree, engine.workflows(&args.id).await.ok());
    }
    show(&engine, &args.id, &mut log).await?;
    if !args.follow {
        return Ok(0);
    }
    follow(&engine, &args.id, &mut log, colors).await
}

/// Reads on until the execution ends: another process writes.
async fn follow(engine: &Engine, id: &ExecutionId, log: &mut Log, colors: Colors) -> anyhow::Result<u8> {
    let mut nobody = 0;
    loop {
        let status = engine.status(id).await?.status;
        // What led to this state is stored with it.
        if show(engine, id, log).await? {
            nobody = 0;
        }
        match status {
            Status::Running => {}
            Status::Rested | Status::Prepared => return Ok(0),
            _ => return Ok(1),
        }
        nobody = match engine.check_free(id).await {
            Ok(()) => nobody + 1,
            Err(_) => 0,
        };
        if nobody == NOBODY {
            let word = paint(colors.stderr, ERROR, "error");
            let text = "it was left running, and no process runs it: `soe resume` goes on with it";
            output::eprint(&format!("{word}: execution {id}: {text}\n"));
            return Ok(1);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Shows the events that are stored and not shown yet: of a root, those of its tree. Gives whether there were any.
async fn show(engine: &Engine, id: &ExecutionId, log: &mut Log) -> anyhow::Result<bool> {
    let mut any = false;
    loop {
        let events = match id.is_root() {
            true => engine.tree_telemetry(id, log.next(), PAGE).await?,
            false => engine.telemetry(id, log.next(), PAGE).await?,
        };
        let more = events.len() == PAGE;
        any |= !events.is_empty();
        for event in events {
            log.event(&event)?;
        }
        if !more {
            log.flush();
            return Ok(any);
        }
    }
}
