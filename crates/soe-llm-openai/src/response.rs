//! Chat completions, whole or in pieces, and the replies that they are.

use std::collections::BTreeMap;

use serde_json::Value;
use soe_core::llm::{LlmReply, ToolRequest, Usage};

use crate::message;
use crate::names::Names;
use crate::schema::Form;
use crate::wire::{Choice, Content, Wire, WireCall, WireMessage, WireUsage};
use crate::{Problem, schema};

/// What a completion says, whatever way it came.
#[derive(Debug, Default)]
pub(crate) struct Completion {
    text: String,
    refusal: String,
    calls: BTreeMap<u64, ToolRequest>,
    finish_reason: Option<String>,
    usage: Option<Usage>,
}

/// An error that the endpoint reports in place of a completion, or of its rest.
#[derive(Debug)]
pub(crate) struct Reported {
    pub(crate) message: String,
    /// The HTTP status that it stands for, if it names one.
    pub(crate) status: Option<u16>,
}

/// What is no part of a completion.
#[derive(Debug)]
pub(crate) enum Unfit {
    Reported(Reported),
    /// Why it is none. May quote the endpoint.
    Invalid(String),
}

impl Completion {
    /// A completion that came whole.
    pub(crate) fn whole(body: &[u8]) -> Result<Self, Unfit> {
        let mut completion = Self::default();
        let wire: Wire = serde_json::from_slice(body).map_err(unreadable)?;
        if wire.error.is_none() && wire.choices.as_ref().is_none_or(Vec::is_empty) {
            return Err(Unfit::Invalid("it has no `choices`".to_owned()));
        }
        completion.add(wire, |choice| choice.message.or(choice.delta))?;
        Ok(completion)
    }

    /// Adds a piece, and gives the text in it.
    pub(crate) fn add_piece(&mut self, data: &str) -> Result<String, Unfit> {
        let wire = serde_json::from_str(data).map_err(unreadable)?;
        self.add(wire, |choice| choice.delta.or(choice.message))
    }

    fn add(&mut self, wire: Wire, said: impl FnOnce(Choice) -> Option<WireMessage>) -> Result<String, Unfit> {
        if let Some(error) = wire.error {
            return Err(Unfit::Reported(reported(&error)));
        }
        if let Some(usage) = wire.usage.and_then(WireUsage::into_usage) {
            self.usage = Some(usage);
        }
        // Only one choice is asked for.
        let Some(mut choice) = wire
            .choices
            .unwrap_or_default()
            .into_iter()
            .find(|choice| choice.index.unwrap_or(0) == 0)
        else {
            return Ok(String::new());
        };
        if let Some(reason) = choice.finish_reason.take().filter(|reason| !reason.is_empty()) {
            self.finish_reason = Some(reason);
        }
        let Some(message) = said(choice) else {
            return Ok(String::new());
        };
        self.refusal.push_str(message.refusal.as_deref().unwrap_or_default());
        for (position, call) in message.tool_calls.unwrap_or_default().into_iter().enumerate() {
            self.add_call(position, call);
        }
        let text = message.content.map(Content::into_text).unwrap_or_default();
        self.text.push_str(&text);
        Ok(text)
    }

    /// Adds a call, or a piece of one: servers tell by the index which call it belongs to, or else by a new id.
    fn add_call(&mut self, position: usize, call: WireCall) {
        let next = self
            .calls
            .last_key_value()
            .map_or(0, |(last, _)| last.saturating_add(1));
        let index = match call.index {
            // Some servers give every call the same index.
            Some(index) if self.has_other_id(index, call.id.as_deref()) => next,
            Some(index) => index,
            None if call.id.is_none() && next > 0 => (next - 1).saturating_add(position as u64),
            None => next,
        };
        let entry = self.calls.entry(index).or_insert_with(|| ToolRequest {
            id: String::new(),
            name: String::new(),
            arguments: String::new(),
        });
        if let Some(id) = call.id.filter(|_| entry.id.is_empty()) {
            entry.id = id;
        }
        let Some(function) = call.function else { return };
        if let Some(name) = function.name.filter(|_| entry.name.is_empty()) {
            entry.name = name;
        }
        match function.arguments {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => entry.arguments.push_str(&text),
            // Some servers send the arguments themselves instead of their text.
            Some(value) => entry.arguments.push_str(&value.to_string()),
        }
    }

    fn has_other_id(&self, index: u64, id: Option<&str>) -> bool {
        let known = self.calls.get(&index).map_or("", |call| &call.id);
        id.is_some_and(|id| !id.is_empty() && !known.is_empty() && id != known)
    }

    /// Whether nothing at all was said.
    pub(crate) fn is_empty(&self) -> bool {
        !self.is_finished() && self.text.is_empty() && self.refusal.is_empty() && self.calls.is_empty()
    }

    /// Whether the endpoint said that the completion is complete.
    pub(crate) fn is_finished(&self) -> bool {
        self.finish_reason.is_some()
    }

