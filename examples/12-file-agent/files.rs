//! Tools that read the files of one folder, and of no other.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use soe_core::tools::{NoArguments, ToolDefinition, ToolError, tool_fn};

/// The largest file that is read.
const MAX_BYTES: u64 = 64 * 1024;

/// The most files that are listed, and lines that a search finds.
const MOST: usize = 200;

#[derive(Deserialize, JsonSchema)]
struct ReadFile {
    /// The path as `list_files` gives it.
    path: String,
}

#[derive(Deserialize, JsonSchema)]
struct Search {
    /// What to look for; upper and lower case are the same.
    text: String,
}

#[derive(Serialize)]
struct Hit {
    path: String,
    line: usize,
    text: String,
}

#[derive(Deserialize, JsonSchema)]
struct CheckSources {
    sources: Vec<String>,
}

/// A folder whose files may be read.
pub struct Library {
    root: PathBuf,
}

impl Library {
    /// The files under `folder`.
    pub fn open(folder: impl AsRef<Path>) -> std::io::Result<Arc<Self>> {
        let root = folder.as_ref().canonicalize()?;
        Ok(Arc::new(Self { root }))
    }

    /// The tools: three for the agent, and one that checks what it says.
    pub fn tools(self: &Arc<Self>) -> [ToolDefinition; 4] {
        let [list, search, read, check] = std::array::from_fn(|_| self.clone());
        [
            tool_fn("list_files", "The paths of all files.", move |_: NoArguments, _| {
                blocking(&list, |library| library.list())
            }),
            tool_fn("search", "The lines that contain a text.", move |args: Search, _| {
                blocking(&search, move |library| library.search(&args.text))
            }),
            tool_fn("read_file", "A file's text.", move |args: ReadFile, _| {
                blocking(&read, move |library| library.read(&args.path))
            }),
            tool_fn(
                "check_sources",
                "Those of the paths that lead to no file.",
                move |args: CheckSources, _| {
                    blocking(&check, move |library| {
                        Ok(args
                            .sources
                            .into_iter()
                            .filter(|path| library.read(path).is_err())
                            .collect::<Vec<_>>())
                    })
                },
            ),
        ]
    }

    fn list(&self) -> Result<Vec<String>, ToolError> {
        let (mut paths, mut folders) = (Vec::new(), vec![self.root.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                // Links are left out: `file_type` doesn't follow them.
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_file() {
                    paths.push(self.shown(&entry.path()));
                }
            }
        }
        paths.sort();
        paths.truncate(MOST);
        Ok(paths)
    }

    fn search(&self, text: &str) -> Result<Vec<Hit>, ToolError> {
        let wanted = text.trim().to_lowercase();
        if wanted.is_empty() {
            return Err(ToolError::new("there is nothing to look for"));
        }
        let mut hits = Vec::new();
        for path in self.list()? {
            // A file that is too large, or no text, has nothing to be found.
            let Ok(content) = self.read(&path) else { continue };
            let lines = content.lines().enumerate();
            let found = lines.filter(|(_, line)| line.to_lowercase().contains(&wanted));
            hits.extend(found.map(|(index, line)| Hit {
                path: path.clone(),
                line: index + 1,
                text: line.to_owned(),
            }));
        }
        hits.truncate(MOST);
        Ok(hits)
    }

    fn read(&self, path: &str) -> Result<String, ToolError> {
        let file = self.inside(path)?;
        let length = file.metadata().map_err(|error| failed(path, &error))?.len();
        if length > MAX_BYTES {
            return Err(ToolError::new(format!(
                "'{path}' has {length} bytes, more than {MAX_BYTES}"
            )));
        }
        fs::read_to_string(&file).map_err(|error| failed(path, &error))
    }

    /// The file that `path` names, if it is in the folder: neither `..` nor an absolute path nor a link leads out of it.
    fn inside(&self, path: &str) -> Result<PathBuf, ToolError> {
        let refused = || ToolError::new(format!("'{path}' is outside of the folder"));
        let relative = Path::new(path);
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if !relative.components().all(plain) {
            return Err(refused());
        }
        let file = self
            .root
            .join(relative)
            .canonicalize()
            .map_err(|error| failed(path, &error))?;
        match file.starts_with(&self.root) {
            true => Ok(file),
            false => Err(refused()),
        }
    }

    fn shown(&self, file: &Path) -> String {
        let relative = file.strip_prefix(&self.root).unwrap_or(file);
        let parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
        parts.join("/")
    }
}

fn failed(path: &str, error: &std::io::Error) -> ToolError {
    ToolError::new(format!("'{path}' can't be read: {error}"))
}

/// Reads files on a thread where waiting for a disk holds nobody up.
fn blocking<T, R>(library: &Arc<Library>, read: R) -> impl Future<Output = Result<T, ToolError>> + Send + use<T, R>
where
    T: Send + 'static,
    R: FnOnce(&Library) -> Result<T, ToolError> + Send + 'static,
{
    let library = library.clone();
    async move { tokio::task::spawn_blocking(move || read(&library)).await? }
}
