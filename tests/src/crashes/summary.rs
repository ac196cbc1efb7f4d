//! What came of a tree, told so that it doesn't depend on the order of events.

use std::collections::BTreeMap;
use std::fmt::Debug;

use anyhow::{Result, ensure};
use soe_backends::{ExecutionId, ExecutionState};

use super::run::Sim;

/// What came of a tree, and how often something was stored on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// So often something was stored.
    pub stores: u64,
    facts: BTreeMap<String, String>,
}

impl Summary {
    /// # Errors
    /// Something else came of it.
    pub(super) fn same(&self, calm: &Self) -> Result<()> {
        let all = self.facts.keys().chain(calm.facts.keys());
        for fact in all {
            let (now, calm) = (self.facts.get(fact), calm.facts.get(fact));
            ensure!(now == calm, "{fact}: {now:?}, without a crash {calm:?}");
        }
        Ok(())
    }
}

impl Sim<'_> {
    pub(super) fn summary(&self) -> Summary {
        let mut facts = BTreeMap::new();
        for (id, state) in &self.store.states {
            let path = self.path(id);
            let mut fact = |what: &str, value: String| drop(facts.insert(format!("{what} of {path}"), value));
            self.facts_of(id, state, &mut fact);
        }
        let mut turns: Vec<String> = self.store.turns.iter().map(|turn| self.turn(turn)).collect();
        turns.sort();
        facts.insert("turns".to_owned(), format!("{turns:?}"));
        Summary {
            stores: self.stores,
            facts,
        }
    }

    fn facts_of(&self, id: &ExecutionId, state: &ExecutionState, fact: &mut impl FnMut(&str, String)) {
        let operational = &state.context.operational;
        fact("status", state.status.to_string());
        fact("signals", sorted(operational.signals.iter()));
        fact("runs", sorted(operational.nodes.iter()));
        for (field, history) in state.context.fields.iter() {
            fact(field, sorted(history.iter()));
        }
        let repeated = self.ledger.repeated.get(id).copied().unwrap_or(0);
        fact("requests", (operational.llm_calls - repeated).to_string());
        fact("calls", operational.tool_calls.to_string());
        fact("tokens", operational.tokens.to_string());
        fact("children", operational.tree.children.to_string());
        if self.plan.shape.fails == 0 {
            fact("errors", operational.errors.to_string());
        }
    }

    /// A turn without its words: prompts tell how far others were.
    fn turn(&self, turn: &soe_backends::Turn) -> String {
        let key = turn.key.as_deref().unwrap_or_default();
        let run = key.rsplit_once('/').and_then(|(run, _)| run.rsplit_once(':'));
        let of = run.and_then(|(id, run)| Some((ExecutionId::new(id).ok()?, run.parse().ok()?)));
        let path = of.as_ref().map(|(id, _)| self.path(id)).unwrap_or_default();
        let run = of.and_then(|of| self.ledger.runs.get(&of));
        let run = run.map(|run| (&run.node, run.before));
        format!("{path} {run:?} {} {:?}", turn.role, turn.tool_name)
    }
}

fn sorted<T: Debug>(items: impl Iterator<Item = T>) -> String {
    let mut items: Vec<String> = items.map(|item| format!("{item:?}")).collect();
    items.sort();
    items.join(", ")
}
