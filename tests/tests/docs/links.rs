//! Links of Markdown, and the headings that they lead to.

use std::path::{Path, PathBuf};

use crate::blocks;
use crate::shown;

/// The targets of the inline links of a text, with their lines.
pub(crate) fn of(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (number, line) in blocks::prose(text) {
        let line = without_code(line);
        for after in line.split("](").skip(1) {
            if let Some((target, _)) = after.split_once(')') {
                links.push((number, target.trim().to_owned()));
            }
        }
    }
    links
}

/// Checks that the target of a link in `file` exists: the file or folder, and the heading in it. Addresses of the web are
/// left alone.
pub(crate) fn check(file: &Path, target: &str, documents: &[(PathBuf, String)]) -> Result<(), String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let folder = file.parent().ok_or("the document has no folder")?;
    let linked = if path.is_empty() {
        file.to_owned()
    } else {
        folder.join(path)
    };
    let linked = linked
        .canonicalize()
        .map_err(|_| format!("the link '{target}' leads to no file"))?;
    if anchor.is_empty() {
        return Ok(());
    }
    let found = documents
        .iter()
        .find(|(path, _)| path.canonicalize().is_ok_and(|path| path == linked));
    let Some((path, text)) = found else {
        return Err(format!("the link '{target}' has an anchor, but leads to no document"));
    };
    match anchors(text).iter().any(|known| known == anchor) {
        true => Ok(()),
        false => Err(format!("the link '{target}' leads to no heading of {}", shown(path))),
    }
}

/// The anchors of all headings, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    for (_, line) in blocks::prose(text) {
        let heading = line.trim_start_matches('#');
        if heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let slug: String = heading
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let same = anchors.iter().filter(|other| **other == slug).count();
        anchors.push(if same == 0 { slug } else { format!("{slug}-{same}") });
    }
    anchors
}

/// A line with its code spans blanked: what looks like a link there is none.
fn without_code(line: &str) -> String {
    let part = |(i, part): (usize, &str)| if i % 2 == 0 { part.to_owned() } else { String::new() };
    line.split('`').enumerate().map(part).collect()
}
