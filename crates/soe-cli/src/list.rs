//! `soe list`

use serde::Serialize;
use soe_backends::{ExecutionSummary, ListPage, ListQuery, Status, TreeState};
use soe_core::runtime::Engine;

use crate::Colors;
use crate::args::List;
use crate::output::{self, ERROR, FAINT, paint, safe};
use crate::stored::{open, style};
use crate::summary::names;
use crate::waits::{Lookout, Waiting, Waits};

/// A line of `--json`.
#[derive(Serialize)]
struct Line<'s> {
    #[serde(flatten)]
    summary: &'s ExecutionSummary,
    /// The same as `id`, under the name that other commands use.
    execution: &'s str,
    /// Who waits for a signal from outside.
    waiting: &'s [Waiting],
}

/// Lists the stored trees, or the executions of one. Gives the exit code.
pub(crate) async fn list(args: List, colors: Colors) -> anyhow::Result<u8> {
    let engine = open(&args.store).await?;
    match &args.tree {
        Some(id) => {
            let tree = engine.tree(id).await?;
            one_tree(&engine, &args, &tree, colors).await
        }
        None => all_trees(&engine, &args, colors).await,
    }
}

async fn all_trees(engine: &Engine, args: &List, colors: Colors) -> anyhow::Result<u8> {
    let mut query = ListQuery {
        status: args.status,
        workflow: args.workflow.as_deref().map(Into::into),
        since: args.since,
        ..ListQuery::default()
    };
    let (mut first, mut damaged) = (true, 0);
    let mut left = args.limit.unwrap_or(usize::MAX);
    let mut lookout = Lookout::new(engine, None);
    loop {
        query.limit = left.min(ListPage::DEFAULT_LIMIT);
        let page = engine.list(&query).await?;
        for tree in &page.damaged {
            let word = paint(colors.stderr, ERROR, "damaged");
            output::eprint(&format!("{word}: tree {}: {}\n", safe(&tree.tree), safe(&tree.problem)));
        }
        damaged += page.damaged.len();
        if std::mem::take(&mut first) && !args.json && !page.executions.is_empty() {
            head(colors)?;
        }
        for root in &page.executions {
            let waits = match root.status {
                Status::Rested | Status::Prepared => waits_of(engine, &mut lookout, root).await?,
                _ => Waits::default(),
            };
            line(root, &waits.waiting, args.json, colors)?;
        }
        left -= page.executions.len().min(left);
        match page.next {
            Some(next) if left > 0 => query.after = Some(next),
            _ => return Ok(u8::from(damaged > 0)),
        }
    }
}

async fn waits_of(engine: &Engine, lookout: &mut Lookout<'_>, root: &ExecutionSummary) -> anyhow::Result<Waits> {
    match engine.tree(&root.id).await {
        Ok(tree) => Ok(lookout.look(&tree).await.unwrap_or_default()),
        // It was deleted meanwhile, or is damaged: that isn't what is asked for here.
        Err(_) => Ok(Waits::default()),
    }
}

/// All executions of a tree, in the order of their creation.
async fn one_tree(engine: &Engine, args: &List, tree: &TreeState, colors: Colors) -> anyhow::Result<u8> {
    let waits = Lookout::new(engine, None).look(tree).await.unwrap_or_default();
    let wanted = ListQuery {
        status: args.status,
        workflow: args.workflow.as_deref().map(Into::into),
        since: args.since,
        ..ListQuery::default()
    };
    let summaries = tree.executions.keys().filter_map(|number| tree.summary_of(number));
    let summaries = summaries.filter(|summary| wanted.wants(summary));
    if !args.json {
        head(colors)?;
    }
    for summary in summaries.take(args.limit.unwrap_or(usize::MAX)) {
        let own = waits.waiting.iter().filter(|waiting| waiting.execution == summary.id);
        let own: Vec<Waiting> = own.cloned().collect();
        line(&summary, &own, args.json, colors)?;
    }
    Ok(0)
}

fn head(colors: Colors) -> anyhow::Result<()> {
    let head = format!("{:<36}  {:<9}  {:<27}  WORKFLOW", "ID", "STATUS", "CHANGED");
    output::print(&format!("{}\n", paint(colors.stdout, FAINT, head)))?;
    Ok(())
}

fn line(summary: &ExecutionSummary, waiting: &[Waiting], json: bool, colors: Colors) -> anyhow::Result<()> {
    if json {
        let line = Line {
            summary,
            execution: summary.id.as_str(),
            waiting,
        };
        output::print(&output::json_line(&line)?)?;
        return Ok(());
    }
    let status = format_args!("{:<9}", summary.status.as_str()).to_string();
    let status = paint(colors.stdout, style(summary.status), status);
    let mut more = match summary.children {
        0 => String::new(),
        1 => ", 1 child".to_owned(),
        children => format!(", {children} children"),
    };
    match waiting {
        [] => {}
        [one] if one.execution == summary.id => more.push_str(&format!(", waits for {}", names(&one.signals))),
        [one] => more.push_str(&format!(", {} waits for {}", one.execution, names(&one.signals))),
        many => more.push_str(&format!(", {} executions wait", many.len())),
    }
    output::print(&format!(
        "{:<36}  {status}  {}  {}{more}\n",
        summary.id.as_str(),
        summary.updated_at,
        safe(&summary.workflow)
    ))?;
    Ok(())
}
