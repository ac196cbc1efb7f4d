//! What scenarios with LLMs have in common.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value as Json, json};
use soe_backends::{Dialogue, Limits, Run, Turn};
use soe_core::llm::{Capabilities, LlmCaller, LlmError, LlmReply, LlmRequest, LlmSpecs, Llms};
use soe_core::machine::{AnswerContent, Effect, Input, LlmAnswer, LlmCall, Outcome};

use crate::{Bench, Setup, flow};

struct Native;

#[async_trait]
impl LlmCaller for Native {
    async fn call(&self, _: LlmRequest) -> Result<LlmReply, LlmError> {
        Ok(LlmReply::text("nobody asks it here"))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().tool_calls(true)
    }
}

/// Only the LLM called `native` takes native tool calls.
pub(crate) fn specs() -> LlmSpecs {
    let mut llms = Llms::new();
    llms.register("native", Native).unwrap();
    llms.specs()
}

pub(crate) fn llm(more: &str) -> Setup {
    flow(&format!(
        "  A: {{node_type: llm, event_triggers: [START], prompt: 'n is {{{{ context.n }}}}', output_field: out,
    event_emissions: [{{signal_name: DONE}}]{more}}}"
    ))
    .field("n", json!([1]))
}

/// So many requests to LLMs are allowed.
pub(crate) fn limited(calls: u64) -> Limits {
    Limits {
        llm_calls: Some(calls),
        ..Limits::default()
    }
}

pub(crate) fn output(value: Json) -> AnswerContent {
    let value = value.into();
    let signals = Vec::new();
    AnswerContent::Output { value, signals }
}

pub(crate) fn invalid(problem: &str) -> AnswerContent {
    let (reply, problem) = ("nonsense".into(), problem.into());
    AnswerContent::Invalid { reply, problem }
}

impl Bench {
    pub(crate) fn answered(&mut self, run: u64, call: u32, answer: Result<LlmAnswer, Arc<str>>) {
        self.input(self.completed(run, call, Outcome::Llm(answer)));
    }

    pub(crate) fn replied(&mut self, run: u64, call: u32, content: AnswerContent) {
        let (usage, warnings) = (None, Vec::new());
        let answer = LlmAnswer {
            content,
            usage,
            warnings,
        };
        self.answered(run, call, Ok(answer));
    }

    pub(crate) fn run_of(&self, run: u64) -> &Run {
        self.state().runs.get(run).unwrap()
    }

    pub(crate) fn dialogue(&self, run: u64) -> &Dialogue {
        self.run_of(run).progress.dialogue().unwrap()
    }

    /// The only request that the last step makes.
    pub(crate) fn request(&self) -> &LlmCall {
        match self.effects.as_slice() {
            [Effect::CallLlm(call)] => call,
            other => panic!("{other:?}"),
        }
    }

    /// Requests, tool calls, errors and tokens so far of a root without children, which are those of the tree too.
    pub(crate) fn used(&self) -> [u64; 4] {
        let counted = self.machine.state().used;
        let state = &self.state().context.operational;
        let tree = state.tree;
        let used = [state.llm_calls, state.tool_calls, state.errors, state.tokens];
        assert_eq!(
            [tree.llm_calls, tree.tool_calls, tree.tokens],
            [used[0], used[1], used[3]]
        );
        assert_eq!(
            [counted.llm_calls, counted.tool_calls, counted.tokens],
            [used[0], used[1], used[3]]
        );
        used
    }

    /// Something came that nobody waits for: an event, and nothing else.
    pub(crate) fn discards(&mut self, input: Input) {
        let mut expected = self.machine.state().clone();
        self.input(input);
        expected.version += 1;
        expected.next_event += 1;
        expected.updated_at = self.machine.state().updated_at;
        assert_eq!(*self.machine.state(), expected);
        assert_eq!(
            (self.last_events(), self.asked().len()),
            (vec!["completion_discarded"], 0)
        );
    }

    pub(crate) fn turns(&self) -> Vec<&Turn> {
        self.commits.iter().flat_map(|commit| &commit.turns).collect()
    }
}
