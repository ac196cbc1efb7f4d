//! Nodes that ask an LLM, as plain data.

use serde_json::{Value as Json, json};
use soe_core::llm::{LlmSpecs, Llms};
use soe_core::testing::MockLlm;

use super::flow::{Cond, Kept, Name, Node};

/// The name of the LLM that calls tools natively.
const NATIVE: &str = "native";

/// What an llm or agent node does.
#[derive(Clone, Debug)]
pub struct Llm {
    /// The field that the prompt counts; without one the prompt can't be rendered.
    pub prompt: Option<Name>,
    /// Where the output goes.
    pub output: Option<Name>,
    /// Whose conversation it keeps.
    pub identity: Identity,
    /// How many more replies it takes.
    pub retries: u32,
    /// What it emits when it has failed; without it the execution fails.
    pub failure_signal: Option<Name>,
    /// How the LLM behaves.
    pub answers: Answers,
    /// What the output is.
    pub gives: Kept,
    /// What an agent has besides.
    pub agent: Option<Agent>,
}

/// What an agent has besides.
#[derive(Clone, Debug)]
pub struct Agent {
    /// The tools that it may call, registered or not.
    pub tools: Vec<Name>,
    /// How many decisions it may take.
    pub max_turns: u32,
    /// Whether its LLM calls tools natively.
    pub native: bool,
}

/// A node's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// It has none.
    None,
    /// A name.
    Named,
    /// A template that gives spaces only.
    Blank,
    /// A template that can't be rendered.
    Broken,
}

/// How an LLM behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// It gives an output within few requests; with [`PATIENCE`] retries and turns the node can't fail.
    Calm,
    /// Anything, errors included.
    Wild,
}

/// The retries and turns with which a calm LLM never fails its node.
pub const PATIENCE: u32 = 50;

/// The LLMs that nodes ask.
pub(super) fn specs() -> LlmSpecs {
    let mut llms = Llms::new();
    llms.set_default(MockLlm::new());
    let registered = llms.register(NATIVE, MockLlm::new().with_native_tools()).is_ok();
    debug_assert!(registered, "the name is neither blank nor taken");
    llms.specs()
}

impl Llm {
    /// Puts the node's own settings into its configuration.
    pub(super) fn configure(&self, config: &mut Json) {
        config["node_type"] = "llm".into();
        config["prompt"] = match &self.prompt {
            Some(field) => format!(
                "{{{{ context.{field} | history | length }}}} of {{{{ context.__operational__.signals | length }}}}, \
                 {{{{ context.__operational__.llm_calls }}}} asked"
            )
            .into(),
            None => BROKEN.into(),
        };
        config["retries"] = self.retries.into();
        if let Some(field) = &self.output {
            config["output_field"] = field.as_ref().into();
        }
        if let Some(signal) = &self.failure_signal {
            config["llm_failure_signal"] = signal.as_ref().into();
        }
        match self.identity {
            Identity::None => {}
            Identity::Named => config["identity"] = "sage".into(),
            Identity::Blank => config["identity"] = "{{ '  ' }}".into(),
            Identity::Broken => config["identity"] = BROKEN.into(),
        }
        if let Some(agent) = &self.agent {
            config["node_type"] = "agent".into();
            config["max_turns"] = agent.max_turns.into();
            config["tools"] = json!(agent.tools.iter().map(AsRef::as_ref).collect::<Vec<&str>>());
            if agent.native {
                config["llm"] = NATIVE.into();
            }
        }
    }
}

/// A template that can't be rendered.
pub(super) const BROKEN: &str = "{{ 1 / 0 }}";

/// Whether the LLM chooses what a node emits.
pub(super) fn chooses(node: &Node) -> bool {
    let plain = |(_, cond): &(Name, Cond)| matches!(cond, Cond::Always | Cond::PlainText);
    node.emissions.len() > 1 && node.emissions.iter().all(plain)
}