    pub(crate) fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// The reply that it is.
    pub(crate) fn into_reply(self, names: &Names, form: Form) -> Result<LlmReply, Problem> {
        let nothing = self.text.is_empty() && self.calls.is_empty();
        match self.finish_reason.as_deref() {
            Some("length") if !nothing && self.is_cut_off(form) => return Err(Problem::CutOff),
            _ if !nothing => {}
            _ if !self.refusal.is_empty() => {
                return Err(Problem::Refusal {
                    message: message::one_line(&self.refusal),
                });
            }
            Some("length") => return Err(Problem::Length),
            Some("content_filter") => return Err(Problem::ContentFilter),
            _ => {}
        }
        let mut reply = LlmReply::tool_calls(self.calls.into_values().map(|call| ToolRequest {
            name: names.meant(call.name),
            ..call
        }));
        reply.text = match form {
            Form::Wrapped => schema::unwrapped(self.text).map_err(|error| Problem::Invalid {
                reason: format!("its text is no whole JSON: {error}"),
            })?,
            Form::Free | Form::Json => self.text,
        };
        reply.usage = self.usage;
        Ok(reply)
    }

    /// Whether what was asked for is not all there. Without a schema, half a text is a text, too.
    fn is_cut_off(&self, form: Form) -> bool {
        let cut_call = |call: &ToolRequest| !call.arguments.trim().is_empty() && !schema::is_json(&call.arguments);
        let cut_text = form != Form::Free && !self.text.is_empty() && !schema::is_json(&self.text);
        cut_text && self.calls.is_empty() || self.calls.values().any(cut_call)
    }
}

fn unreadable(error: serde_json::Error) -> Unfit {
    let reason = if error.is_data() {
        "its JSON has another form"
    } else {
        "it is no JSON"
    };
    Unfit::Invalid(format!("{reason}: {error}"))
}

