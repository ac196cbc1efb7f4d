//! Requests to LLMs: what they need is read, the request is made, the reply is understood. Each is a task of its own.

use std::sync::Arc;

use async_trait::async_trait;
use soe_backends::{ExecutionId, RunId, TreeState, Turn};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::Instrument;

use super::{Performer, Task, contained, permits};
use crate::config::{AgentNode, FieldSchema, LlmNode, NodeKind};
use crate::llm::{Asked, Llm, LlmError, LlmErrorKind, LlmReply, LlmRequest, Materials, TokenSink};
use crate::machine::{LlmAnswer, LlmCall, Outcome};
use crate::nodes::input::LlmAsker;
use crate::runtime::EngineError;
use crate::runtime::shared::{Cause, Message, Shared};
use crate::runtime::tokens::Source;

/// The key of the one turn that the engine itself puts at the head of a history.
const SYSTEM_KEY: &str = "system";

type Answer = (Result<LlmAnswer, Arc<str>>, Option<Cause>);

impl Performer {
    /// Makes a run's request in a task of its own.
    pub(in crate::runtime) fn call_llm(self: &Arc<Self>, tree: &TreeState, call: LlmCall) {
        let task = self.task(tree, call.execution.clone());
        let (run, number) = (call.run.number, calls(&call));
        let span = task.span(run, &call.node.name, &call.node.type_name);
        task.spawn(span, async move |task| {
            let stage = call
                .run
                .progress
                .dialogue()
                .map(|dialogue| dialogue.question.stage.as_str());
            let span = tracing::info_span!("llm_call", call = number, stage);
            let (answer, cause) = contained(task.llm_answer(call).instrument(span))
                .await
                .unwrap_or_else(|panic| (Err(format!("the LLM caller panicked: {panic}").into()), None));
            task.answer(run, number, Outcome::Llm(answer), cause).await;
        });
    }
}

impl Task {
    async fn llm_answer(&self, call: LlmCall) -> Answer {
        let (NodeKind::Llm(node) | NodeKind::Agent(AgentNode { llm: node, .. })) = &call.node.kind else {
            return (Err("it is no node that asks an LLM".into()), None);
        };
        let shared = &self.performer.shared;
        let llm = match shared.llm(node.llm.as_deref()) {
            Ok(llm) => llm,
            Err(error) => return (Err(error.to_string().into()), None),
        };
        let (materials, warnings) = match self.materials(&call, node).await {
            Ok(materials) => materials,
            Err(error) => {
                let message = format!("what the request needs can't be read: {error}").into();
                return (Err(message), Some(error.into()));
            }
        };
        let asked = Asked::new(&self.execution.id, &call, llm.spec(), &shared.specs.tools, &materials);
        let Some(asked) = asked else {
            return (
                Err("the tool whose arguments are wanted is not registered with this engine".into()),
                None,
            );
        };
        let run = RunId::new(self.execution.id.clone(), call.run.number);
        let mut request = asked.request().clone();
        request.tokens = shared.token_sink(&run, &request, calls(&call));
        match shared.request(node.llm.as_deref(), llm, request, true).await {
            Ok(reply) => {
                let usage = reply.usage;
                let content = asked.understand(reply);
                let answer = LlmAnswer {
                    content,
                    usage,
                    warnings,
                };
                (Ok(answer), None)
            }
            Err(error) => {
                let message = format!("{error:#}").into();
                (Err(message), Some(error.into_error()))
            }
        }
    }

    /// What the tree shares, as far as this request needs it; and what the author should know of it.
    async fn materials(
        &self,
        call: &LlmCall,
        node: &LlmNode,
    ) -> Result<(Materials, Vec<Arc<str>>), soe_backends::BackendError> {
        let (backends, tree) = (&self.performer.shared.backends, &self.performer.tree);
        let (definitions, mut warnings) = (&call.definitions, Vec::new());
        let mut materials = Materials::default();
        if let Some(field) = &node.output_field {
            let schemas = &definitions.context_schema;
            match schemas.get(field) {
                Some(definition) => match FieldSchema::from_definition(field, definition) {
                    Ok(schema) => materials.schema = Some(schema),
                    Err(error) => warnings.push(format!("the schema of field '{field}' can't be used: {error}").into()),
                },
                None if !schemas.is_empty() && calls(call) <= 1 => {
                    warnings.push(format!("field '{field}' has no context schema, while others have one").into());
                }
                None => {}
            }
        }
        let Some(identity) = &call.identity else {
            return Ok((materials, warnings));
        };
        materials.system = definitions.identities.get(identity).cloned();
        if let Some(store) = backends.conversations() {
            materials.turns = store.turns(tree).await?;
            if let (true, Some(system)) = (materials.turns.is_empty(), &materials.system) {
                // Two runs may both find it empty: the key lets the first one in alone.
                let turn = Turn {
                    role: "system".into(),
                    content: system.clone(),
                    tool_name: None,
                    key: Some(SYSTEM_KEY.into()),
                };
                store.append_turns(tree, &[turn]).await?;
            }
        }
        Ok((materials, warnings))
    }
}

