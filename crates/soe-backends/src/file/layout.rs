//! Where the file store keeps what: file names that people know from the reference, and that no two ids share.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::{ExecutionId, RegistryId};

/// Lock files are shared by trees, so that they are few, and none ever has to be deleted while somebody waits for it.
const LOCKS: u64 = 256;

/// The folders of a store.
pub(super) const FOLDERS: [&str; 11] = [
    "trees",
    INBOXES,
    "contexts",
    "workflows",
    "workflows/registries",
    "telemetry",
    "conversations",
    "schemas",
    "identities",
    "owners",
    "locks",
];

/// The folder of what counts.
pub(super) const TREES: &str = "trees";

/// The folder that tells which trees have messages that were not taken.
pub(super) const INBOXES: &str = "inboxes";

/// How the name of a journal ends.
pub(super) const JOURNAL: &str = ".journal";

/// The paths in a store.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) root: PathBuf,
    /// Whether the file system takes `a` and `A` for different names.
    pub(super) case_sensitive: bool,
}

impl Layout {
    /// The journal of a tree: the one file that counts.
    pub(super) fn journal(&self, tree: &ExecutionId) -> PathBuf {
        self.file(TREES, tree, JOURNAL)
    }

    /// It is there as long as the tree may have messages that were not taken.
    pub(super) fn waiting(&self, tree: &ExecutionId) -> PathBuf {
        self.file(INBOXES, tree, "")
    }

    /// What a list says of a tree.
    pub(super) fn head(&self, tree: &ExecutionId) -> PathBuf {
        self.file(TREES, tree, ".head")
    }

    pub(super) fn context(&self, id: &ExecutionId) -> PathBuf {
        self.file("contexts", id, ".json")
    }

    pub(super) fn telemetry(&self, id: &ExecutionId) -> PathBuf {
        self.file("telemetry", id, ".jsonl")
    }

    pub(super) fn conversation(&self, id: &ExecutionId) -> PathBuf {
        self.file("conversations", id, ".json")
    }

    pub(super) fn schemas(&self, id: &ExecutionId) -> PathBuf {
        self.file("schemas", id, ".yaml")
    }

    pub(super) fn identities(&self, id: &ExecutionId) -> PathBuf {
        self.file("identities", id, ".yaml")
    }

    pub(super) fn current_workflows(&self, id: &ExecutionId) -> PathBuf {
        self.file("workflows", id, "_workflows.json")
    }

    pub(super) fn current_name(&self, id: &ExecutionId) -> PathBuf {
        self.file("workflows", id, "_current.txt")
    }

    pub(super) fn owner(&self, owner: &ExecutionId) -> PathBuf {
        self.file("owners", owner, ".json")
    }

    pub(super) fn registry(&self, id: &RegistryId) -> PathBuf {
        self.root.join("workflows/registries").join(format!("{id}.json"))
    }

    pub(super) fn marker(&self) -> PathBuf {
        self.root.join("store.json")
    }

    /// All locks of trees, in the order in which they are to be taken by who needs more than one.
    pub(super) fn all_locks(&self) -> impl Iterator<Item = PathBuf> {
        (0..LOCKS).map(|number| self.numbered_lock(number))
    }

    fn numbered_lock(&self, number: u64) -> PathBuf {
        self.root.join("locks").join(format!("{number:02x}.lock"))
    }

    pub(super) fn lock(&self, id: &ExecutionId) -> PathBuf {
        self.lock_of_stem(&self.stem(id))
    }

    /// The lock of the tree whose files' names begin with `stem`. Every process must come to the same one.
    pub(super) fn lock_of_stem(&self, stem: &str) -> PathBuf {
        // FNV-1a, for it is fixed: std's hashers differ from process to process.
        let hash = stem.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        self.numbered_lock(hash % LOCKS)
    }

    pub(super) fn registries_lock(&self) -> PathBuf {
        self.root.join("locks/registries.lock")
    }

    fn file(&self, folder: &str, id: &ExecutionId, suffix: &str) -> PathBuf {
        self.root.join(folder).join(format!("{}{suffix}", self.stem(id)))
    }

    /// What the names of an execution's files begin with: its id, unless the file system would confuse it with another.
    pub(super) fn stem(&self, id: &ExecutionId) -> String {
        stem(id.as_str(), self.case_sensitive, cfg!(windows))
    }
}

