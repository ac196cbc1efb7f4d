//! Keeps an endpoint's key out of what its LLM says.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use soe_core::llm::{Capabilities, LlmCaller, LlmError, LlmReply, LlmRequest, TokenSink};
use soe_llm_openai::Redactor;

/// Shorter ones are words that local endpoints want in place of a key, and that a reply may well contain.
const SHORTEST: usize = 20;

/// A caller whose replies don't repeat the key, however it is written. Its errors don't anyway.
#[derive(Clone)]
pub(super) struct Hiding<C> {
    caller: C,
    key: Option<Redactor>,
}

impl<C: LlmCaller> Hiding<C> {
    pub(super) fn new(caller: C, key: Option<String>) -> Self {
        let key = key.filter(|key| key.len() >= SHORTEST).map(Redactor::new);
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
                let ready = key.hide_so_far(&mut held);
                if !ready.is_empty() {
                    sink.send(&ready);
                }
            });
        }
        let result = self.caller.call(request).await;
        let rest = std::mem::take(&mut *held.lock().unwrap_or_else(PoisonError::into_inner));
        if !rest.is_empty() {
            sink.send(&key.hide(&rest));
        }
        let mut reply = result?;
        let texts = reply
            .tool_calls
            .iter_mut()
            .flat_map(|call| [&mut call.name, &mut call.arguments]);
        for text in texts.chain([&mut reply.text]) {
            *text = key.hide(text);
        }
        Ok(reply)
    }

    fn capabilities(&self) -> Capabilities {
        self.caller.capabilities()
    }
}

#[cfg(test)]
mod tests {
    use soe_core::testing::{MockLlm, any};

    use super::*;

    const KEY: &str = "sk/a+very-secret-key";

    #[tokio::test]
    async fn the_key_is_hidden_however_it_is_written() {
        let reply = r#"größer sk/a+very-secret-key, sk%2Fa%2Bvery-secret-key, sk\/a\u002bvery-secret-key. sk/a"#;
        for size in 1..30 {
            let llm = MockLlm::new();
            llm.on(any()).text(reply).in_pieces_of(size);
            let shown = Arc::new(Mutex::new(String::new()));
            let mut request = LlmRequest::new("");
            request.tokens = TokenSink::new({
                let shown = shown.clone();
                move |text| shown.lock().unwrap().push_str(text)
            });
            let reply = Hiding::new(llm, Some(KEY.to_owned())).call(request).await.unwrap();
            assert_eq!(reply.text, "größer [hidden], [hidden], [hidden]. sk/a");
            assert_eq!(*shown.lock().unwrap(), reply.text);
        }
    }
}
