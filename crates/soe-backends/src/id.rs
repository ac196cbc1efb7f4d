//! The names of executions, of their runs and of registries: texts that cannot escape a directory, a table or a key space.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The name of an execution: 1 to 160 characters out of `a-z`, `A-Z`, `0-9`, `-`, `_` and `.`, not starting with `.`.
///
/// Ids come from outside, so they are checked where they enter; every store can use one as a file name or a key as it is.
/// Two ids that differ in case only are the same on some file systems: generated ids are lower-case.
///
/// ```
/// use soe_backends::ExecutionId;
///
/// assert!(ExecutionId::new("order-4711").is_ok());
/// assert!(ExecutionId::new("../../etc/passwd").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExecutionId(Arc<str>);

/// The most characters that an execution id may have.
const MAX_LENGTH: usize = 160;

/// Names of children that would have more characters are shortened.
const MAX_PLAIN: usize = 100;

/// What the name of a child is the name of: without the two numbers at its end. (Children were also named by digests once.)
fn without_place(id: &str) -> Option<&str> {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let (before, last) = id.rsplit_once('.')?;
    if last.len() == 32 && last.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Some(before);
    }
    let (above, run) = before.rsplit_once('.')?;
    (number(last) && number(run) && !above.is_empty()).then_some(above)
}

impl ExecutionId {
    /// Checks `id`.
    ///
    /// # Errors
    /// [`InvalidExecutionId`] if it is empty, too long, or has a character that an id can't have.
    pub fn new(id: impl AsRef<str>) -> Result<Self, InvalidExecutionId> {
        let id = id.as_ref();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let reason = if id.is_empty() {
            "it is empty"
        } else if id.len() > MAX_LENGTH {
            "it has more than 160 characters"
        } else if id.starts_with('.') {
            "it starts with a dot"
        } else if !id.chars().all(allowed) {
            "only letters, digits, '-', '_' and '.' are allowed"
        } else {
            return Ok(Self(id.into()));
        };
        let shown = id.chars().take(MAX_LENGTH).collect();
        Err(InvalidExecutionId { id: shown, reason })
    }

    /// The name of a child: the parent's, the number of the run that starts it, and its place among the children of that run.
    /// Where that would be too long, the root's name, 0, and the child's `number` in the tree.
    ///
    /// ```
    /// use soe_backends::ExecutionId;
    ///
    /// let root = ExecutionId::new("order-4711").unwrap();
    /// assert_eq!(root.child(&root, 3, 0, 1).as_str(), "order-4711.3.0");
    /// ```
    #[must_use]
    pub fn child(&self, root: &ExecutionId, run: u64, place: u64, number: u64) -> Self {
        let plain = format!("{self}.{run}.{place}");
        match plain.len() <= MAX_PLAIN {
            true => Self(plain.into()),
            false => root.by_number(number),
        }
    }

    /// The short name of an execution of this root's tree, by its number.
    #[must_use]
    pub fn by_number(&self, number: u64) -> Self {
        Self(format!("{self}.0.{number}").into())
    }

    /// The root of the tree to which an execution of this name belongs: children are named after their root.
    ///
    /// ```
    /// use soe_backends::ExecutionId;
    ///
    /// let child = ExecutionId::new("order-4711.3.0").unwrap();
    /// assert_eq!(child.root().as_str(), "order-4711");
    /// assert!(!child.is_root());
    /// ```
    #[must_use]
    pub fn root(&self) -> Self {
        let mut rest = self.as_str();
        while let Some(above) = without_place(rest) {
            rest = above;
        }
        match rest.len() == self.0.len() {
            true => self.clone(),
            false => Self(rest.into()),
        }
    }

    /// Whether this is the name of a root: whether it doesn't end like a child's.
    pub fn is_root(&self) -> bool {
        without_place(self.as_str()).is_none()
    }

    /// The path of a child below its root: what comes behind the root's name and a dot.
    pub fn path_below(&self, root: &ExecutionId) -> Option<&str> {
        self.as_str().strip_prefix(root.as_str())?.strip_prefix('.')
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as shared text.
    pub fn as_shared(&self) -> &Arc<str> {
        &self.0
    }
}

impl fmt::Display for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl AsRef<str> for ExecutionId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for ExecutionId {
    type Err = InvalidExecutionId;

    fn from_str(id: &str) -> Result<Self, Self::Err> {
        Self::new(id)
    }
}

impl TryFrom<String> for ExecutionId {
    type Error = InvalidExecutionId;

