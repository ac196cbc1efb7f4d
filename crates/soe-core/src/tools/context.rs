//! What a tool gets besides its arguments.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use soe_backends::{ExecutionId, Map, RunId};
use tokio_util::sync::CancellationToken;

/// What a tool's call knows about the run that it belongs to, and what it can do besides returning. Cheap to clone.
///
/// ```
/// use soe_core::tools::ToolContext;
///
/// let context = ToolContext::for_tests().run("order-4711", 17).attempt(2).build();
/// assert_eq!(context.execution_id().as_str(), "order-4711");
/// assert_eq!(context.idempotency_key(), "order-4711:17");
/// assert_eq!(context.attempt(), 2);
/// ```
#[derive(Clone)]
pub struct ToolContext(Arc<Call>);

struct Call {
    info: CallInfo,
    run: Arc<RunScope>,
    /// The call's own token under the run's. Most tools never ask for it, and making it takes a lock that all calls share.
    cancellation: OnceLock<CancellationToken>,
}

/// What the calls of an execution have in common.
pub(crate) struct RunScope {
    pub(crate) cancellation: CancellationToken,
    pub(crate) signals: Arc<dyn SignalSink>,
}

/// Which call it is: what stays the same over all clones of a context.
#[derive(Clone, Debug)]
pub(crate) struct CallInfo {
    /// The node's run.
    pub(crate) run: RunId,
    /// Which call of the run it is, where a run makes several.
    pub(crate) index: Option<u32>,
    /// Counted from 1.
    pub(crate) attempt: u32,
    pub(crate) node_name: Arc<str>,
    pub(crate) node_config: Arc<Map>,
}

/// Takes the signals that tools send, without waiting. The engine has one with a bounded queue behind it.
pub(crate) trait SignalSink: Send + Sync {
    /// Passes the batch on, on behalf of `from`; an answer of `Ok` means that it is queued, not that it has arrived.
    fn send(&self, from: &RunId, execution: &ExecutionId, signals: Vec<Arc<str>>) -> Result<(), SignalError>;
}

impl ToolContext {
    pub(crate) fn new(info: CallInfo, run: Arc<RunScope>) -> Self {
        Self(Arc::new(Call {
            info,
            run,
            cancellation: OnceLock::new(),
        }))
    }

    /// A context for testing a tool on its own; see [`TestContext`].
    pub fn for_tests() -> TestContext {
        TestContext::default()
    }

    /// The execution on whose behalf the tool is called.
    pub fn execution_id(&self) -> &ExecutionId {
        &self.0.info.run.execution
    }

    /// The node's run. It is the same in every attempt, and after a crash.
    pub fn run_id(&self) -> &RunId {
        &self.0.info.run
    }

    /// What identifies this call to the outside: the run id, and the call's index in it where there are several
    /// (`EXECUTION:17`, `EXECUTION:17.3`).
    ///
    /// A call may happen more than once: an attempt failed, or the process ended before the result was stored. Hand this
    /// key to a service that can tell repetitions by it, and the effect happens once.
    pub fn idempotency_key(&self) -> String {
        match self.0.info.index {
            None => self.0.info.run.to_string(),
            Some(index) => format!("{}.{index}", self.0.info.run),
        }
    }

    /// Which attempt this is, counted from 1.
    pub fn attempt(&self) -> u32 {
        self.0.info.attempt
    }

    /// The node that calls the tool.
    pub fn node_name(&self) -> &str {
        &self.0.info.node_name
    }

    /// The node's whole configuration, fields that the engine doesn't know included.
    pub fn node_config(&self) -> &Map {
        &self.0.info.node_config
    }

    /// Is cancelled when nobody waits for the result any more: the execution has failed or is cancelled, the attempt's
    /// time is up, or the engine shuts down. The engine drops the call's future then. Pass it on to tasks and threads that
    /// the tool has started, which would go on otherwise.
    pub fn cancellation(&self) -> &CancellationToken {
        self.0
            .cancellation
            .get_or_init(|| self.0.run.cancellation.child_token())
    }

