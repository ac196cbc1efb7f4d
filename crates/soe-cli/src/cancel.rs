//! `soe cancel`

use std::time::Duration;

use anyhow::Context as _;
use soe_backends::Status;

use crate::args::Cancel;
use crate::output::{self, WARNING, paint, shell_path, shell_word};
use crate::{Colors, owner, stored};

/// Cancels a stored execution and what is below it, whoever runs it. Gives the exit code.
pub(crate) async fn cancel(args: Cancel, colors: Colors) -> anyhow::Result<u8> {
    let engine = stored::open(&args.store).await?;
    let before = engine.status(&args.id).await?;
    if before.status == Status::Cancelled {
        output::eprint(&format!("{} is cancelled already\n", args.id));
        return Ok(0);
    }
    let cancelled = owner::retried(async || engine.cancel(&args.id).await).await;
    cancelled.context("it was not cancelled")?;
    // What the parent does about it needs tools that this command doesn't have.
    engine.shutdown(Duration::ZERO).await;
    let status = paint(colors.stderr, WARNING, Status::Cancelled);
    output::eprint(&format!("{} is {status}\n", args.id));
    let root = args.id.root();
    if root == args.id || engine.status(&root).await?.status != Status::Running {
        return Ok(0);
    }
    match owner::other(&engine, &root).await? {
        Some(process) => output::eprint(&format!("{root} goes on: {process} runs it\n")),
        None => {
            let (id, store) = (shell_word(root.as_str()), shell_path(&args.store));
            output::eprint(&format!(
                "{root} has something to do about it. To go on:\n  soe resume {id} --store {store}\n"
            ));
        }
    }
    Ok(0)
}
