//! `soe validate`

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;
use soe_core::config::{self, ValidateOptions};

use crate::args::Validate;
use crate::output::{self, ERROR, GOOD, WARNING, paint, safe};
use crate::problems::{Problem, Source, render};
use crate::{Colors, suitable, tools};

/// A checked file.
#[derive(Serialize)]
struct Checked {
    #[serde(serialize_with = "name_only")]
    file: Source,
    diagnostics: Vec<Problem>,
}

#[derive(Serialize)]
struct Report<'r> {
    errors: usize,
    warnings: usize,
    files: &'r [Checked],
}

/// Checks the files, prints what is wrong, and gives the exit code.
pub(crate) fn validate(args: &Validate, colors: Colors) -> anyhow::Result<u8> {
    let mut checked: Vec<Checked> = Vec::new();
    let given: Vec<String> = args.files.iter().map(|path| path.display().to_string()).collect();
    for path in &args.files {
        for file in check(path, args)? {
            // Several workflow files can have one tools file.
            if !checked.iter().any(|before| before.file.name == file.file.name) {
                checked.push(file);
            }
        }
    }
    let all = || checked.iter().flat_map(|file| &file.diagnostics);
    let errors = all().filter(|problem| problem.is_error()).count();
    let warnings = all().count() - errors;
    if args.json {
        let report = Report {
            errors,
            warnings,
            files: &checked,
        };
        output::print(&output::json_pretty(&report)?)?;
    } else {
        for file in &checked {
            output::print(&render(&file.diagnostics, &file.file, colors.stdout))?;
        }
        // Nobody has named them here.
        let is_beside = |file: &&Checked| {
            let path = Path::new(&file.file.name);
            args.tools.files.is_empty() && tools::is_tools_file(path) && !given.contains(&file.file.name)
        };
        let beside = checked.iter().filter(is_beside).map(|file| file.file.name.as_str());
        let files = files(checked.len(), &beside.collect::<Vec<_>>());
        output::print(&summary(errors, warnings, &files, colors.stdout))?;
    }
    Ok(u8::from(errors > 0 || args.strict && warnings > 0))
}

fn check(path: &Path, args: &Validate) -> anyhow::Result<Vec<Checked>> {
    if tools::is_tools_file(path) {
        return Ok(of_tools(tools::load(&[path.to_owned()])?));
    }
    let file = Source::read(path)?;
    if let Some(problem) = suitable::misnamed_tools(&file) {
        let diagnostics = vec![problem];
        return Ok(vec![Checked { file, diagnostics }]);
    }
    let tools_files = tools::files_for(&args.tools.files, &file);
    let tools = tools::load(&tools_files)?;
    let mut options = ValidateOptions::default();
    if !tools_files.is_empty() {
        options.tools = Some(tools.names.clone());
    }
    if !args.signals.is_empty() {
        let sent: BTreeSet<String> = args.signals.iter().cloned().chain(tools.failure_signals()).collect();
        options.sent_signals = Some(sent);
    }
    let report = config::validate(&file.text, &options);
    let diagnostics: Vec<Problem> = report.diagnostics.iter().map(Problem::from).collect();
    let mut checked = of_tools(tools);
    checked.push(Checked { file, diagnostics });
    Ok(checked)
}

fn of_tools(tools: tools::Loaded) -> Vec<Checked> {
    let checked = |(file, diagnostics)| Checked { file, diagnostics };
    tools.files.into_iter().map(checked).collect()
}

/// `2 files`, `1 file and tools.yaml beside it`
fn files(all: usize, beside: &[&str]) -> String {
    let named = all - beside.len();
    let count = output::count(named as u64, "file");
    match beside {
        [] => count,
        names => {
            let them = if named == 1 { "it" } else { "them" };
            format!("{count} and {} beside {them}", safe(&names.join(", ")))
        }
    }
}

fn summary(errors: usize, warnings: usize, files: &str, color: bool) -> String {
    let (errors_text, warnings_text) = (
        output::count(errors as u64, "error"),
        output::count(warnings as u64, "warning"),
    );
    match (errors, warnings) {
        (0, 0) => format!("{}: no problems in {files}\n", paint(color, GOOD, "valid")),
        (0, _) => format!("{}: {warnings_text} in {files}\n", paint(color, WARNING, "valid")),
        (_, 0) => format!("{}: {errors_text} in {files}\n", paint(color, ERROR, "invalid")),
        _ => format!(
            "{}: {errors_text}, {warnings_text} in {files}\n",
            paint(color, ERROR, "invalid")
        ),
    }
}

fn name_only<S: serde::Serializer>(source: &Source, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&source.name)
}