fn calls(call: &LlmCall) -> u32 {
    call.run.progress.dialogue().map_or(1, |dialogue| dialogue.calls)
}

impl Shared {
    /// The LLM of that name, or the default.
    fn llm(&self, name: Option<&str>) -> Result<&Llm, LlmError> {
        self.llms.get(name).ok_or_else(|| {
            let error = match name {
                Some(name) => LlmError::new(format!("LLM '{name}' is not registered with this engine")),
                None => LlmError::new("no default LLM is registered with this engine"),
            };
            error.of_kind(LlmErrorKind::Refused)
        })
    }

    /// Makes a request when all limits allow it; `as_task` says whether it takes a task's permit, too.
    async fn request(
        &self,
        name: Option<&str>,
        llm: &Llm,
        request: LlmRequest,
        as_task: bool,
    ) -> Result<LlmReply, LlmError> {
        let own = match name {
            Some(name) => self.permits.llms.get(name),
            None => self.permits.default_llm.as_ref(),
        };
        let tasks = self.permits.tasks.as_ref().filter(|_| as_task);
        let limits: Vec<Arc<Semaphore>> = [own, self.permits.llm_calls.as_ref(), tasks]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let _permits = match limits.is_empty() {
            true => None,
            false => Some(permits::all(limits).await),
        };
        llm.caller().call(request).await
    }

    fn token_sink(&self, run: &RunId, request: &LlmRequest, call: u32) -> TokenSink {
        self.tokens.sink(Source {
            run: run.clone(),
            node: request.node.clone(),
            call,
            stage: request.stage,
        })
    }
}

/// The engine's LLMs, as a custom node asks them: its requests are reserved, counted and limited as those of other nodes.
pub(super) struct EngineLlms {
    pub(super) shared: Arc<Shared>,
    pub(super) mailbox: mpsc::Sender<Box<Message>>,
    pub(super) execution: u64,
}

#[async_trait]
impl LlmAsker for EngineLlms {
    async fn ask(
        &self,
        name: Option<&str>,
        mut request: LlmRequest,
        run: &RunId,
        call: u32,
    ) -> Result<LlmReply, LlmError> {
        let llm = self.shared.llm(name)?;
        let execution = self.execution;
        self.counted(&run.execution, |reply| Message::Asked {
            execution,
            run: run.number,
            call,
            reply,
        })
        .await?;
        request.key = format!("{run}/{call}");
        request.tokens = self.shared.token_sink(run, &request, call);
        let span = tracing::info_span!("llm_call", call);
        // The node's own permit covers the call.
        let result = self.shared.request(name, llm, request, false).instrument(span).await;
        let usage = result.as_ref().ok().and_then(|reply| reply.usage);
        let number = run.number;
        let told = Message::Replied {
            execution,
            run: number,
            call,
            usage,
        };
        // A closed mailbox means that the coordinator has ended: nobody counts any more.
        let _ = self.mailbox.send(Box::new(told)).await;
        result
    }
}

impl EngineLlms {
    /// Waits until the request is counted in a stored commit.
    async fn counted(
        &self,
        execution: &ExecutionId,
        message: impl FnOnce(oneshot::Sender<Result<(), EngineError>>) -> Message,
    ) -> Result<(), LlmError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.mailbox.send(Box::new(message(reply))).await;
        let answer = match sent {
            Ok(()) => answer.await.ok(),
            Err(_) => None,
        };
        match answer {
            Some(result) => Ok(result?),
            None => Err(LlmError::new(format!("execution {execution} is not run any more"))),
        }
    }
}
