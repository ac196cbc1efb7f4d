//! The state machine, scenario by scenario.

// The helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod agent;
mod agent_native;
mod asking;
mod builtins;
mod chains;
mod children;
mod consistent;
mod ends;
mod forks;
mod hostile;
mod inbox;
mod limits;
mod llm;
mod llm_limits;
mod nodes;
mod order;
mod resume;
mod signals;

use std::sync::Arc;

use serde_json::{Value as Json, json};
use soe_backends::{
    Commit, EventKind, ExecutionId, ExecutionState, Limits, Schedule, Status, Timestamp, TreeState, Value, stored,
};
use soe_core::config::{Config, Registry};
use soe_core::machine::{Effect, Input, Machine, MachineError, Outcome, Specs, Start, Step, ToolFailure};
use soe_core::nodes::NodeOutput;
use soe_core::tools::ToolSpec;

/// A machine that does what a scenario says. Each commit is checked: it makes of the state before exactly the machine's.
struct Bench {
    machine: Machine,
    /// The state, made of the commits alone.
    folded: TreeState,
    commits: Vec<Commit>,
    /// What the last step asked for.
    effects: Vec<Effect>,
    now: u64,
    /// The execution that a scenario is about now, by number.
    here: u64,
    registry: Arc<Registry>,
    specs: Specs,
}

/// How a scenario's execution starts.
struct Setup {
    start: Start,
    tools: Vec<ToolSpec>,
}

/// The workflow `flow` with these nodes, one in a line, started with the signal START.
fn flow(nodes: &str) -> Setup {
    let config = Config::from_yaml(&format!("flow:\n{nodes}")).unwrap();
    Setup {
        start: Start {
            id: ExecutionId::new("x").unwrap(),
            registry: config.registry().clone(),
            workflow: "flow".into(),
            fields: Vec::new(),
            definitions: Default::default(),
            schedule: Schedule::Concurrent,
            limits: Arc::default(),
            signals: vec!["START".into()],
            inherited: Default::default(),
        },
        tools: vec![tool()],
    }
}

/// The tool `t`, which takes any arguments.
fn tool() -> ToolSpec {
    ToolSpec::new("t", "", json!({})).unwrap()
}

impl Setup {
    fn field(mut self, name: &str, values: Json) -> Self {
        let values = values.as_array().unwrap().iter().map(Value::from).collect();
        self.start.fields.push((name.into(), values));
        self
    }

    fn tool(mut self, change: impl FnOnce(&mut ToolSpec)) -> Self {
        change(&mut self.tools[0]);
        self
    }

    fn limits(mut self, limits: Limits) -> Self {
        self.start.limits = Arc::new(limits);
        self
    }

    fn signals(mut self, signals: &[&str]) -> Self {
        self.start.signals = signals.iter().map(|signal| Arc::from(*signal)).collect();
        self
    }

    fn depth_first(mut self) -> Self {
        self.start.schedule = Schedule::DepthFirst;
        self
    }

    fn specs(&self) -> Specs {
        Specs {
            tools: self.tools.iter().cloned().collect(),
            llms: asking::specs(),
            ..Specs::default()
        }
    }

    fn try_run(self) -> Result<Bench, MachineError> {
        let specs = self.specs();
        self.try_run_with(specs)
    }

    fn try_run_with(self, specs: Specs) -> Result<Bench, MachineError> {
        let registry = self.start.registry.clone();
        let (machine, step) = Machine::start(Timestamp::from_micros(0), self.start, specs.clone())?;
        Ok(Bench::of(machine, step, registry, specs))
    }

    fn run(self) -> Bench {
        self.try_run().unwrap()
    }
}

impl Bench {
    fn of(machine: Machine, step: Step, registry: Arc<Registry>, specs: Specs) -> Self {
        let folded = TreeState::create(step.commit.as_ref().unwrap()).unwrap();
        let bench = Self {
            registry,
            specs,
            machine,
            folded,
            commits: Vec::from_iter(step.commit),
            effects: step.effects,
            now: 0,
            here: 0,
        };
        bench.check();
        bench
    }

    fn try_input(&mut self, input: Input) -> Result<(), MachineError> {
        self.now += 1;
        let step = match self.machine.step(Timestamp::from_micros(self.now), input) {
            Ok(step) => step,
            Err(refused) => {
                assert_eq!(self.folded, *self.machine.state(), "what is refused leaves no trace");
                return Err(refused);
            }
        };
        if let Some(commit) = step.commit {
            let commit = stored::read(stored::write(&commit).unwrap().as_bytes()).unwrap();
            self.folded.apply(&commit).unwrap();
            self.commits.push(commit);
        }
        self.effects = step.effects;
        self.check();
        Ok(())
    }

    /// The commits make the machine's state, and a store gives it back. What is large is looked at now and then.
    fn check(&self) {
        let state = self.machine.state();
        let large = state.executions.len() > 20 || state.work.accepted.len() > 20;
        if !large || state.version.is_multiple_of(64) {
            assert_eq!(self.folded, *state);
            let written = stored::write_tree(state).unwrap();
            assert_eq!(stored::read_tree(written.as_bytes()).unwrap(), *state);
            consistent::check(state);
        }
    }

