//! `soe_explore_docs`: an agent can learn the engine from inside a workflow. There is nothing to reach but the embedded book:
//! paths are names in it, never files.

mod book;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::{Builtin, reads, text};
use crate::llm::Excerpt;
use book::{BOOK, Document};

/// So many places are found at most.
const MAX_FOUND: usize = 20;

/// Deeper headings are no sections of their own.
const MAX_LEVEL: usize = 3;

/// A part of a document: from its heading to the next one of its level, or above it.
#[derive(Debug)]
struct Section {
    document: &'static Document,
    level: usize,
    title: &'static str,
    text: &'static str,
}

static SECTIONS: LazyLock<Vec<Section>> = LazyLock::new(|| BOOK.iter().flat_map(sections).collect());

pub(super) fn all() -> Vec<Builtin> {
    vec![reads(
        "soe_explore_docs",
        "Reads the engine's own documentation: how workflows, nodes, templates and tools are written. Begin with action \
         'list' and path '/'.",
        &["path", "action"],
        json!({
            "path": text("'/' for the book, 'router.md' for a document, 'router.md/Loops' for a section of it."),
            "action": {
                "type": "string",
                "enum": ["list", "read", "tree", "search", "get_tags"],
                "description": "list: what is directly under the path; tree: everything under it; read: the text; search: \
                                the places with words or with a tag, whatever the path; get_tags: the tags to search by.",
            },
            "query": text("For search: words that the text must have."),
            "tag": text("For search: only documents with this tag."),
        }),
    )]
}

/// What the tool answers to arguments that fit its schema.
///
/// # Errors
/// There is nothing of that name, or nothing is searched for.
pub(crate) fn explore(arguments: &Value) -> Result<String, String> {
    let argument = |name: &str| arguments[name].as_str().unwrap_or_default();
    let path = argument("path").trim().trim_matches('/');
    let path = path.strip_prefix("docs/").unwrap_or(path);
    let path = if path == "docs" { "" } else { path };
    match argument("action") {
        "read" => read(path),
        "search" => search(argument("query"), argument("tag")),
        "get_tags" => Ok(lines(tags().into_iter())),
        action => list(path, action == "tree"),
    }
}

fn list(path: &str, deep: bool) -> Result<String, String> {
    if path.is_empty() {
        let documents = BOOK.iter().map(|document| match deep {
            true => format!("{}\n{}", document.name, titles(of_document(document), 0)),
            false => format!("{}: {}", document.name, title(document)),
        });
        return Ok(lines(documents.map(|line| line.trim_end().to_owned())));
    }
    let (document, section) = find(path)?;
    let under: Vec<&Section> = match section {
        None => of_document(document).collect(),
        Some(section) => of_document(document)
            .skip_while(|other| !std::ptr::eq(*other, section))
            .skip(1)
            .take_while(|other| other.level > section.level)
            .collect(),
    };
    let top = under.iter().map(|section| section.level).min().unwrap_or(1);
    let shown = under.into_iter().filter(|section| deep || section.level <= top.max(2));
    match titles(shown, top) {
        titles if titles.is_empty() => Ok(format!("'{path}' has no sections; read it")),
        titles => Ok(titles.trim_end().to_owned()),
    }
}

fn read(path: &str) -> Result<String, String> {
    if path.is_empty() {
        return Err("'/' is the whole book: list it, and read a document or a section".to_owned());
    }
    let (document, section) = find(path)?;
    Ok(section
        .map_or(document.text, |section| section.text)
        .trim_end()
        .to_owned())
}

fn search(query: &str, tag: &str) -> Result<String, String> {
    let words: Vec<String> = query.split_whitespace().map(str::to_lowercase).collect();
    if words.is_empty() && tag.is_empty() {
        return Err("a search needs a 'query' or a 'tag'".to_owned());
    }
    if !tag.is_empty() && !tags().contains(tag) {
        let tag = Excerpt::of(tag, 100);
        return Err(format!(
            "there is no tag '{tag}'; there are: {}",
            lines(tags().into_iter()).replace('\n', ", ")
        ));
    }
    let tagged = |document: &Document| tag.is_empty() || document.tags.contains(&tag);
    if words.is_empty() {
        let documents = BOOK.iter().filter(|document| tagged(document));
        return Ok(lines(
            documents.map(|document| format!("{}: {}", document.name, title(document))),
        ));
    }
    let candidates = SECTIONS
        .iter()
        .filter(|section| section.level > 1 && tagged(section.document));
    let mut found: Vec<(usize, &Section)> = candidates
        .filter_map(|section| {
            let (title, text) = (section.title.to_lowercase(), section.text.to_lowercase());
            let all = words.iter().all(|word| text.contains(word.as_str()));
            let in_title = words.iter().filter(|word| title.contains(word.as_str())).count();
            all.then_some((in_title, section))
        })
        .collect();
    // Stable: the order of reading, where titles say the same.
    found.sort_by_key(|(in_title, _)| std::cmp::Reverse(*in_title));
    if found.is_empty() {
        let query = Excerpt::of(query, 200);
        return Ok(format!("nothing has all of these words: {query}"));
    }
    let more = found.len().saturating_sub(MAX_FOUND);
    let shown = found.iter().take(MAX_FOUND);
    let mut text = lines(shown.map(|(_, section)| format!("{}/{}", section.document.name, section.title)));
    if more > 0 {
        // Writing to a String can't fail.
        let _ = write!(text, "\nand {more} more");
    }
    Ok(text)
}

