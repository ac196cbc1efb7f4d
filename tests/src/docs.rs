//! The Rust blocks of the documentation, as doctests: they compile and run with `cargo test --doc -p soe-tests`.

/// One line for each file that has Rust blocks, its path counted from `docs/` (`readme: "../README.md"` works too). The test
/// `docs` fails for a file that is missing here.
macro_rules! files {
    ($($module:ident: $file:literal,)*) => {
        $(
            #[cfg(doctest)]
            #[doc = include_str!(concat!("../../docs/", $file))]
            mod $module {}
        )*
    };
}

files! {
    backends: "backends.md",
    builtins: "builtins.md",
    context: "context.md",
    durability: "durability.md",
    ecosystem: "ecosystem.md",
    getting_started: "getting-started.md",
    identity: "identity.md",
    inheritance: "inheritance.md",
    llm: "llm.md",
    infrastructure: "infrastructure.md",
    openai: "openai.md",
    operations: "operations.md",
    operations_patterns: "operations-patterns.md",
    readme: "../README.md",
    schema: "schema.md",
    self_evolution: "self-evolution.md",
    signals: "signals.md",
    testing: "testing.md",
    time_travel: "time-travel.md",
    tool: "tool.md",
}
