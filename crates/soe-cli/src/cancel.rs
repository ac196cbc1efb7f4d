//! `soe cancel`

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use soe_backends::{ExecutionId, ListQuery, Status};
use soe_core::runtime::Engine;

use crate::args::Cancel;
use crate::output::{self, WARNING, paint};
use crate::{Colors, stored};

/// How long what is below a cancelled execution may take to hear of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often that is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// Cancels a stored execution and what is below it. Gives the exit code.
pub(crate) async fn cancel(args: Cancel, colors: Colors) -> anyhow::Result<u8> {
    let engine = stored::open(&args.store).await?;
    let before = engine.state(&args.id).await?;
    if before.status == Status::Cancelled {
        output::eprint(&format!("{} is cancelled already\n", args.id));
        return Ok(0);
    }
    engine.cancel(&args.id).await.context("it can't be cancelled here")?;
    let has_children = before.family.is_some();
    if has_children {
        let done = hand_down(&engine, before.main_execution_id()).await;
        done.with_context(|| format!("{} is cancelled, but not all that is below it", args.id))?;
    }
    engine.shutdown(PATIENCE).await;
    let status = paint(colors.stderr, WARNING, Status::Cancelled);
    output::eprint(&format!("{} is {status}\n", args.id));
    Ok(0)
}

/// Waits until nothing of a cancelled execution has still to go down to its children.
async fn hand_down(engine: &Engine, main: &ExecutionId) -> anyhow::Result<()> {
    let start = Instant::now();
    let query = ListQuery {
        main_execution_id: Some(main.clone()),
        unsettled: true,
        ..ListQuery::default()
    };
    loop {
        let page = engine.list(&query).await?;
        // Of what is above a cancelled child, other branches may go on.
        let left = page
            .executions
            .iter()
            .any(|execution| execution.status != Status::Running);
        if !left {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            bail!("it takes too long: `soe resume` hands it down");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