/// `~` is in no id. `order~1` is `Order`: lower case, and a hexadecimal mask of the capitals, first letter lowest;
/// `~con` is `con`.
fn stem(id: &str, case_sensitive: bool, windows: bool) -> String {
    let mut stem = id.to_owned();
    if !case_sensitive && id.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let capitals = id.bytes().enumerate().filter(|(_, byte)| byte.is_ascii_uppercase());
        let mask = capitals.fold(0_u128, |mask, (i, _)| mask | 1 << i);
        stem = format!("{}~{mask:x}", id.to_ascii_lowercase());
    }
    if windows && is_device(id) {
        format!("~{stem}")
    } else {
        stem
    }
}

/// What the name of a file begins with that ends in `suffix`.
pub(super) fn stem_of<'a>(name: &'a OsStr, suffix: &str) -> Option<&'a str> {
    name.to_str()?.strip_suffix(suffix)
}

/// The id whose files begin with `stem`; `None` if no id's do.
pub(super) fn id_of_stem(stem: &str) -> Option<ExecutionId> {
    let stem = stem.strip_prefix('~').unwrap_or(stem);
    let Some((lower, mask)) = stem.split_once('~') else {
        return ExecutionId::new(stem).ok();
    };
    let mask = u128::from_str_radix(mask, 16).ok()?;
    let restore = |(i, c): (usize, char)| {
        if mask >> i & 1 == 1 { c.to_ascii_uppercase() } else { c }
    };
    let within = lower.len() <= 128;
    within
        .then(|| lower.chars().enumerate().map(restore).collect::<String>())
        .and_then(|id| ExecutionId::new(id).ok())
}

/// Windows opens a device under these names, whatever their extension.
fn is_device(id: &str) -> bool {
    let name = id.split('.').next().unwrap_or(id).to_ascii_lowercase();
    let numbered = |prefix| {
        name.strip_prefix(prefix)
            .is_some_and(|n: &str| n.len() == 1 && n != "0")
    };
    matches!(name.as_str(), "con" | "prn" | "aux" | "nul") || numbered("com") || numbered("lpt")
}

/// The name of the temporary file that becomes `target`. Writers hold the lock of the target, so one name is enough, and a
/// crashed writer's file is overwritten by the next.
pub(super) fn temporary(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.tmp"))
}

/// The stem of the file that the temporary file `name` was to become; `None` if it isn't the name of one.
pub(super) fn stem_of_temporary(name: &str) -> Option<&str> {
    let target = name.strip_prefix('.')?.strip_suffix(".tmp")?;
    [
        "_workflows.json",
        "_current.txt",
        ".jsonl",
        ".json",
        ".yaml",
        JOURNAL,
        ".head",
    ]
    .iter()
    .find_map(|suffix| target.strip_suffix(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_a_file_system_confuses_get_different_names() {
        assert_eq!(stem("Order-1", true, false), "Order-1");
        assert_eq!(stem("Order-1", false, false), "order-1~1");
        assert_eq!(stem("oRDEr-1", false, false), "order-1~e");
        assert_eq!(stem("con.1", true, true), "~con.1");
        assert_eq!(stem("NUL", false, true), "~nul~7");
        assert_eq!(stem("com0", true, true), "com0");
        assert_eq!(stem("context", true, true), "context");
    }

    #[test]
    fn names_are_read_back() {
        let long = "Z".repeat(128);
        for id in ["a", "Order-1", "con", "NUL.x", "LPT1", long.as_str()] {
            for (case_sensitive, windows) in [(true, true), (true, false), (false, true), (false, false)] {
                let stem = stem(id, case_sensitive, windows);
                assert_eq!(id_of_stem(&stem).unwrap().as_str(), id, "{stem}");
            }
        }
        assert_eq!(id_of_stem(".hidden"), None);
        assert_eq!(id_of_stem("a~xyz"), None);
    }

    #[test]
    fn a_temporary_file_tells_whose_it_is() {
        let temporary = temporary(Path::new("contexts/a.b.json"));
        assert_eq!(temporary, Path::new("contexts/.a.b.json.tmp"));
        assert_eq!(stem_of_temporary(".a.b.json.tmp"), Some("a.b"));
        assert_eq!(stem_of_temporary(".a_workflows.json.tmp"), Some("a"));
        assert_eq!(stem_of_temporary("a.json"), None);
    }
}
