//! Runs of the model: what they begin with, what is in flight for them, and what comes of it.

use std::collections::BTreeMap;

use soe_backends::Status;
use soe_core::machine::Outcome;

use super::flow::{Agent, Fails, Kind, Llm, Name};
use super::model::{How, Model, Task};
use super::outcome::{self, TOKENS, value};

/// How far a run is that asks an LLM.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// The number of the last request; 0 before the first.
    pub(super) call: u32,
    /// Whether a reply is expected.
    pub(super) asks: bool,
    rejected: u32,
    /// The calls of tools in flight, with their attempts; and how many there were.
    open: BTreeMap<u32, u32>,
    made: u32,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Decision,
    Arguments,
    Output,
}

impl Model<'_> {
    /// What is in flight in an execution.
    pub fn tasks(&self, exec: usize) -> Vec<Task> {
        let running = self.is_running(exec);
        let runs = self.execs[exec].runs.keys().filter(|_| running);
        runs.flat_map(|run| self.tasks_of(exec, *run)).collect()
    }

    fn tasks_of(&self, exec: usize, run: u64) -> Vec<Task> {
        let Some(in_flight) = self.execs[exec].runs.get(&run) else {
            return Vec::new();
        };
        match &in_flight.how {
            How::Attempt(attempt) => vec![Task::Attempt(run, *attempt)],
            How::Asks(talk) if talk.asks => vec![Task::Reply(run, talk.call)],
            How::Asks(talk) => talk
                .open
                .iter()
                .map(|(index, attempt)| Task::Call(run, *index, *attempt))
                .collect(),
            How::Starts { waits: true, .. } => vec![Task::Due(run)],
            How::Starts { .. } => Vec::new(),
        }
    }

    /// An answer to what is in flight. False if nobody wants it.
    pub fn complete(&mut self, exec: usize, task: Task) -> bool {
        if !self.tasks(exec).contains(&task) {
            return false;
        }
        self.finish(exec, task);
        self.end();
        true
    }

    /// In a depth-first tree: nothing else happens before a run is over.
    pub(super) fn run_to_its_end(&mut self, exec: usize, run: u64) {
        let is_child = |how: &How| matches!(how, How::Starts { .. });
        if self.execs[exec].runs.get(&run).is_some_and(|run| is_child(&run.how)) {
            return self.start_children(exec, run);
        }
        while self.is_running(exec) {
            let Some(task) = self.tasks_of(exec, run).into_iter().next() else {
                return;
            };
            self.answered();
            self.finish(exec, task);
            if self.resumes && self.execs[0].own == Status::Failed {
                self.resume_here(exec, run);
            }
        }
    }

    /// One more answer came; what was to come after the one before comes before it.
    pub(super) fn answered(&mut self) {
        for (id, batch) in self.later.remove(&self.answers).unwrap_or_default() {
            if let Some(exec) = self.execs.iter().position(|exec| exec.id == id) {
                self.accept(exec, batch);
            }
        }
        self.answers += 1;
    }

    pub(super) fn accept(&mut self, exec: usize, batch: Vec<Name>) {
        if self.status(exec).accepts_signals() {
            self.wake(exec);
            self.accepted.push_back((exec, batch));
        }
    }

    fn resume_here(&mut self, exec: usize, run: u64) {
        for exec in self.execs.iter_mut().filter(|exec| exec.own == Status::Failed) {
            exec.own = Status::Running;
        }
        self.ask_again(exec, run);
    }

    fn finish(&mut self, exec: usize, task: Task) {
        match task {
            Task::Attempt(run, attempt) => self.finish_attempt(exec, run, attempt),
            Task::Reply(run, _) => self.replied(exec, run),
            Task::Call(run, index, attempt) => self.called(exec, run, index, attempt),
            Task::Due(run) => self.due(exec, run),
        }
    }

    fn finish_attempt(&mut self, exec: usize, number: u64, attempt: u32) {
        let run = &self.execs[exec].runs[&number];
        let (node, name) = (run.node, run.name.clone());
        let outcome = outcome::attempt(node, &name, attempt, run.failed);
        match (&node.kind, outcome) {
            (Kind::Custom { failure, .. }, Outcome::Node(Err(_))) => self.gave_up(exec, number, failure.as_ref()),
            (Kind::Custom { output, .. }, _) => self.over(exec, number, output.as_ref()),
            (
                Kind::Tool {
                    fails: Fails::First(_), ..
                },
                Outcome::Tool(Err(_)),
            ) => {
                self.execs[exec].own_use.1 += 1;
                if let Some(run) = self.execs[exec].runs.get_mut(&number) {
                    run.how = How::Attempt(attempt + 1);
                }
            }
            (Kind::Tool { output, .. }, Outcome::Tool(Err(failure))) => {
                self.execs[exec].own_use.1 += 1;
                self.execs[exec].runs.remove(&number);
                self.write(exec, output.as_ref(), soe_backends::Value::Text(failure.message));
                let signal = node.emits.first().map(|(signal, _)| signal.clone());
                self.broadcast(exec, signal.as_slice());
            }
            (Kind::Tool { output, .. }, _) => self.over(exec, number, output.as_ref()),
            _ => {}
        }
    }

    /// A run has given what it should.
    fn over(&mut self, exec: usize, number: u64, output: Option<&Name>) {
        let Some(run) = self.execs[exec].runs.remove(&number) else {
            return;
        };
        self.write(exec, output, value(&run.name));
        let signals = self.passing(exec, run.node);
        self.broadcast(exec, &signals);
    }

    fn gave_up(&mut self, exec: usize, number: u64, failure: Option<&Name>) {
        let state = &mut self.execs[exec];
        state.own_use.1 += 1;
        match failure {
            Some(signal) => {
                state.runs.remove(&number);
                self.broadcast(exec, std::slice::from_ref(signal));
            }
            None => {
                if let Some(run) = state.runs.get_mut(&number) {
                    run.failed += 1;
                    run.has_failed = true;
                }
                self.fail(exec);
            }
        }
    }

    fn replied(&mut self, exec: usize, number: u64) {
        let Some(run) = self.execs[exec].runs.get_mut(&number) else {
            return;
        };
        let (Kind::Llm(llm), How::Asks(talk)) = (&run.node.kind, &mut run.how) else {
            return;
        };
        if run.failed < llm.fails {
            // It counts as asking still: it is asked again when the execution is resumed.
            return self.gave_up(exec, number, llm.failure.as_ref());
        }
        talk.asks = false;
        let next = talk.next(llm);
        let calls = talk.open.len();
        let state = &mut self.execs[exec];
        state.own_use.0.tokens += TOKENS;
        state.totals.tokens += TOKENS;
        self.used.tokens += TOKENS;
        match next {
            Next::Invalid => {
                self.execs[exec].own_use.1 += 1;
                self.ask(exec, number);
            }
            Next::Asks => self.ask(exec, number),
            Next::Calls => (0..calls).for_each(|_| self.count_tool_call(exec)),
            Next::Over => self.over(exec, number, llm.output.as_ref()),
        }
    }

    fn called(&mut self, exec: usize, number: u64, index: u32, attempt: u32) {
        let Some(run) = self.execs[exec].runs.get_mut(&number) else {
            return;
        };
        let (Kind::Llm(Llm { agent: Some(agent), .. }), How::Asks(talk)) = (&run.node.kind, &mut run.how) else {
            return;
        };
        if agent.flaky && attempt == 1 {
            talk.open.insert(index, 2);
            self.execs[exec].own_use.1 += 1;
            return;
        }
        talk.open.remove(&index);
        talk.stage = Stage::Decision;
        if talk.open.is_empty() {
            self.ask(exec, number);
        }
    }

    /// A request is made: it counts from here on.
    pub(super) fn ask(&mut self, exec: usize, number: u64) {
        let state = &mut self.execs[exec];
        let run = state.runs.get_mut(&number).map(|run| &mut run.how);
        if let Some(How::Asks(talk)) = run {
            talk.call += 1;
            talk.asks = true;
            self.count_request(exec);
        }
    }

    fn count_request(&mut self, exec: usize) {
        let state = &mut self.execs[exec];
        state.own_use.0.llm_calls += 1;
        state.totals.llm_calls += 1;
        self.used.llm_calls += 1;
    }

    /// What was in flight is performed again. A request that had failed the execution is followed by the next.
    pub(super) fn ask_again(&mut self, exec: usize, number: u64) {
        let Some(run) = self.execs[exec].runs.get_mut(&number) else {
            return;
        };
        let failed = std::mem::replace(&mut run.has_failed, false);
        match &mut run.how {
            How::Asks(talk) if talk.call == 0 || talk.asks && failed => {
                talk.rejected = 0;
                self.ask(exec, number);
            }
            // One that was lost is made again under its number: that it counts again is left to who compares.
            _ => {}
        }
    }
}

enum Next {
    Invalid,
    Asks,
    Calls,
    Over,
}

impl Talk {
    /// What a reply leads to.
    fn next(&mut self, llm: &Llm) -> Next {
        let Some(Agent {
            rounds, width, native, ..
        }) = llm.agent
        else {
            if self.rejected < llm.invalid {
                self.rejected += 1;
                return Next::Invalid;
            }
            return Next::Over;
        };
        let (calls, all) = match native {
            true => (width, rounds * width),
            false => (1, rounds),
        };
        match self.stage {
            Stage::Decision if self.made < all && !native => {
                self.stage = Stage::Arguments;
                Next::Asks
            }
            Stage::Decision | Stage::Arguments if self.made < all => {
                self.open = (self.made..self.made + calls).map(|index| (index, 1)).collect();
                self.made += calls;
                Next::Calls
            }
            Stage::Decision if !native => {
                self.stage = Stage::Output;
                Next::Asks
            }
            _ => Next::Over,
        }
    }
}
