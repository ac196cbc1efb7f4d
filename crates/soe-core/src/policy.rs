//! What workflows may do to themselves: the policy of an engine.

use std::collections::BTreeSet;

use crate::tools::builtin;

/// Which built-in tools an engine has, and how far they reach.
///
/// By default there are all of them, and nothing that a workflow makes of itself can do more than its author let it: what a
/// node injects, or calls by name, may use only the tools that the node may use, and other execution trees are out of reach.
///
/// ```
/// use soe_core::policy::Policy;
/// use soe_core::runtime::Engine;
///
/// let reading = Policy::closed();
/// let trusting = Policy::open();
/// let own = Policy::default().without(["soe_inject_workflow"]).max_changes(20);
/// assert!(!reading.allows("soe_inject_node") && trusting.allows("soe_inject_node"));
/// let engine = Engine::builder().policy(own).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    builtins: BTreeSet<&'static str>,
    /// Names that were given, and that no built-in tool has.
    unknown: Vec<String>,
    escalation: bool,
    other_trees: bool,
    max_changes: u64,
    max_injected_bytes: usize,
}

impl Default for Policy {
    /// All built-in tools; no escalation; no other trees; 1,000 changes of an execution's workflows, each of 256 KiB.
    fn default() -> Self {
        Self {
            builtins: builtin::names().collect(),
            unknown: Vec::new(),
            escalation: false,
            other_trees: false,
            max_changes: 1_000,
            max_injected_bytes: 256 * 1024,
        }
    }
}

impl Policy {
    /// Everything is allowed: for workflows that are trusted as the application itself is. Injected workflows are still
    /// validated, and the limits of executions hold.
    pub fn open() -> Self {
        Self {
            escalation: true,
            other_trees: true,
            max_changes: u64::MAX,
            max_injected_bytes: 64 * 1024 * 1024,
            ..Self::default()
        }
    }

    /// Workflows can't change themselves or anything else: there are only the built-in tools that read.
    pub fn closed() -> Self {
        let mut policy = Self::default();
        policy.builtins.retain(|name| !builtin::changes_something(name));
        policy
    }

    /// There are only these built-in tools. A name that none has is an error when the engine is built.
    #[must_use]
    pub fn only<S: AsRef<str>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        let names: BTreeSet<&'static str> = self.known(names).into_iter().collect();
        self.builtins = names;
        self
    }

    /// There are not these built-in tools. A name that none has is an error when the engine is built.
    #[must_use]
    pub fn without<S: AsRef<str>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        for name in self.known(names) {
            self.builtins.remove(name);
        }
        self
    }

    /// Whether injected nodes, and calls by name, may use any tool and node type of the engine, whatever the injecting node
    /// may use itself.
    #[must_use]
    pub fn escalation(mut self, allowed: bool) -> Self {
        self.escalation = allowed;
        self
    }

    /// Whether the contexts of executions in other trees may be listed, read and written.
    #[must_use]
    pub fn other_trees(mut self, allowed: bool) -> Self {
        self.other_trees = allowed;
        self
    }

    /// How often the nodes of an execution may change its workflows, and how many identities and schemas they may leave.
    #[must_use]
    pub fn max_changes(mut self, changes: u64) -> Self {
        self.max_changes = changes;
        self
    }

    /// How large what is injected at a time may be: a workflow, a node, a condition, an identity, a schema.
    #[must_use]
    pub fn max_injected_bytes(mut self, bytes: usize) -> Self {
        self.max_injected_bytes = bytes;
        self
    }

    /// Whether there is the built-in tool `name`.
    pub fn allows(&self, name: &str) -> bool {
        self.builtins.contains(name)
    }

    pub(crate) fn allows_escalation(&self) -> bool {
        self.escalation
    }

    #[cfg(feature = "runtime")]
    pub(crate) fn allows_other_trees(&self) -> bool {
        self.other_trees
    }

    pub(crate) fn changes(&self) -> u64 {
        self.max_changes
    }

    pub(crate) fn injected_bytes(&self) -> usize {
        self.max_injected_bytes
    }

    #[cfg(feature = "runtime")]
    pub(crate) fn unknown_names(&self) -> &[String] {
        &self.unknown
    }

    fn known<S: AsRef<str>>(&mut self, names: impl IntoIterator<Item = S>) -> Vec<&'static str> {
        let mut known = Vec::new();
        for name in names {
            match builtin::names().find(|builtin| *builtin == name.as_ref()) {
                Some(name) => known.push(name),
                None => self.unknown.push(name.as_ref().to_owned()),
            }
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_policy_leaves_what_reads() {
        let closed = Policy::closed();
        assert!(closed.allows("soe_get_workflows") && closed.allows("soe_get_context"));
        for name in [
            "soe_inject_node",
            "soe_update_context",
            "soe_add_signal",
            "soe_remove_workflow",
        ] {
            assert!(!closed.allows(name) && Policy::default().allows(name), "{name}");
        }
    }

    #[test]
    fn built_ins_are_chosen_by_name() {
        let only = Policy::default().only(["soe_get_context", "soe_sing"]);
        assert!(only.allows("soe_get_context") && !only.allows("soe_get_workflows"));
        assert_eq!(only.unknown, ["soe_sing"]);
        let without = Policy::open().without(["soe_get_context"]);
        assert!(!without.allows("soe_get_context") && without.allows("soe_get_workflows"));
    }
}
