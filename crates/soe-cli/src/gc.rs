//! `soe gc`

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde::Serialize;
use soe_backends::{ExecutionId, ListQuery, Status, Timestamp};
use soe_core::runtime::{Collectable, Engine, Retention};

use crate::output::{self, FAINT, paint};
use crate::{Colors, stored};

/// The most trees that are named for one reason.
const MOST_NAMED: usize = 20;

const CHANGED: &str = "it has changed since it was listed, or a message waits in its inbox";

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
    /// What stays though it is old enough or has no age that counts, and why.
    kept: Vec<Kept>,
    errors: Vec<String>,
}

/// A tree that stays.
#[derive(Serialize)]
struct Kept {
    execution: String,
    why: &'static str,
}

/// Deletes what nobody needs any more. Gives the exit code.
pub(crate) async fn gc(args: Gc, colors: Colors) -> anyhow::Result<u8> {
    let engine = stored::open(&args.store).await?;
    let retention = match args.rested {
        true => Retention::older_than(args.older_than).rested(),
        false => Retention::older_than(args.older_than),
    };
    let mut report = match args.dry_run {
        true => preview(&engine, &retention, &args, colors).await?,
        false => collect(&engine, &retention, &args, colors).await?,
    };
    keep(&engine, &args, &mut report, colors).await?;
    let trees = output::count(report.trees, "tree");
    let executions = output::count(report.executions, "execution");
    let verb = if args.dry_run { "would be deleted" } else { "deleted" };
    match args.json {
        true => output::print(&output::json_line(&report)?)?,
        false => {
            output::print(&format!("{trees} with {executions} {verb}\n"))?;
            output::print(&of_kept(&report.kept))?;
        }
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
        kept: Vec::new(),
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
        kept: collected.kept.iter().map(|root| Kept::new(root, CHANGED)).collect(),
        errors,
    })
}

/// Names the other trees that stay, and why.
async fn keep(engine: &Engine, args: &Gc, report: &mut Report, colors: Colors) -> anyhow::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let age = u64::try_from(now.saturating_sub(args.older_than).as_micros()).unwrap_or(u64::MAX);
    let before = Timestamp::from_micros(age);
    let known: HashSet<String> = report.kept.iter().map(|kept| kept.execution.clone()).collect();
    let gone: HashSet<&String> = report.roots.iter().flatten().collect();
    let mut query = ListQuery::default();
    loop {
        let page = engine.list(&query).await?;
        for damaged in page.damaged {
            let error = anyhow::anyhow!("{} can't be read, and stays: {}", damaged.tree, damaged.problem);
            output::print_error(colors.stderr, &error);
        }
        for root in page.executions {
            if known.contains(root.id.as_str()) || gone.contains(&root.id.to_string()) {
                continue;
            }
            let why = match root.status {
                Status::Running => "it is running",
                Status::Prepared => "it is prepared, and has not begun",
                _ if root.updated_at > before => "it has changed too lately",
                Status::Rested if !args.rested => "it rests (--rested takes such trees, too)",
                _ if root.unsettled => "stores of their own have still to be given something of it",
                // It has ended in this moment, or couldn't be deleted, which is said.
                _ => continue,
            };
            report.kept.push(Kept::new(&root.id, why));
        }
        query.after = page.next;
        if query.after.is_none() {
            return Ok(());
        }
    }
}

/// Lines that say what stays: by reason, of many the first.
fn of_kept(kept: &[Kept]) -> String {
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for kept in kept {
        reasons.entry(kept.why).or_default().push(&kept.execution);
    }
    let lines = reasons.into_iter().map(|(why, roots)| {
        let named = roots.iter().take(MOST_NAMED).copied().collect::<Vec<_>>().join(", ");
        let more = match roots.len().saturating_sub(MOST_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("kept {named}{more}: {why}\n")
    });
    lines.collect()
}

impl Kept {
    fn new(root: &ExecutionId, why: &'static str) -> Self {
        Self {
            execution: root.to_string(),
            why,
        }
    }
}

fn age(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "an age such as 7d, 12h or 0s is expected".into())
}
