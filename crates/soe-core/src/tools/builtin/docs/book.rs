//! The project's documentation, in the binary.

/// A document of the book.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) name: &'static str,
    pub(super) tags: &'static [&'static str],
    pub(super) text: &'static str,
}

macro_rules! book {
    ($($name:literal: $($tag:literal)+;)*) => {
        /// All documents, in the order of reading.
        pub(super) const BOOK: &[Document] = &[$(Document {
            name: $name,
            tags: &[$($tag),+],
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/", $name)),
        }),*];
    };
}

book! {
    "README.md": "overview";
    "getting-started.md": "guide" "start";
    "concepts.md": "guide" "signals" "context" "joins";
    "glossary.md": "guide" "reference";
    "signals.md": "guide" "signals";
    "context.md": "guide" "context" "templates";
    "templates.md": "guide" "reference" "templates";
    "router.md": "guide" "nodes" "router" "joins" "loops";
    "tool.md": "guide" "nodes" "tool";
    "llm.md": "guide" "nodes" "llm";
    "schema.md": "guide" "llm" "schema";
    "agent.md": "guide" "nodes" "agent" "llm" "tool";
    "child.md": "guide" "nodes" "child" "joins";
    "fan-out.md": "guide" "child" "joins" "patterns";
    "identity.md": "guide" "llm" "identity";
    "builtins.md": "guide" "reference" "tool" "self-evolution" "policy";
    "inheritance.md": "guide" "context" "self-evolution";
    "time-travel.md": "guide" "operation" "backends";
    "patterns.md": "guide" "patterns";
    "hybrid.md": "guide" "patterns" "llm" "agent" "router";
    "swarm.md": "guide" "patterns" "llm" "agent" "identity";
    "ecosystem.md": "guide" "signals" "child" "operation";
    "self-evolution.md": "guide" "patterns" "self-evolution" "policy";
    "openai.md": "guide" "llm" "operation";
    "testing.md": "guide" "testing";
    "infrastructure.md": "guide" "operation";
    "operations-patterns.md": "guide" "patterns" "operation" "loops";
    "durability.md": "guide" "operation" "backends";
    "operations.md": "guide" "operation";
    "backends.md": "guide" "backends";
    "cli.md": "guide" "cli";
    "node-reference.md": "reference" "nodes";
    "validation.md": "reference" "validation";
    "differences.md": "reference" "migration";
    "architecture.md": "project";
    "performance.md": "project";
    "dependencies.md": "project";
}
