//! What can be in flight.

/// One thing that is performed for a run, and answered once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// An attempt of a tool node or a custom node.
    Attempt(u64, u32),
    /// Whether a request may be made.
    Grant(u64, u32),
    /// A request to an LLM.
    Reply(u64, u32),
    /// A call of a tool by an agent.
    Tool(u64, u32),
}

impl Task {
    /// The run.
    pub fn run(self) -> u64 {
        let (Task::Attempt(run, _) | Task::Grant(run, _) | Task::Reply(run, _) | Task::Tool(run, _)) = self;
        run
    }

    /// The one after it, which may not be in flight yet.
    pub fn next(self) -> Self {
        match self {
            Task::Attempt(run, attempt) => Task::Attempt(run, attempt + 1),
            Task::Grant(run, call) => Task::Grant(run, call + 1),
            Task::Reply(run, call) => Task::Reply(run, call + 1),
            Task::Tool(run, index) => Task::Tool(run, index + 1),
        }
    }
}