    fn try_from(id: String) -> Result<Self, Self::Error> {
        Self::new(id)
    }
}

impl From<ExecutionId> for String {
    fn from(id: ExecutionId) -> Self {
        id.0.as_ref().to_owned()
    }
}

/// A text that can't be an execution id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{id}' can't be an execution id: {reason}")]
pub struct InvalidExecutionId {
    id: String,
    reason: &'static str,
}

/// The name of one run of a node: the execution and a number that counts its runs, as text `order-4711:17`.
///
/// It stays the same over retries, crashes and resumption, so it serves as an idempotency key.
///
/// ```
/// use soe_backends::RunId;
///
/// let run: RunId = "order-4711:17".parse().unwrap();
/// assert_eq!((run.execution.as_str(), run.number), ("order-4711", 17));
/// assert_eq!(run.to_string(), "order-4711:17");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId {
    /// The execution to which the run belongs.
    pub execution: ExecutionId,
    /// Which of its runs it is.
    pub number: u64,
}

impl RunId {
    /// The id of run `number` of `execution`.
    pub fn new(execution: ExecutionId, number: u64) -> Self {
        Self { execution, number }
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.execution, self.number)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RunId {
    type Err = InvalidRunId;

    fn from_str(id: &str) -> Result<Self, Self::Err> {
        let (execution, digits) = id.split_once(':').ok_or(InvalidRunId::NoNumber)?;
        let execution = ExecutionId::new(execution)?;
        // One spelling for each number, so that equal ids are equal texts.
        let canonical = digits.bytes().all(|c| c.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
        match digits.parse() {
            Ok(number) if canonical => Ok(Self { execution, number }),
            _ => Err(InvalidRunId::NoNumber),
        }
    }
}

impl TryFrom<String> for RunId {
    type Error = InvalidRunId;

    fn try_from(id: String) -> Result<Self, Self::Error> {
        id.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> Self {
        id.to_string()
    }
}

/// A text that can't be a run id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRunId {
    /// What is before the colon is no execution id.
    #[error("a run id begins with an execution id")]
    Execution(#[from] InvalidExecutionId),
    /// There is no colon with a number after it.
    #[error("a run id ends with a colon and a number, written without sign and leading zeros")]
    NoNumber,
}

/// The name of a workflow registry: the SHA-256 of its document, in lower-case hexadecimal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RegistryId(Arc<str>);

impl RegistryId {
    /// The id of a document with this SHA-256 digest.
    pub fn from_digest(digest: [u8; 32]) -> Self {
        use fmt::Write as _;
        let mut hex = String::with_capacity(64);
        for byte in digest {
            let _ = write!(hex, "{byte:02x}");
        }
        Self(hex.into())
    }

    /// The id as text: 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RegistryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RegistryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for RegistryId {
    type Error = InvalidRegistryId;

    fn try_from(id: String) -> Result<Self, Self::Error> {
        let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if id.len() == 64 && id.bytes().all(hex) {
            Ok(Self(id.into()))
        } else {
            Err(InvalidRegistryId)
        }
    }
}

impl From<RegistryId> for String {
    fn from(id: RegistryId) -> Self {
        id.0.as_ref().to_owned()
    }
}

/// A text that can't be a registry id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a registry id has 64 lower-case hexadecimal digits")]
pub struct InvalidRegistryId;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_id_survives_its_text() {
        let id = RunId::new(ExecutionId::new("a.b-c_1").unwrap(), u64::MAX);
        assert_eq!(id.to_string().parse(), Ok(id.clone()));
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, r#""a.b-c_1:18446744073709551615""#);
        assert_eq!(serde_json::from_str::<RunId>(&json).unwrap(), id);
    }

    #[test]
    fn run_ids_are_ordered_by_number_within_an_execution() {
        let ids = ["a:2", "a:10", "b:1"].map(|id| id.parse::<RunId>().unwrap());
        assert!(ids.is_sorted());
    }

    #[test]
    fn other_texts_are_no_run_ids() {
        for text in [
            "",
            "a",
            "a:",
            ":1",
            "a:-1",
            "a:+1",
            "a:01",
            "a:1:2",
            "a:1 ",
            "a:18446744073709551616",
            "../a:1",
        ] {
            assert!(text.parse::<RunId>().is_err(), "{text}");
        }
        assert!("a:0".parse::<RunId>().is_ok());
    }
}