fn find(path: &str) -> Result<(&'static Document, Option<&'static Section>), String> {
    let (name, wanted) = path.split_once('/').unwrap_or((path, ""));
    let Some(document) = BOOK.iter().find(|document| document.name == name) else {
        let (name, known) = (Excerpt::of(name, 100), lines(BOOK.iter().map(|document| document.name)));
        return Err(format!(
            "there is no document '{name}'; there are: {}",
            known.replace('\n', ", ")
        ));
    };
    if wanted.is_empty() {
        return Ok((document, None));
    }
    let same = |section: &&Section| section.title.eq_ignore_ascii_case(wanted);
    match of_document(document).find(same) {
        Some(section) => Ok((document, Some(section))),
        None => {
            let known = lines(of_document(document).map(|section| section.title)).replace('\n', "; ");
            let wanted = Excerpt::of(wanted, 100);
            Err(format!("'{name}' has no section '{wanted}'; it has: {known}"))
        }
    }
}

fn of_document(document: &Document) -> impl Iterator<Item = &'static Section> {
    SECTIONS.iter().filter(|section| section.document.name == document.name)
}

fn title(document: &Document) -> &'static str {
    of_document(document).next().map_or("", |section| section.title)
}

fn titles<'s>(sections: impl Iterator<Item = &'s Section>, top: usize) -> String {
    let line = |section: &Section| {
        let depth = section.level.saturating_sub(top);
        format!("{}{}\n", "  ".repeat(depth), section.title)
    };
    sections.map(line).collect()
}

fn tags() -> BTreeSet<&'static str> {
    BOOK.iter().flat_map(|document| document.tags).copied().collect()
}

fn lines<T: AsRef<str>>(lines: impl Iterator<Item = T>) -> String {
    let mut text = String::new();
    for line in lines {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(line.as_ref());
    }
    text
}

/// The sections of a document. A `#` in a block of code is no heading.
fn sections(document: &'static Document) -> Vec<Section> {
    let text = document.text;
    let (mut headings, mut at, mut in_code) = (Vec::new(), 0, false);
    for line in text.split_inclusive('\n') {
        in_code ^= line.trim_start().starts_with("```");
        let level = line.bytes().take_while(|byte| *byte == b'#').count();
        if !in_code && (1..=MAX_LEVEL).contains(&level) && line[level..].starts_with(' ') {
            headings.push((at, level, line[level..].trim()));
        }
        at += line.len();
    }
    let end = |position: usize, level: usize| {
        let mut later = headings[position + 1..].iter();
        later
            .find(|(_, other, _)| *other <= level)
            .map_or(text.len(), |(start, ..)| *start)
    };
    let section = |(position, (start, level, title)): (usize, &(usize, usize, &'static str))| Section {
        document,
        level: *level,
        title,
        text: &text[*start..end(position, *level)],
    };
    headings.iter().enumerate().map(section).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(path: &str, action: &str) -> Result<String, String> {
        explore(&json!({"path": path, "action": action}))
    }

    #[test]
    fn the_whole_book_is_there() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");
        let names = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let there: BTreeSet<String> = names.filter(|name| name.ends_with(".md")).collect();
        let embedded: BTreeSet<String> = BOOK.iter().map(|document| document.name.to_owned()).collect();
        assert_eq!(embedded, there);
        assert_eq!(asked("/", "list").unwrap().lines().count(), BOOK.len());
        assert!(asked("/", "list").unwrap().contains("router.md: Routers"));
    }

    #[test]
    fn documents_and_sections_are_listed_and_read() {
        let whole = asked("/docs/context.md", "read").unwrap();
        assert!(whole.starts_with("# Context") && whole.contains("## History"));
        let sections = asked("context.md", "list").unwrap();
        assert!(sections.lines().any(|line| line.trim() == "History"), "{sections}");
        let section = asked("context.md/history", "read").unwrap();
        assert!(section.starts_with("## History") && section.len() < whole.len());
        assert!(!section.contains("\n## "), "it ends at the next heading");
        assert!(asked("/", "tree").unwrap().contains("History"));
    }

    #[test]
    fn a_path_leads_nowhere_but_into_the_book() {
        for path in [
            "../Cargo.toml",
            "/etc/passwd",
            "docs/../../README.md",
            "router.md/../../x",
            "..",
            "%2e%2e",
            "\0",
        ] {
            for action in ["read", "list", "tree"] {
                let error = asked(path, action).unwrap_err();
                assert!(
                    error.contains("there is no") || error.contains("has no section"),
                    "{error}"
                );
            }
        }
        assert!(asked("/", "read").unwrap_err().contains("list it"));
    }

    #[test]
    fn it_is_searched_by_words_and_tags() {
        let search =
            |query: &str, tag: &str| explore(&json!({"path": "/", "action": "search", "query": query, "tag": tag}));
        let found = search("event_triggers", "").unwrap();
        assert!(
            found.lines().count() > 3
                && found
                    .lines()
                    .all(|line| line.contains(".md/") || line.starts_with("and "))
        );
        assert!(search("", "agent").unwrap().starts_with("agent.md"));
        assert!(search("xyzzy", "").unwrap().contains("nothing has all"));
        assert!(search("", "").unwrap_err().contains("needs a 'query'"));
        assert!(search("x", "nonsense").unwrap_err().contains("there is no tag"));
        assert!(
            asked("/", "get_tags")
                .unwrap()
                .lines()
                .any(|tag| tag == "self-evolution")
        );
    }

    #[test]
    fn a_comment_in_code_is_no_heading() {
        assert!(SECTIONS.iter().all(|section| !section.title.starts_with("context: ")));
        assert!(SECTIONS.len() > 100);
    }
}