    /// Sends `signals` as one batch to `execution`, without waiting for what comes of it. It may be the execution of this
    /// call, or the root of its tree.
    ///
    /// # Errors
    /// The batch is not queued: see [`SignalError`].
    pub fn signal<S: Into<Arc<str>>>(
        &self,
        execution: &ExecutionId,
        signals: impl IntoIterator<Item = S>,
    ) -> Result<(), SignalError> {
        let signals: Vec<Arc<str>> = signals.into_iter().map(Into::into).collect();
        if signals.is_empty() {
            return Err(SignalError::Empty);
        }
        self.0.run.signals.send(&self.0.info.run, execution, signals)
    }

    /// The first attempt of one call among several of the same run.
    pub(crate) fn for_call(&self, index: u32) -> Self {
        let info = CallInfo {
            index: Some(index),
            attempt: 1,
            ..self.0.info.clone()
        };
        Self::new(info, self.0.run.clone())
    }

    /// Another attempt of the same call.
    pub(crate) fn for_attempt(&self, attempt: u32) -> Self {
        let info = CallInfo {
            attempt,
            ..self.0.info.clone()
        };
        Self::new(info, self.0.run.clone())
    }

    /// Cancels what the call has started, when it is dropped.
    pub(super) fn abandon_on_drop(&self) -> Abandoned {
        Abandoned(Some(self.clone()))
    }

    pub(crate) fn shared_node_config(&self) -> &Arc<Map> {
        &self.0.info.node_config
    }
}

impl fmt::Debug for ToolContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolContext")
            .field("call", &self.0.info)
            .field("cancelled", &self.0.run.cancellation.is_cancelled())
            .finish_non_exhaustive()
    }
}

/// A call whose result nobody has taken yet.
pub(super) struct Abandoned(Option<ToolContext>);

impl Abandoned {
    /// The result was taken: what the call has started may go on.
    pub(super) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        if let Some(context) = &self.0 {
            context.cancellation().cancel();
        }
    }
}

/// Signals that were not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignalError {
    /// There was no signal in the batch.
    #[error("no signal was given")]
    Empty,
    /// The engine has more signals queued than it takes. Later it may take this batch.
    #[error("the engine's queue of signals is full")]
    Full,
    /// The engine has shut down.
    #[error("the engine takes no more signals")]
    Closed,
    /// It is neither the sender's own execution nor the root of its tree.
    #[error("signals to execution '{execution}' are refused: {reason}")]
    Refused {
        /// The execution that was to get them.
        execution: ExecutionId,
        /// Why it can't be reached.
        reason: String,
    },
}

/// Builds a [`ToolContext`] for testing a tool without an engine, and keeps the signals that the tool sends.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use serde_json::{Value, json};
/// use soe_backends::ExecutionId;
/// use soe_core::tools::{Tool, ToolContext, ToolError};
///
/// async fn approve(_: Value, context: ToolContext) -> Result<Value, ToolError> {
///     context.signal(context.execution_id(), ["APPROVED"])?;
///     Ok(json!("done"))
/// }
///
/// let test = ToolContext::for_tests().run("order-4711", 1);
/// assert_eq!(approve.call(json!({}), test.build()).await.unwrap(), "done");
///
/// let (execution, signals) = &test.sent()[0];
/// assert_eq!((execution.as_str(), signals[0].as_ref()), ("order-4711", "APPROVED"));
/// # }
/// ```
#[derive(Clone)]
pub struct TestContext {
    call: CallInfo,
    cancellation: CancellationToken,
    sink: Arc<RecordingSink>,
}

impl Default for TestContext {
    /// The first attempt of run `test:1`, of a node `test` without configuration.
    fn default() -> Self {
        let execution = ExecutionId::new("test").expect("the word has letters only");
        Self {
            call: CallInfo {
                run: RunId::new(execution, 1),
                index: None,
                attempt: 1,
                node_name: "test".into(),
                node_config: Arc::default(),
            },
            cancellation: CancellationToken::new(),
            sink: Arc::default(),
        }
    }
}

