//! The examples with LLMs: their programs with the mock and with an endpoint, and their workflows with other replies.

mod chain;
mod endpoint;
mod extraction;
mod file_agent;
mod react;
mod revision;
mod voting;

use std::sync::Arc;

use serde_json::Value as Json;
use soe_backends::{Context, ExecutionId};
use soe_core::config::Config;
use soe_core::runtime::{Engine, EngineBuilder, EngineError, Orchestration};

/// What an execution left.
struct Done {
    engine: Engine,
    id: ExecutionId,
    result: Result<(), EngineError>,
    context: Arc<Context>,
}

/// Runs the first workflow of a file with START and these context fields.
async fn run(builder: EngineBuilder, workflow: &str, fields: Json) -> Done {
    let engine = builder.build().unwrap();
    let config = Config::from_yaml(workflow).unwrap();
    assert!(config.warnings().is_empty(), "{:?}", config.warnings());
    let name = config.registry().workflows.keys().next().unwrap().clone();
    let Json::Object(fields) = fields else {
        panic!("{fields}")
    };
    let start = Orchestration::new(config, name).signal("START").context(fields);
    let execution = engine.start(start).await.unwrap();
    let result = execution.wait().await.map(|_| ());
    let context = execution.context().await.unwrap();
    Done {
        id: execution.id().clone(),
        engine,
        result,
        context,
    }
}

impl Done {
    fn signals(&self) -> String {
        soe_examples::signals(&self.context)
    }

    fn value(&self, field: &str) -> Json {
        self.context.value(field).map_or(Json::Null, |value| value.to_json())
    }

    fn runs(&self, node: &str) -> u64 {
        self.context.operational.nodes.get(node).copied().unwrap_or(0)
    }

    /// `[llm_calls, tool_calls, errors]`
    fn counts(&self) -> [u64; 3] {
        let counts = &self.context.operational;
        [counts.llm_calls, counts.tool_calls, counts.errors]
    }

    /// How often a signal was broadcast.
    fn times(&self, signal: &str) -> usize {
        let signals = self.context.operational.signals.iter();
        signals.filter(|sent| sent.as_ref() == signal).count()
    }
}

/// The printed text has this line.
#[track_caller]
fn has_line(printed: &str, line: &str) {
    assert!(
        printed.lines().any(|printed| printed == line),
        "no line '{line}' in\n{printed}"
    );
}

/// The program said first that nothing real was asked.
#[track_caller]
fn is_mocked(printed: &str) {
    assert!(printed.starts_with("LLM: mocked"), "{printed}");
}