    fn input(&mut self, input: Input) {
        self.try_input(input).unwrap();
    }

    /// The machine is lost; another takes up what is stored.
    fn recover(&mut self) {
        self.reload();
        self.input(Input::Recover);
    }

    fn reload(&mut self) {
        let written = stored::write_tree(self.machine.state()).unwrap();
        let state = stored::read_tree(written.as_bytes()).unwrap();
        self.machine = Machine::load(state, vec![self.registry.clone()], self.specs.clone()).unwrap();
    }

    /// An execution that has failed goes on.
    fn resume(&mut self) {
        self.try_resume(None).unwrap();
    }

    fn try_resume(&mut self, limits: Option<Limits>) -> Result<(), MachineError> {
        let (execution, limits) = (self.here, limits.map(Arc::new));
        self.try_input(Input::Resume { execution, limits })
    }

    fn cancel(&mut self) {
        let execution = self.here;
        self.input(Input::Cancel { execution });
    }

    fn broadcast(&mut self, signals: &[&str]) -> Result<(), MachineError> {
        let (execution, signals) = (self.here, signals.iter().map(|signal| Arc::from(*signal)).collect());
        self.try_input(Input::Signal { execution, signals })
    }

    fn completed(&self, run: u64, attempt: u32, outcome: Outcome) -> Input {
        Input::Completed {
            execution: self.here,
            run,
            attempt,
            outcome,
        }
    }

    /// The first attempt of a tool node's run returned `value`.
    fn returned(&mut self, run: u64, value: Json) {
        self.input(self.completed(run, 1, Outcome::Tool(Ok(value.into()))));
    }

    /// An attempt of a tool node's run failed with the text `boom`.
    fn failed(&mut self, run: u64, attempt: u32, retryable: bool) {
        let message = "boom".into();
        let outcome = Outcome::Tool(Err(ToolFailure { message, retryable }));
        self.input(self.completed(run, attempt, outcome));
    }

    fn node(&mut self, run: u64, result: Result<NodeOutput, &str>) {
        let outcome = Outcome::Node(result.map_err(Arc::from));
        self.input(self.completed(run, 1, outcome));
    }

    /// The execution that the scenario is about now.
    fn state(&self) -> &ExecutionState {
        self.machine.state().get(self.here).unwrap()
    }

    fn status(&self) -> Status {
        self.machine.state().status(self.here).unwrap()
    }

    fn failure(&self) -> String {
        self.state().failure.as_ref().unwrap().to_string()
    }

    /// The recorded signals, with a space between.
    fn signals(&self) -> String {
        let signals = &self.state().context.operational.signals;
        signals.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ")
    }

    fn history(&self, field: &str) -> Json {
        let history = self.state().context.history(field);
        history
            .into_iter()
            .flat_map(|history| history.iter())
            .map(Value::to_json)
            .collect()
    }

    /// Tool calls and errors so far.
    fn counters(&self) -> [u64; 2] {
        let operational = &self.state().context.operational;
        [operational.tool_calls, operational.errors]
    }

    fn runs(&self, node: &str) -> u64 {
        self.state().context.operational.nodes.get(node).copied().unwrap_or(0)
    }

    /// The arguments of the only call that the last step asked for.
    fn arguments(&self) -> Json {
        match self.effects.as_slice() {
            [Effect::CallTool(call)] => call.arguments.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// What the last step asked for, in short.
    fn asked(&self) -> Vec<String> {
        let short = |effect: &Effect| match effect {
            Effect::CallTool(call) => match call.index {
                None => format!("call {}.{}", call.run, call.attempt),
                Some(index) => format!("tool {}.{index} {}{}", call.run, call.tool, call.arguments),
            },
            Effect::CallLlm(call) => {
                let dialogue = call.run.progress.dialogue().unwrap();
                format!(
                    "ask {}.{} {}",
                    call.run.number,
                    dialogue.calls,
                    dialogue.question.stage.as_str()
                )
            }
            Effect::RunNode(run) => format!("run {}", run.run),
            Effect::Complete { run, attempt, .. } => format!("complete {run}.{attempt}"),
            Effect::Continue => "continue".to_owned(),
            Effect::Abort { execution } => format!("abort {execution}"),
            other => format!("{other:?}"),
        };
        self.effects.iter().map(short).collect()
    }

    /// Does what the machine knows already.
    fn complete_known(&mut self) {
        match self.effects.pop() {
            Some(Effect::Complete {
                execution,
                run,
                attempt,
                outcome,
            }) => self.input(Input::Completed {
                execution,
                run,
                attempt,
                outcome,
            }),
            other => panic!("{other:?}"),
        }
    }

    fn warnings(&self) -> Vec<&str> {
        self.commits
            .iter()
            .flat_map(|commit| &commit.events)
            .filter_map(|event| match &event.kind {
                EventKind::ContextWarning { message, .. } => Some(message.as_ref()),
                _ => None,
            })
            .collect()
    }

    /// The names of the events of the last commit.
    fn last_events(&self) -> Vec<&str> {
        self.commits
            .last()
            .unwrap()
            .events
            .iter()
            .map(|event| event.kind.name())
            .collect()
    }
}
