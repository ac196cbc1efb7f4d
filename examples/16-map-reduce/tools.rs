//! The tools: two that read a folder, one that counts, one that adds up.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use soe_core::tools::{ToolContext, ToolDefinition, ToolError, tool_fn};
use tokio::fs;

/// The largest file that is read: a text is a value in its child's context, and so in the store.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

#[derive(Deserialize, JsonSchema)]
struct ListTexts {
    folder: PathBuf,
}

#[derive(Deserialize, JsonSchema)]
struct ReadText {
    folder: PathBuf,
    file: String,
}

#[derive(Deserialize, JsonSchema)]
struct CountWords {
    file: String,
    text: String,
}

/// What is known of one file.
#[derive(Deserialize, Serialize, JsonSchema)]
struct Counts {
    file: String,
    lines: u64,
    words: BTreeMap<String, u64>,
}

#[derive(Deserialize, JsonSchema)]
struct AddUp {
    files: Vec<String>,
    counts: Vec<Counts>,
    /// How many of the most frequent words are wanted.
    most: usize,
}

#[derive(Serialize)]
struct FileTotal {
    file: String,
    lines: u64,
    words: u64,
}

#[derive(Serialize)]
struct WordTotal {
    word: String,
    times: u64,
    files: u64,
}

#[derive(Serialize)]
struct Total {
    lines: u64,
    words: u64,
    files: Vec<FileTotal>,
    unreadable: Vec<String>,
    most_frequent: Vec<WordTotal>,
}

/// The tools of the workflow. At most 16 files are read at a time.
pub fn tools() -> [ToolDefinition; 4] {
    let read = tool_fn("read_text", "Reads a text file.", read_text);
    [
        tool_fn("list_texts", "The names of a folder's text files.", list_texts),
        read.failure_signal("UNREADABLE").concurrency(16),
        tool_fn("count_words", "Counts lines and words.", count_words),
        tool_fn("add_up", "Adds up what was counted.", add_up),
    ]
}

async fn list_texts(args: ListTexts, _: ToolContext) -> Result<Vec<String>, ToolError> {
    let failed = |error| ToolError::new(format!("{} can't be listed: {error}", args.folder.display()));
    let mut entries = fs::read_dir(&args.folder).await.map_err(failed)?;
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_text = Path::new(&name)
            .extension()
            .is_some_and(|end| end == "txt" || end == "md");
        if is_text && entry.file_type().await?.is_file() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

async fn read_text(args: ReadText, _: ToolContext) -> Result<String, ToolError> {
    let path = args.folder.join(&args.file);
    let failed = |error| ToolError::new(format!("{} can't be read: {error}", args.file));
    let length = fs::metadata(&path).await.map_err(failed)?.len();
    if length > MAX_BYTES {
        return Err(ToolError::new(format!("{} has more than {MAX_BYTES} bytes", args.file)));
    }
    fs::read_to_string(&path).await.map_err(failed)
}

async fn count_words(args: CountWords, _: ToolContext) -> Result<Counts, ToolError> {
    let mut words = BTreeMap::new();
    for word in args.text.split(|c: char| !c.is_alphanumeric() && c != '\'') {
        let word = word.trim_matches('\'').to_lowercase();
        if !word.is_empty() {
            *words.entry(word).or_default() += 1;
        }
    }
    Ok(Counts {
        file: args.file,
        lines: args.text.lines().count() as u64,
        words,
    })
}

/// The counts come in any order. What is made of them is sorted, so it is the same every time.
async fn add_up(args: AddUp, _: ToolContext) -> Result<Total, ToolError> {
    let (mut files, mut unreadable) = (Vec::new(), args.files);
    let mut frequencies: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for counts in args.counts {
        unreadable.retain(|file| *file != counts.file);
        files.push(FileTotal {
            words: counts.words.values().sum(),
            lines: counts.lines,
            file: counts.file,
        });
        for (word, number) in counts.words {
            let (times, files) = frequencies.entry(word).or_default();
            *times += number;
            *files += 1;
        }
    }
    files.sort_by(|one, other| one.file.cmp(&other.file));
    let words = frequencies.into_iter();
    let mut most_frequent: Vec<_> = words
        .map(|(word, (times, files))| WordTotal { word, times, files })
        .collect();
    // The sort is stable: words that are as frequent stay in the order of the alphabet.
    most_frequent.sort_by_key(|word| Reverse(word.times));
    most_frequent.truncate(args.most);
    Ok(Total {
        lines: files.iter().map(|file| file.lines).sum(),
        words: files.iter().map(|file| file.words).sum(),
        files,
        unreadable,
        most_frequent,
    })
}
