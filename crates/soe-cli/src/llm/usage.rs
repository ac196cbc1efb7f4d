//! What the LLMs of a tree took.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use soe_backends::{EventKind, TreeState};
use soe_core::runtime::Engine;

use crate::output::{count, safe};

/// Events are read in pages of this size.
const PAGE: usize = 1_000;

/// Tokens as the endpoints report them, from the first event of a tree on.
#[derive(Debug, Default, Serialize)]
pub(crate) struct LlmUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    nodes: BTreeMap<Arc<str>, NodeUsage>,
}

#[derive(Debug, Default, Serialize)]
struct NodeUsage {
    llm_calls: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
}

impl LlmUsage {
    /// What the events of a tree say, as far as they can be read.
    pub(crate) async fn of(engine: &Engine, tree: &TreeState) -> Self {
        let mut usage = Self::default();
        if tree.used.llm_calls == 0 {
            return usage;
        }
        let mut from = 0;
        loop {
            let events = engine
                .tree_telemetry(&tree.root, from, PAGE)
                .await
                .unwrap_or_else(|error| {
                    // What has happened matters more than what it took.
                    tracing::warn!(%error, "stored events can't be read; the usage of LLMs is not complete");
                    Vec::new()
                });
            let Some(last) = events.last() else { return usage };
            from = last.seq.saturating_add(1);
            events.iter().for_each(|event| usage.add(&event.kind));
        }
    }

    fn add(&mut self, event: &EventKind) {
        match event {
            EventKind::LlmCall { node_name, .. } => {
                self.nodes.entry(node_name.clone()).or_default().llm_calls += 1;
            }
            EventKind::LlmReply {
                node_name,
                usage: Some(usage),
                ..
            } => {
                let node = self.nodes.entry(node_name.clone()).or_default();
                add(&mut node.prompt_tokens, usage.prompt_tokens);
                add(&mut node.completion_tokens, usage.completion_tokens);
                add(&mut self.prompt_tokens, usage.prompt_tokens);
                add(&mut self.completion_tokens, usage.completion_tokens);
            }
            _ => {}
        }
    }

    /// The tokens in words, and those of each node if there are several; nothing where no endpoint reports any.
    pub(crate) fn lines(&self) -> Vec<String> {
        if self.prompt_tokens == 0 && self.completion_tokens == 0 {
            return Vec::new();
        }
        let mut lines = vec![format!(
            "LLMs took {}",
            tokens(self.prompt_tokens, self.completion_tokens)
        )];
        if self.nodes.len() > 1 {
            lines.extend(self.nodes.iter().map(|(name, node)| {
                let calls = count(node.llm_calls, "call");
                let tokens = tokens(node.prompt_tokens, node.completion_tokens);
                format!("  {}: {calls}, {tokens}", safe(name))
            }));
        }
        lines
    }
}

/// `120 tokens for prompts, 4 for replies`
fn tokens(prompt: u64, completion: u64) -> String {
    format!("{} for prompts, {completion} for replies", count(prompt, "token"))
}

/// An endpoint can report any number.
fn add(sum: &mut u64, tokens: u64) {
    *sum = sum.saturating_add(tokens);
}

#[cfg(test)]
mod tests {
    use soe_backends::Usage;

    use super::*;

    #[test]
    fn hostile_numbers_do_no_harm() {
        let tokens = Usage {
            prompt_tokens: u64::MAX,
            completion_tokens: u64::MAX,
        };
        let event = EventKind::LlmReply {
            node_name: "Ask".into(),
            run: 1,
            call: 1,
            usage: Some(tokens),
        };
        let mut usage = LlmUsage::default();
        usage.add(&event);
        usage.add(&event);
        let lines = usage.lines();
        assert!(lines[0].contains(&u64::MAX.to_string()), "{lines:?}");
    }
}
