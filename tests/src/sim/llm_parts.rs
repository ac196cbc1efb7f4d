//! Parts of workflows in which an LLM is asked.

use super::answer::GENEROUS;
use super::flow::{Cond, Kept, Kind, Name};
use super::llm::{Agent, Answers, Identity, Llm, PATIENCE};
use super::parts::Builder;

impl Builder {
    /// A node that can't fail: a tool, an llm node or an agent.
    pub(crate) fn any_worker(&mut self, triggers: &[Name], done: &Name, gives: Kept, output: Name) {
        match self.rng.u8(..3) {
            0 | 1 => {
                let tool = self.any_tool(done, gives);
                self.worker(triggers, std::slice::from_ref(done), tool, Some(output));
            }
            _ => {
                let llm = self.calm(gives, Some(output));
                self.node(triggers, &[(done.clone(), Cond::Always)], Kind::Llm(llm));
            }
        }
    }

    /// A node that asks an LLM and emits `done` in any case.
    pub(super) fn unreliable(&mut self, triggers: &[Name], done: &Name, output: Option<Name>) {
        let mut llm = self.calm(Kept::AnyOrNull, output);
        llm.answers = Answers::Wild;
        llm.retries = self.rng.u32(..3);
        llm.failure_signal = Some(done.clone());
        self.node(triggers, &[(done.clone(), Cond::PlainText)], Kind::Llm(llm));
    }

    /// The LLM chooses one signal or both; both trigger the router behind it, which runs once for the batch.
    pub(super) fn choice(&mut self, start: Name, end: &Name) {
        let (a, b) = (self.name("a"), self.name("b"));
        let llm = self.calm(Kept::AnyOrNull, Some("shared".into()));
        let chosen = [(a.clone(), Cond::PlainText), (b.clone(), Cond::Always)];
        self.node(&[start], &chosen, Kind::Llm(llm));
        self.node(&[a, b], &[(end.clone(), Cond::Always)], Kind::Router);
    }

    /// A node with an LLM that comes to an end.
    pub(super) fn calm(&mut self, gives: Kept, output: Option<Name>) -> Llm {
        if self.rng.u8(..8) == 0 {
            self.flow.limits.llm_calls = Some(GENEROUS);
        }
        let identities = [Identity::None, Identity::Named, Identity::Blank, Identity::Broken];
        let agent = self.rng.bool().then(|| Agent {
            tools: (0..self.rng.usize(..3)).map(|i| self.tool_name(i)).collect(),
            max_turns: PATIENCE,
            native: self.rng.bool(),
        });
        let counted = output.clone().unwrap_or_else(|| "given".into());
        Llm {
            prompt: (self.rng.u8(..6) > 0).then_some(counted),
            output,
            identity: identities[self.rng.usize(..identities.len())],
            retries: PATIENCE,
            failure_signal: None,
            answers: Answers::Calm,
            gives,
            agent,
        }
    }
}
