//! What these tests have in common.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use soe_backends::{Context, Event, ExecutionId};
use soe_core::config::Config;
use soe_core::runtime::{Engine, EngineBuilder, EngineError, EngineErrorKind, Orchestration};
use soe_core::testing::{MockLlm, RecordedRequest};
use soe_core::tools::{ToolContext, ToolDefinition, ToolError, raw_tool};

/// The workflow `flow` of `yaml`, started with START.
pub(crate) fn start(yaml: &str) -> Orchestration {
    let config = Config::from_yaml(yaml).unwrap_or_else(|error| panic!("{error}"));
    Orchestration::new(config, "flow").signal("START")
}

/// One llm node `N` on START, with more configuration.
pub(crate) fn llm_node(more: &str) -> Orchestration {
    start(&format!(
        "flow: {{N: {{node_type: llm, event_triggers: [START]{more}}}}}"
    ))
}

/// One agent `N` on START that gives `answer` and emits DONE, with more configuration.
pub(crate) fn agent(more: &str) -> Orchestration {
    start(&format!(
        "flow: {{N: {{node_type: agent, event_triggers: [START], prompt: 'do {{{{ context.task }}}}', output_field: answer, \
         event_emissions: [{{signal_name: DONE}}]{more}}}}}"
    ))
    .field("task", "it")
}

/// Tools: `echo` returns its argument `text`, `fail` fails.
pub(crate) fn tools() -> [ToolDefinition; 2] {
    let echo = |arguments: Json, _: ToolContext| async move { Ok(arguments["text"].clone()) };
    let fail = |_: Json, _: ToolContext| async { Err::<Json, _>(ToolError::new("it broke")) };
    let text = json!({"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]});
    [
        raw_tool("echo", "Says it again.", echo).schema(text),
        raw_tool("fail", "Fails.", fail).schema(json!({"type": "object", "properties": {}})),
    ]
}

pub(crate) fn builder(llm: &MockLlm) -> EngineBuilder {
    let builder = Engine::builder().llm(llm.clone());
    tools().into_iter().fold(builder, EngineBuilder::tool)
}

/// A finished execution, and what it left.
pub(crate) struct Done {
    pub(crate) engine: Engine,
    pub(crate) id: ExecutionId,
    pub(crate) result: Result<(), EngineError>,
    pub(crate) context: Arc<Context>,
    pub(crate) events: Vec<Event>,
}

pub(crate) async fn run(engine: Engine, orchestration: Orchestration) -> Done {
    let execution = engine.start(orchestration).await.unwrap();
    let result = execution.wait().await.map(|_| ());
    let id = execution.id().clone();
    let context = engine.context(&id).await.unwrap();
    let events = engine.telemetry(&id, 0, 10_000).await.unwrap();
    Done {
        engine,
        id,
        result,
        context,
        events,
    }
}

/// Runs on a new engine with this LLM and the two tools.
pub(crate) async fn run_with(llm: &MockLlm, orchestration: Orchestration) -> Done {
    run(builder(llm).build().unwrap(), orchestration).await
}

impl Done {
    /// The signals, apart by spaces.
    pub(crate) fn signals(&self) -> String {
        let signals: Vec<&str> = self.context.operational.signals.iter().map(AsRef::as_ref).collect();
        signals.join(" ")
    }

    pub(crate) fn value(&self, field: &str) -> Json {
        self.context
            .value(field)
            .map_or(Json::Null, soe_backends::Value::to_json)
    }

    /// `[llm_calls, tool_calls, errors, tokens]`
    pub(crate) fn counters(&self) -> [u64; 4] {
        let operational = &self.context.operational;
        [
            operational.llm_calls,
            operational.tool_calls,
            operational.errors,
            operational.tokens,
        ]
    }

    /// The text of the failure.
    pub(crate) fn failure(&self) -> String {
        match self.result.as_ref().unwrap_err().kind() {
            EngineErrorKind::Failed(failure) => failure.to_string(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn named(&self, event: &str) -> Vec<Json> {
        let events = self.events.iter().filter(|e| e.kind.name() == event);
        events
            .map(|event| serde_json::to_value(event).unwrap()["data"].clone())
            .collect()
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        let warnings = self.named("context_warning");
        warnings
            .iter()
            .map(|data| data["message"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// The JSON object at the head of a request.
pub(crate) fn asked(request: &RecordedRequest) -> Json {
    let mut stream = serde_json::Deserializer::from_str(&request.text).into_iter();
    stream.next().unwrap().unwrap()
}
