//! What is shown when nothing is done: problems of files, and errors as JSON.

use serde::Serialize;
use soe_backends::ExecutionId;
use soe_core::runtime::{EngineError, EngineErrorKind};

use crate::args::Format;
use crate::output;
use crate::problems::{Problem, Source, render};
use crate::{Colors, Usage};

/// The last line of `--json` when nothing was started.
#[derive(Serialize)]
struct Refusal<'r> {
    execution: Option<&'r str>,
    status: &'static str,
    error: String,
    diagnostics: &'r [Problem],
}

/// Shows problems on stderr, or as the last line of `--json`; with `--quiet`, errors only.
pub(crate) fn show_problems<'f>(
    files: impl Iterator<Item = &'f (Source, Vec<Problem>)>,
    workflow: Option<(&Source, &[Problem])>,
    format: &Format,
    colors: Colors,
) -> anyhow::Result<()> {
    let files = files
        .map(|(source, problems)| (source, problems.as_slice()))
        .chain(workflow);
    let mut all = Vec::new();
    for (source, problems) in files {
        let shown = problems.iter().filter(|problem| problem.is_error() || !format.quiet);
        if !format.json {
            output::eprint(&render(shown, source, colors.stderr));
        }
        all.extend_from_slice(problems);
    }
    if format.json && all.iter().any(Problem::is_error) {
        let refusal = Refusal {
            execution: None,
            status: "refused",
            error: "the configuration can't be used".to_owned(),
            diagnostics: &all,
        };
        output::print(&output::json_line(&refusal)?)?;
    }
    Ok(())
}

/// With `--json`, an error is the last line too.
pub(crate) fn refuse_as_json(json: bool, result: anyhow::Result<u8>) -> anyhow::Result<u8> {
    if let (true, Err(error)) = (json, &result)
        && !error.is::<Usage>()
    {
        let about = error.downcast_ref::<EngineError>();
        let execution = about.and_then(|error| error.execution());
        let started = about.is_some_and(|error| *error.kind() != EngineErrorKind::Refused);
        let refusal = Refusal {
            execution: execution.map(ExecutionId::as_str),
            status: if started { "error" } else { "refused" },
            error: output::with_causes(error),
            diagnostics: &[],
        };
        output::print(&output::json_line(&refusal)?)?;
    }
    result
}
