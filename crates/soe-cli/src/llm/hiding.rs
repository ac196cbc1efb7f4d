//! Keeps an endpoint's key out of what its LLM says.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use soe_core::llm::{Capabilities, LlmCaller, LlmError, LlmReply, LlmRequest, TokenSink};

/// Shorter ones are words that local endpoints want in place of a key, and that a reply may well contain.
const SHORTEST: usize = 20;

const HIDDEN: &str = "[hidden]";

/// A caller whose replies don't repeat the key. Its errors don't anyway.
#[derive(Clone)]
pub(super) struct Hiding<C> {
    caller: C,
    key: Option<Arc<str>>,
}

impl<C: LlmCaller> Hiding<C> {
    pub(super) fn new(caller: C, key: Option<String>) -> Self {
        let key = key.filter(|key| key.len() >= SHORTEST).map(Arc::from);
        Self { caller, key }
    }
}

#[async_trait]
impl<C: LlmCaller> LlmCaller for Hiding<C> {
    async fn call(&self, mut request: LlmRequest) -> Result<LlmReply, LlmError> {
        let Some(key) = &self.key else {
            return self.caller.call(request).await;
        };
        let (sink, held) = (request.tokens.clone(), Arc::new(Mutex::new(String::new())));
        if sink.is_wanted() {
            let (sink, held, key) = (sink.clone(), held.clone(), key.clone());
            request.tokens = TokenSink::new(move |piece| {
                let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
                held.push_str(piece);
                let ready = take_ready(&mut held, &key);
                if !ready.is_empty() {
                    sink.send(&ready);
                }
            });
        }
        let result = self.caller.call(request).await;
        let rest = std::mem::take(&mut *held.lock().unwrap_or_else(PoisonError::into_inner));
        if !rest.is_empty() {
            sink.send(&rest);
        }
        let mut reply = result?;
        let texts = reply
            .tool_calls
            .iter_mut()
            .flat_map(|call| [&mut call.name, &mut call.arguments]);
        for text in texts.chain([&mut reply.text]) {
            if text.contains(key.as_ref()) {
                *text = text.replace(key.as_ref(), HIDDEN);
            }
        }
        Ok(reply)
    }

    fn capabilities(&self) -> Capabilities {
        self.caller.capabilities()
    }
}

/// Takes what can be shown: all but an end with which the key may begin.
fn take_ready(held: &mut String, key: &str) -> String {
    if held.contains(key) {
        *held = held.replace(key, HIDDEN);
    }
    // The key is ASCII, so what it begins with ends where a character ends.
    let begun = (1..key.len().min(held.len() + 1))
        .rev()
        .find(|length| held.ends_with(&key[..*length]));
    let rest = held.split_off(held.len() - begun.unwrap_or(0));
    std::mem::replace(held, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk-a-very-secret-key";

    #[test]
    fn a_key_in_pieces_is_hidden() {
        for size in 1..30 {
            let text: Vec<char> = format!("größer {KEY} and sk-a-very-sk-{KEY}{KEY} sk-a")
                .chars()
                .collect();
            let (mut held, mut shown) = (String::new(), String::new());
            for piece in text.chunks(size) {
                held.extend(piece);
                shown.push_str(&take_ready(&mut held, KEY));
            }
            shown.push_str(&held);
            assert_eq!(shown, "größer [hidden] and sk-a-very-sk-[hidden][hidden] sk-a");
        }
    }
}