impl TestContext {
    /// The run that the call belongs to: number `number` of `execution`.
    ///
    /// # Panics
    /// If `execution` can't be an execution id.
    #[must_use]
    pub fn run(mut self, execution: &str, number: u64) -> Self {
        let execution = ExecutionId::new(execution).expect("a test gives an id that is valid");
        self.call.run = RunId::new(execution, number);
        self
    }

    /// The call's index in its run, as for a call by an agent.
    #[must_use]
    pub fn call_index(mut self, index: u32) -> Self {
        self.call.index = Some(index);
        self
    }

    /// Which attempt it is, counted from 1.
    #[must_use]
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.call.attempt = attempt;
        self
    }

    /// The calling node's name and configuration.
    #[must_use]
    pub fn node(mut self, name: &str, config: impl IntoIterator<Item = (Arc<str>, soe_backends::Value)>) -> Self {
        self.call.node_name = name.into();
        self.call.node_config = Arc::new(config.into_iter().collect());
        self
    }

    /// The token to cancel the call with.
    #[must_use]
    pub fn cancellation(mut self, token: CancellationToken) -> Self {
        self.cancellation = token;
        self
    }

    /// The context.
    pub fn build(&self) -> ToolContext {
        let run = RunScope {
            cancellation: self.cancellation.clone(),
            signals: self.sink.clone(),
        };
        ToolContext::new(self.call.clone(), Arc::new(run))
    }

    /// The batches sent through contexts that this builder has made, oldest first.
    pub fn sent(&self) -> Vec<(ExecutionId, Vec<Arc<str>>)> {
        // A panic elsewhere doesn't tear a list that is only pushed to.
        self.sink.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[derive(Default)]
struct RecordingSink(Mutex<Vec<(ExecutionId, Vec<Arc<str>>)>>);

impl SignalSink for RecordingSink {
    fn send(&self, _from: &RunId, execution: &ExecutionId, signals: Vec<Arc<str>>) -> Result<(), SignalError> {
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sent.push((execution.clone(), signals));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_idempotency_key_names_run_and_call_but_not_the_attempt() {
        let test = ToolContext::for_tests().run("x", 17);
        assert_eq!(test.build().idempotency_key(), "x:17");
        assert_eq!(test.clone().attempt(3).build().idempotency_key(), "x:17");
        let call = test.call_index(3).build();
        assert_eq!(call.idempotency_key(), "x:17.3");
        assert_eq!(call.for_call(4).idempotency_key(), "x:17.4");
    }

    #[test]
    fn signals_are_one_batch_and_an_empty_one_is_an_error() {
        let test = ToolContext::for_tests();
        let context = test.build();
        let other = ExecutionId::new("other").unwrap();
        context.signal(&other, ["A", "B"]).unwrap();
        assert_eq!(context.signal(&other, [""; 0]), Err(SignalError::Empty));
        assert_eq!(test.sent(), [(other, vec!["A".into(), "B".into()])]);
    }

    #[test]
    fn cancelling_a_run_cancels_its_calls_but_not_the_other_way_round() {
        let token = CancellationToken::new();
        let run = ToolContext::for_tests().cancellation(token.clone()).build();
        let [first, second] = [0, 1].map(|index| run.for_call(index));
        first.abandon_on_drop().disarm();
        assert!(!first.cancellation().is_cancelled());
        drop(first.abandon_on_drop());
        assert!(first.cancellation().is_cancelled());
        assert!(!token.is_cancelled() && !second.cancellation().is_cancelled());
        token.cancel();
        assert!(second.cancellation().is_cancelled());
    }

    #[test]
    fn the_node_is_at_hand() {
        let config = [("tool_name".into(), "t".into())];
        let context = ToolContext::for_tests().node("n", config).build();
        assert_eq!(context.node_name(), "n");
        assert_eq!(context.node_config()["tool_name"].as_str(), Some("t"));
    }
}