fn reported(error: &Value) -> Reported {
    let status = ["status", "status_code", "code"].iter().find_map(|field| {
        let value = error.get(*field)?;
        let number = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
        u16::try_from(number).ok()
    });
    Reported {
        message: message::of_error(error).unwrap_or_else(|| "without a message".to_owned()),
        status,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn whole(body: Value) -> Result<LlmReply, Problem> {
        let completion = Completion::whole(body.to_string().as_bytes()).expect("a completion");
        completion.into_reply(&Names::default(), Form::Free)
    }

    fn message(message: Value, finish_reason: &str) -> Value {
        json!({"choices": [{"index": 0, "message": message, "finish_reason": finish_reason}]})
    }

    #[test]
    fn text_comes_in_more_than_one_form() {
        for content in [
            json!("hello"),
            json!([{"type": "text", "text": "hel"}, {"type": "x"}, {"text": "lo"}]),
        ] {
            let reply = whole(message(json!({"role": "assistant", "content": content}), "stop")).unwrap();
            assert_eq!(reply, LlmReply::text("hello"));
        }
    }

    #[test]
    fn what_has_no_text_says_why() {
        let empty = json!({"content": null});
        assert!(matches!(whole(message(empty.clone(), "length")), Err(Problem::Length)));
        assert!(matches!(
            whole(message(empty.clone(), "content_filter")),
            Err(Problem::ContentFilter)
        ));
        assert_eq!(whole(message(empty, "stop")).unwrap(), LlmReply::text(""));
        let refused = json!({"content": null, "refusal": "I can't help with that."});
        let error = whole(message(refused, "stop")).unwrap_err();
        assert_eq!(error.to_string(), "the LLM refused: I can't help with that.");
        // A text that was cut off is still a text: the engine sees whether it will do.
        assert_eq!(whole(message(json!({"content": "hel"}), "length")).unwrap().text, "hel");
    }

    #[test]
    fn what_is_not_the_reply_does_not_spoil_it() {
        let counts =
            |prompt: Value, completion: Value| json!({"prompt_tokens": prompt, "completion_tokens": completion});
        let usage = |prompt_tokens, completion_tokens| {
            Some(Usage {
                prompt_tokens,
                completion_tokens,
            })
        };
        for (odd, expected) in [
            (counts(json!(11.0), json!(2)), usage(11, 2)),
            (counts(json!(-1), json!(2)), usage(0, 2)),
            (counts(json!("3"), json!([])), None),
            (counts(json!(1.5), json!(1e300)), None),
            (counts(json!(u64::MAX), json!(null)), usage(u64::MAX, 0)),
            (json!([]), None),
            (json!("none"), None),
            (json!({}), None),
        ] {
            let mut body = message(json!({"content": "paid", "refusal": false}), "stop");
            body["usage"] = odd.clone();
            let reply = whole(body).unwrap();
            assert_eq!((reply.text.as_str(), reply.usage), ("paid", expected), "{odd}");
        }
        for choice in [
            json!({"index": "0", "message": {"content": "paid"}, "finish_reason": 1}),
            json!({"message": {"content": "paid"}, "delta": {}, "finish_reason": ["stop"]}),
            json!({"message": null, "delta": {"content": "paid"}}),
        ] {
            assert_eq!(whole(json!({"choices": [choice]})).unwrap(), LlmReply::text("paid"));
        }
        let mut pieces = Completion::default();
        let piece =
            json!({"choices": [{"delta": {"content": "new"}, "message": {"content": "all"}, "finish_reason": 0}]});
        assert_eq!(pieces.add_piece(&piece.to_string()).unwrap(), "new");
    }

    #[test]
    fn half_of_what_was_asked_for_is_no_reply() {
        let reply = |text: &str, reason: &str, form| {
            let body = message(json!({"content": text}), reason).to_string();
            let completion = Completion::whole(body.as_bytes()).expect("a completion");
            completion.into_reply(&Names::default(), form).map(|reply| reply.text)
        };
        let half = r#"{"value": "half a sen"#;
        for form in [Form::Json, Form::Wrapped] {
            for text in [half, "half a sen"] {
                assert!(matches!(reply(text, "length", form), Err(Problem::CutOff)), "{text}");
            }
        }
        assert_eq!(reply(half, "length", Form::Free).unwrap(), half);
        // The engine asks again for what the LLM got wrong by itself, unless it could take it for the reply.
        assert_eq!(reply(half, "stop", Form::Json).unwrap(), half);
        assert!(matches!(
            reply(half, "stop", Form::Wrapped),
            Err(Problem::Invalid { .. })
        ));
        // All of it was there in time.
        assert_eq!(reply(r#"{"value": "a"}"#, "length", Form::Wrapped).unwrap(), r#""a""#);
        assert_eq!(reply("[1]\n", "length", Form::Json).unwrap(), "[1]\n");
    }

    #[test]
    fn half_a_call_is_no_call() {
        let call = |arguments: &str| {
            let calls = json!([{"id": "a", "function": {"name": "f", "arguments": arguments}}]);
            whole(message(json!({"content": "I will", "tool_calls": calls}), "length"))
        };
        assert!(matches!(call("{\"x\": "), Err(Problem::CutOff)));
        assert_eq!(call("{\"x\": 1}").unwrap().tool_calls.len(), 1);
        assert_eq!(call("").unwrap().tool_calls.len(), 1);
    }

    #[test]
    fn calls_are_put_together_from_pieces() {
        let by_index = [
            json!([{"index": 1, "id": "b", "type": "function", "function": {"name": "second", "arguments": ""}}]),
            json!([{"index": 0, "id": "a", "function": {"name": "first", "arguments": "{\"x\""}}]),
            json!([{"index": 0, "function": {"arguments": ": 1}"}}, {"index": 1, "function": {"arguments": "{}"}}]),
        ];
        let by_id = [
            json!([{"id": "a", "function": {"name": "first", "arguments": "{\"x\""}}]),
            json!([{"function": {"arguments": ": 1}"}}]),
            json!([{"id": "b", "function": {"name": "second", "arguments": {}}}]),
        ];
        let by_both = [
            json!([{"index": 0, "id": "a", "function": {"name": "first", "arguments": "{\"x\": 1}"}}]),
            json!([{"index": 0, "id": "b", "function": {"name": "second", "arguments": "{}"}}]),
            json!([{"index": 0, "id": "", "function": {}}]),
        ];
        for pieces in [by_index, by_id, by_both] {
            let mut completion = Completion::default();
            for calls in pieces {
                let piece = json!({"choices": [{"index": 0, "delta": {"tool_calls": calls}}]});
                assert_eq!(completion.add_piece(&piece.to_string()).unwrap(), "");
            }
            let reply = completion.into_reply(&Names::default(), Form::Free).unwrap();
            let calls: Vec<_> = reply
                .tool_calls
                .iter()
                .map(|call| (&*call.id, &*call.name, &*call.arguments))
                .collect();
            assert_eq!(calls, [("a", "first", "{\"x\": 1}"), ("b", "second", "{}")]);
        }
    }

    #[test]
    fn odd_indices_do_no_harm() {
        let mut completion = Completion::default();
        for index in [json!(u64::MAX), json!(null), json!(u64::MAX)] {
            let calls = json!([{"index": index}, {"id": "x"}, {"function": null}, {"function": {"name": "f"}}]);
            let piece = json!({"choices": [{"index": null, "delta": {"tool_calls": calls}, "finish_reason": ""}]});
            completion.add_piece(&piece.to_string()).unwrap();
        }
        assert!(!completion.is_finished());
    }

    #[test]
    fn what_is_no_completion_is_told() {
        let unfit = |body: &str| match Completion::whole(body.as_bytes()).unwrap_err() {
            Unfit::Invalid(reason) => reason.split(':').next().unwrap_or_default().to_owned(),
            Unfit::Reported(reported) => format!("{} {:?}", reported.message, reported.status),
        };
        assert_eq!(unfit("not json"), "it is no JSON");
        assert_eq!(unfit("[1]"), "its JSON has another form");
        assert_eq!(unfit(r#"{"choices": "x"}"#), "its JSON has another form");
        assert_eq!(unfit(r#"{"choices": []}"#), "it has no `choices`");
        assert_eq!(unfit("{}"), "it has no `choices`");
        assert_eq!(
            unfit(r#"{"error": {"message": "busy", "code": "503"}}"#),
            "busy (code: 503) Some(503)"
        );
        assert_eq!(unfit(r#"{"error": "busy"}"#), "busy None");
    }
}
