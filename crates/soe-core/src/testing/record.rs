//! Writing the conversation with an LLM to a file.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde::Serialize;
use tokio::time::Instant;

use super::recording::{Header, SELECTED_CONFIG};
use super::{Exchange, RecordedError, RecordingError, lock};
use crate::llm::{Capabilities, LlmCaller, LlmError, LlmReply, LlmRequest};

/// An LLM that passes requests on to another, and writes what comes of them to a file, for a [`Player`](super::Player).
///
/// Each exchange is a line that is written at once when its call has ended, so the lines are in the order of completion;
/// `number` has the order in which the calls began. A call that is given up leaves no line. The file is written to without
/// leaving the thread: a line is small, and this is for tests.
///
/// A request has no API key and no headers, so none gets into the file. What is in prompts, context and replies does; and of
/// the node's configuration, the selected fields only ([`SELECTED_CONFIG`]).
///
/// ```no_run
/// use soe_core::llm::llm_fn;
/// use soe_core::testing::Recorder;
///
/// # async fn ask(prompt: String) -> Result<String, soe_core::llm::LlmError> { Ok(prompt) }
/// let real = llm_fn(|prompt, _config| ask(prompt));
/// let llm = Recorder::create("tests/recordings/review.jsonl", real)?;
/// # Ok::<(), soe_core::testing::RecordingError>(())
/// ```
#[derive(Clone)]
pub struct Recorder {
    caller: Arc<dyn LlmCaller>,
    recording: Arc<Recording>,
}

struct Recording {
    path: PathBuf,
    config_fields: Vec<String>,
    begun: AtomicU64,
    /// None once a write has failed: the line may be there in part.
    file: Mutex<Option<File>>,
}

impl Recorder {
    /// Records the conversation with `caller` in a file, which replaces the one that is there.
    ///
    /// # Errors
    /// The file can't be created.
    pub fn create(path: impl AsRef<Path>, caller: impl LlmCaller) -> Result<Self, RecordingError> {
        Self::create_with_config(path, caller, SELECTED_CONFIG.iter().copied())
    }

    /// The same, with these fields of the nodes' configuration instead of [`SELECTED_CONFIG`]. A player compares the same
    /// fields.
    ///
    /// # Errors
    /// The file can't be created.
    pub fn create_with_config<S: Into<String>>(
        path: impl AsRef<Path>,
        caller: impl LlmCaller,
        config_fields: impl IntoIterator<Item = S>,
    ) -> Result<Self, RecordingError> {
        let path = path.as_ref().to_owned();
        let file = File::create(&path).map_err(|source| RecordingError::Write {
            path: path.clone(),
            source,
        })?;
        let config_fields: Vec<String> = config_fields.into_iter().map(Into::into).collect();
        let header = Header::new(caller.capabilities(), config_fields.clone());
        let recording = Recording {
            path,
            config_fields,
            begun: AtomicU64::new(0),
            file: Mutex::new(Some(file)),
        };
        recording.write(&header)?;
        Ok(Self {
            caller: Arc::new(caller),
            recording: Arc::new(recording),
        })
    }
}

impl Recording {
    fn write(&self, line: &impl Serialize) -> Result<(), RecordingError> {
        let path = || self.path.clone();
        let failed = |source| RecordingError::Write { path: path(), source };
        let mut text = serde_json::to_string(line).map_err(|error| failed(error.into()))?;
        text.push('\n');
        let mut open = lock(&self.file);
        let Some(mut file) = open.take() else {
            return Err(RecordingError::Broken { path: path() });
        };
        file.write_all(text.as_bytes()).map_err(failed)?;
        *open = Some(file);
        Ok(())
    }
}

#[async_trait]
impl LlmCaller for Recorder {
    /// # Errors
    /// Those of the caller; or the exchange could not be written, then the reply is lost.
    async fn call(&self, request: LlmRequest) -> Result<LlmReply, LlmError> {
        let mut exchange = Exchange::of(&request, &self.recording.config_fields);
        exchange.number = self.recording.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let began = Instant::now();
        let result = self.caller.call(request).await;
        exchange.elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match &result {
            Ok(reply) => exchange.reply = Some(reply.clone()),
            Err(error) => exchange.error = Some(RecordedError::of(error)),
        }
        self.recording.write(&exchange)?;
        result
    }

    fn capabilities(&self) -> Capabilities {
        self.caller.capabilities()
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("path", &self.recording.path)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_failed_write_nothing_more_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("talk.jsonl");
        std::fs::write(&path, "").unwrap();
        let recording = Recording {
            path: path.clone(),
            config_fields: Vec::new(),
            begun: AtomicU64::new(0),
            // Opened for reading only.
            file: Mutex::new(Some(File::open(&path).unwrap())),
        };
        let error = recording.write(&1).unwrap_err();
        assert!(matches!(error, RecordingError::Write { .. }), "{error:?}");
        assert!(error.to_string().contains("talk.jsonl"), "{error}");
        let error = recording.write(&2).unwrap_err();
        assert!(matches!(error, RecordingError::Broken { .. }), "{error:?}");
    }
}
