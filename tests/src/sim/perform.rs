//! What the machine asks for, and what it is answered.

use anyhow::{Result, anyhow, bail, ensure};
use soe_backends::{Commit, ExecutionId, RunId, Schedule, Stage, Turn, Value};
use soe_core::machine::{Effect, Input, LlmCall, Outcome, ToolCall};

use super::answer::{answer, denial, tool_result};
use super::check;
use super::flow::{Kind, Name, Node};
use super::llm::Identity;
use super::model::InFlight;
use super::outcome::outcome;
use super::run::Sim;
use super::talk::{Said, prompt};
use super::task::Task;

impl Sim<'_> {
    pub(super) fn perform(&mut self, effect: Effect) -> Result<()> {
        let task = match effect {
            Effect::Continue => {
                self.paused = true;
                self.ever_paused = true;
                return Ok(());
            }
            Effect::Abort { run } => {
                self.past
                    .extend(self.performing.iter().filter(|task| task.run() == run));
                self.performing.retain(|task| task.run() != run);
                return Ok(());
            }
            Effect::CallTool(call) => self.tool_call(&call)?,
            Effect::RunNode(run) => {
                if let Some(expected) = self.compared(run.run) {
                    check::saw(&run.context, expected)?;
                }
                Task::Attempt(run.run, 1)
            }
            Effect::CallLlm(call) => self.llm_call(&call)?,
            Effect::Reserve { run, call } => Task::Grant(run, call),
            Effect::Complete { run, attempt, .. } => Task::Attempt(run, attempt),
            other => bail!("what is {other:?}?"),
        };
        self.effects += 1;
        ensure!(self.performing.insert(task), "{task:?} is performed twice at a time");
        ensure!(!self.past.contains(&task), "{task:?} is performed again");
        Ok(())
    }

    fn tool_call(&self, call: &ToolCall) -> Result<Task> {
        let Some(index) = call.index else {
            if let Some(expected) = self.compared(call.run) {
                let expected = self.model.arguments(expected);
                ensure!(call.arguments == expected, "{call:?} should have arguments {expected}");
            }
            return Ok(Task::Attempt(call.run, call.attempt));
        };
        if let Some(talk) = self.compared(call.run).and_then(|run| run.talk.as_ref()) {
            let expected = talk.open.get(&index);
            let same = expected.is_some_and(|(tool, arguments)| (tool, arguments) == (&call.tool, &call.arguments));
            ensure!(same, "{call:?} should be {expected:?}");
        }
        Ok(Task::Tool(call.run, index))
    }

    fn llm_call(&self, call: &LlmCall) -> Result<Task> {
        let number = call.run.number;
        let dialogue = call.run.progress.dialogue();
        let dialogue = dialogue.ok_or_else(|| anyhow!("{:?} has no dialogue", call.run))?;
        let kept = self.state().runs.get(&number);
        ensure!(
            kept.is_none_or(|kept| *kept == call.run),
            "the request is not made of the run as it is: {call:#?}"
        );
        let Kind::Llm(llm) = &self.node(number).ok_or_else(|| anyhow!("{number} has no node"))?.kind else {
            bail!("{:?} doesn't ask", call.run);
        };
        let identity = (llm.identity == Identity::Named).then_some("sage");
        ensure!(
            call.identity.as_deref() == identity,
            "its identity is {:?}",
            call.identity
        );
        if let Some(expected) = self.compared(number) {
            check::saw(&call.context, expected)?;
            let expected = prompt(llm, &expected.seen);
            ensure!(call.prompt == expected, "{:?} should be {expected:?}", call.prompt);
        }
        Ok(Task::Reply(number, dialogue.calls))
    }

    /// What the model knows of a run, where its snapshot is comparable.
    fn compared(&self, run: u64) -> Option<&InFlight> {
        let comparable = self.plan.schedule == Schedule::Concurrent && !self.ever_paused;
        self.model.in_flight.get(&run).filter(|_| comparable)
    }

    fn node(&self, run: u64) -> Option<&Node> {
        let dispatched = usize::try_from(run - 1).ok();
        let name = dispatched.and_then(|run| self.told.dispatched.get(run))?;
        self.prepared.flow.nodes.iter().find(|node| node.name == *name)
    }

    /// What comes for something that is in flight, or was, or never will be.
    pub(super) fn answer(&self, task: Task) -> Input {
        let (flow, seed, run) = (&self.prepared.flow, self.plan.seed, task.run());
        let completed = |attempt, outcome| Input::Completed { run, attempt, outcome };
        match (task, self.node(run)) {
            (Task::Attempt(_, attempt), Some(node)) => completed(attempt, outcome(flow, seed, node, run, attempt)),
            (Task::Attempt(_, attempt), None) => completed(attempt, Outcome::Tool(Ok(Value::Null))),
            (Task::Grant(_, call), _) => {
                let used = &self.state().context.operational;
                let denied = denial(&flow.limits, seed, run, call, used.llm_calls, used.tokens);
                Input::Granted { run, call, denied }
            }
            (Task::Reply(_, call), Some(node)) => {
                let dialogue = self.state().runs.get(&run).and_then(|run| run.progress.dialogue());
                let stage = dialogue.map_or(Stage::Llm, |dialogue| dialogue.question.stage);
                let Kind::Llm(llm) = &node.kind else {
                    return completed(call, Outcome::Llm(Err("late".into())));
                };
                completed(call, Outcome::Llm(answer(seed, node, llm, run, call, stage)))
            }
            (Task::Reply(_, call), None) => completed(call, Outcome::Llm(Err("late".into()))),
            (Task::Tool(_, index), _) => {
                let result = tool_result(seed, run, index);
                completed(1, Outcome::AgentTool { index, result })
            }
        }
    }

    /// Takes the turns of a commit. Each must have a key of its own.
    pub(super) fn said(&mut self, commit: &Commit) -> Result<()> {
        let Some(turns) = &commit.turns else {
            return Ok(());
        };
        ensure!(turns.main == commit.execution, "turns of {}", turns.main);
        for turn in &turns.turns {
            let said = said(&commit.execution, turn)?;
            let new = self.said.iter().all(|other| other.key != said.key);
            ensure!(new, "two turns have the key {:?}", turn.key);
            self.said.push(said);
        }
        Ok(())
    }

    /// The conversation history is the one that the model expects.
    pub(super) fn same_conversation(&self) -> Result<()> {
        let ordered = self.plan.schedule == Schedule::Concurrent;
        let (mut said, mut expected): (Vec<_>, Vec<_>) = (self.said.iter().collect(), self.model.said.iter().collect());
        if !ordered {
            // The tools of one turn answer in any order there too, and the model takes them one after the other.
            let place = |said: &&Said| (said.key.0, said.role, said.tool.clone());
            said.sort_by_key(place);
            expected.sort_by_key(place);
        }
        let same = |(said, expected): (&&Said, &&Said)| {
            let told = expected.content.is_some() && !self.ever_paused && ordered;
            (!told || said.content == expected.content)
                && (!ordered || said.key == expected.key)
                && (said.key.0, said.role, &said.tool) == (expected.key.0, expected.role, &expected.tool)
        };
        ensure!(
            said.len() == expected.len() && said.iter().zip(&expected).all(same),
            "the history is {said:?}, not {expected:?}"
        );
        Ok(())
    }
}

fn said(execution: &ExecutionId, turn: &Turn) -> Result<Said> {
    let key = turn.key.as_deref().ok_or_else(|| anyhow!("{turn:?} has no key"))?;
    let (id, number) = key.rsplit_once('/').ok_or_else(|| anyhow!("what key is {key}?"))?;
    let run: u64 = id.rsplit(':').next().unwrap_or_default().parse()?;
    ensure!(
        id == RunId::new(execution.clone(), run).to_string(),
        "what run is {id}?"
    );
    let roles = ["user", "assistant", "tool", "tool_error", "system_error"];
    let role = roles.into_iter().find(|role| *role == &*turn.role);
    let tool: Option<Name> = turn.tool_name.clone();
    Ok(Said {
        role: role.ok_or_else(|| anyhow!("what is a turn of {}?", turn.role))?,
        tool,
        content: Some(turn.content.clone()),
        key: (run, number.parse()?),
    })
}
