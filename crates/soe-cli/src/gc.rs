//! `soe gc`

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use soe_core::runtime::{Collectable, Engine, Retention};

use crate::output::{self, FAINT, paint};
use crate::{Colors, stored};

#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// The folder or database that the executions are stored in
    #[arg(long, value_name = "STORE")]
    store: PathBuf,

    /// Only trees that haven't changed for this long, such as `7d` or `12h`
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Duration,

    /// Those that rest, too, though a signal could still wake them
    #[arg(long)]
    rested: bool,

    /// Says what would be deleted, and deletes nothing
    #[arg(long)]
    dry_run: bool,

    /// Prints one JSON document
    #[arg(long)]
    json: bool,
}

/// What was or would be deleted, for `--json`.
#[derive(Default, Serialize)]
struct Report {
    trees: u64,
    executions: u64,
    /// With `--dry-run`: the roots.
    #[serde(skip_serializing_if = "Option::is_none")]
    roots: Option<Vec<String>>,
    errors: Vec<String>,
}

/// Deletes what nobody needs any more. Gives the exit code.
pub(crate) async fn gc(args: Gc, colors: Colors) -> anyhow::Result<u8> {
    let engine = stored::open(&args.store).await?;
    let retention = match args.rested {
        true => Retention::older_than(args.older_than).rested(),
        false => Retention::older_than(args.older_than),
    };
    let report = match args.dry_run {
        true => preview(&engine, &retention, &args, colors).await?,
        false => collect(&engine, &retention, &args, colors).await?,
    };
    let trees = output::count(report.trees, "tree");
    let executions = output::count(report.executions, "execution");
    let verb = if args.dry_run { "would be deleted" } else { "deleted" };
    match args.json {
        true => output::print(&output::json_line(&report)?)?,
        false => output::print(&format!("{trees} with {executions} {verb}\n"))?,
    }
    Ok(u8::from(!report.errors.is_empty()))
}

async fn preview(engine: &Engine, retention: &Retention, args: &Gc, colors: Colors) -> anyhow::Result<Report> {
    let found = engine.collectable(retention).await?;
    for Collectable { root, executions, .. } in found.iter().filter(|_| !args.json) {
        let changed = paint(colors.stdout, FAINT, root.updated_at);
        let executions = output::count(*executions, "execution");
        let line = format!(
            "{:<36}  {:<9}  {changed}  {executions}\n",
            root.id.as_str(),
            root.status.as_str()
        );
        output::print(&line)?;
    }
    Ok(Report {
        trees: found.len() as u64,
        executions: found.iter().map(|tree| tree.executions).sum(),
        roots: Some(found.iter().map(|tree| tree.root.id.to_string()).collect()),
        errors: Vec::new(),
    })
}

async fn collect(engine: &Engine, retention: &Retention, args: &Gc, colors: Colors) -> anyhow::Result<Report> {
    let collected = engine.collect(retention).await?;
    let mut errors = Vec::new();
    for error in collected.errors {
        let error = error.into();
        errors.push(output::with_causes(&error));
        if !args.json {
            output::print_error(colors.stderr, &error);
        }
    }
    Ok(Report {
        trees: collected.trees,
        executions: collected.executions,
        roots: None,
        errors,
    })
}

fn age(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "an age such as 7d, 12h or 0s is expected".into())
}
