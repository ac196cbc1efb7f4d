//! What the comments of a workflow say about how it is run, and what has to come of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::{Map, Value};
use soe_backends::Limits;
use soe_core::testing::MockLlm;
use soe_core::tools::{ToolContext, ToolDefinition, ToolError, raw_tool};

/// The comments of a block, read.
pub(crate) struct Script {
    pub(crate) context: Map<String, Value>,
    pub(crate) limits: Option<Limits>,
    pub(crate) llm: MockLlm,
    pub(crate) tools: Vec<ScriptedTool>,
    /// Batches that are sent from outside, each when the execution rests.
    pub(crate) then: Vec<Vec<String>>,
    /// What is broadcast altogether.
    pub(crate) signals: Option<String>,
    /// Values that fields have at the end.
    pub(crate) fields: Map<String, Value>,
    /// What the error says with which the execution fails.
    pub(crate) fails: Option<String>,
    /// What the policy's reason says for which a call is denied.
    pub(crate) denied: Option<String>,
}

/// A tool that does what a comment says, instead of returning its arguments.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScriptedTool {
    pub(crate) name: String,
    /// Its results, call by call; the last one counts for all further calls. One of the form `{"error": TEXT}` is a failure.
    #[serde(default)]
    answers: VecDeque<Value>,
    /// Signals that its calls send to their own execution before they answer, one a call.
    #[serde(default)]
    sends: VecDeque<String>,
    failure_signal: Option<String>,
    #[serde(default)]
    process_accumulated: bool,
}

impl Script {
    pub(crate) fn of(text: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let tools = comments(text, "tool")
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        let batch = |signals: &str| signals.split(", ").map(str::to_owned).collect();
        Ok(Self {
            context: json(text, "context")?.unwrap_or_default(),
            limits: json(text, "limits")?,
            llm: llm(text)?,
            tools,
            then: comments(text, "then").map(batch).collect(),
            signals: comments(text, "signals").next().map(str::to_owned),
            fields: json(text, "fields")?.unwrap_or_default(),
            fails: comments(text, "fails").next().map(str::to_owned),
            denied: comments(text, "denied").next().map(str::to_owned),
        })
    }

    /// Whether something is meant to go wrong: a script may have replies that are refused, and tools that fail.
    pub(crate) fn has_failures(&self) -> bool {
        let fails = |tool: &ScriptedTool| tool.answers.iter().any(|answer| failure(answer).is_some());
        self.fails.is_some() || self.denied.is_some() || self.llm.calls() > 0 || self.tools.iter().any(fails)
    }
}

impl ScriptedTool {
    /// A tool that returns its arguments.
    pub(crate) fn echo(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            answers: VecDeque::new(),
            sends: VecDeque::new(),
            failure_signal: None,
            process_accumulated: false,
        }
    }

    pub(crate) fn definition(&self) -> ToolDefinition {
        let script = Arc::new(Mutex::new((self.answers.clone(), self.sends.clone())));
        let call = move |arguments: Value, context: ToolContext| {
            let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
            let (answers, sends) = &mut *script;
            let answer = match answers.len() {
                0 => arguments,
                1 => answers[0].clone(),
                _ => answers.pop_front().unwrap_or_default(),
            };
            let signal = sends.pop_front();
            async move {
                if let Some(signal) = signal {
                    context.signal(context.execution_id(), [signal])?;
                }
                match failure(&answer) {
                    Some(error) => Err(ToolError::new(error.to_owned())),
                    None => Ok(answer),
                }
            }
        };
        let tool = raw_tool(self.name.as_str(), "Does what the script says.", call);
        let tool = match &self.failure_signal {
            Some(signal) => tool.failure_signal(signal.as_str()),
            None => tool,
        };
        match self.process_accumulated {
            true => tool.process_accumulated(),
            false => tool,
        }
    }
}

fn failure(answer: &Value) -> Option<&str> {
    answer
        .as_object()
        .filter(|answer| answer.len() == 1)?
        .get("error")?
        .as_str()
}

/// What all comments `# NAME: ...` say.
fn comments<'t>(text: &'t str, name: &str) -> impl Iterator<Item = &'t str> {
    let prefix = format!("# {name}: ");
    text.lines()
        .filter_map(move |line| line.strip_prefix(&prefix))
        .map(str::trim_end)
}

fn json<T: serde::de::DeserializeOwned>(text: &str, name: &str) -> Result<Option<T>, serde_json::Error> {
    comments(text, name).next().map(serde_json::from_str).transpose()
}

/// The LLM that the comments script; without a script, none of its requests is answered.
fn llm(text: &str) -> Result<MockLlm, Box<dyn std::error::Error>> {
    let rules: Vec<&str> = comments(text, "reply").collect();
    match rules.is_empty() {
        true => Ok(MockLlm::new()),
        false => Ok(MockLlm::from_yaml(&rules.join("\n"))?),
    }
}
