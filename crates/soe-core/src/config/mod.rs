//! Workflow configuration: YAML or parsed values become typed workflows, checked before anything runs.

mod workflow;

pub use workflow::{
    AgentNode, Arguments, ChildNode, Condition, Emission, FanOut, LlmNode, Node, NodeKind, Parameter, Registry,
    ToolNode, Workflow,
};
