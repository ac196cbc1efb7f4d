//! Replies that arrive piece by piece.

use serde_json::json;
use soe_core::llm::{LlmCaller, LlmErrorKind, ToolOffer};
use soe_llm_openai::{OpenAiError, Problem};
use wiremock::ResponseTemplate;

use crate::support::{
    Act, KEY, Raw, ask, builder, chunk, completion, count, end, events, failure, head, last_piece, ok, piece, sent,
    server, stream, streamed,
};

fn whole_stream() -> String {
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}});
    events(&[piece(""), piece("Grüße "), piece("🦀"), last_piece(), usage]) + "data: [DONE]\n\n"
}

#[tokio::test]
async fn text_is_passed_on_as_it_arrives_and_is_the_reply_together() {
    let server = server(stream(whole_stream())).await;
    let caller = builder(&server.uri()).build().unwrap();
    let (request, seen) = streamed();
    let reply = caller.call(request).await.unwrap();
    assert_eq!(reply.text, "Grüße 🦀");
    assert_eq!(reply.usage.unwrap().total(), 10);
    assert_eq!(*seen.lock().unwrap(), ["Grüße ", "🦀"]);
    let body = sent(&server).await;
    assert_eq!(
        (&body["stream"], &body["stream_options"]),
        (&json!(true), &json!({"include_usage": true}))
    );
}

#[tokio::test]
async fn streams_are_asked_for_only_if_wanted_and_allowed() {
    let first = server(ok(completion("hi"))).await;
    ask(&builder(&first.uri()).build().unwrap()).await.unwrap();
    assert!(sent(&first).await.get("stream").is_none());

    let second = server(ok(completion("hi"))).await;
    let caller = builder(&second.uri()).streaming(false).build().unwrap();
    assert!(!caller.capabilities().streaming);
    caller.call(streamed().0).await.unwrap();
    assert!(sent(&second).await.get("stream").is_none());

    let third = server(stream(whole_stream())).await;
    builder(&third.uri())
        .stream_usage(false)
        .build()
        .unwrap()
        .call(streamed().0)
        .await
        .unwrap();
    let body = sent(&third).await;
    assert!(body["stream"] == json!(true) && body.get("stream_options").is_none());
}

#[tokio::test]
async fn it_does_not_matter_how_a_stream_is_cut() {
    let text = whole_stream().replace('\n', "\r\n");
    for size in [1, 2, 3, 7, 50] {
        let chunks = text.as_bytes().chunks(size).flat_map(|bytes| match chunk(bytes) {
            Act::Send(bytes) => bytes,
            _ => Vec::new(),
        });
        let script = vec![
            head("text/event-stream"),
            chunk(": hello\n\n"),
            Act::Send(chunks.collect()),
            end(),
        ];
        let server = Raw::start(vec![script]).await;
        let (request, seen) = streamed();
        let reply = builder(&server.url).build().unwrap().call(request).await.unwrap();
        assert_eq!(reply.text, "Grüße 🦀");
        assert_eq!(seen.lock().unwrap().concat(), "Grüße 🦀");
    }
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_understood_too() {
    let server = server(ok(completion("hi"))).await;
    let (request, seen) = streamed();
    assert_eq!(
        builder(&server.uri())
            .build()
            .unwrap()
            .call(request)
            .await
            .unwrap()
            .text,
        "hi"
    );
    assert_eq!(*seen.lock().unwrap(), ["hi"]);
}

#[tokio::test]
async fn a_whole_reply_is_known_by_its_first_character() {
    let body = completion("hi").to_string();
    let (first, rest) = body.split_at(1);
    for content_type in ["text/plain", "application/octet-stream", "text/event-stream", ""] {
        let script = vec![head(content_type), chunk(" \r\n"), chunk(first), chunk(rest), end()];
        let server = Raw::start(vec![script]).await;
        let (request, seen) = streamed();
        let reply = builder(&server.url).build().unwrap().call(request).await.unwrap();
        assert_eq!((reply.text.as_str(), server.requests()), ("hi", 1), "{content_type}");
        assert_eq!(*seen.lock().unwrap(), ["hi"]);
    }
}

#[tokio::test]
async fn calls_of_tools_are_put_together_from_their_pieces() {
    let calls = |calls| json!({"choices": [{"index": 0, "delta": {"tool_calls": calls}, "finish_reason": null}]});
    let name = json!({"name": "crm_find", "arguments": ""});
    let text = events(&[
        calls(json!([{"index": 0, "id": "a", "type": "function", "function": name}])),
        calls(json!([{"index": 0, "function": {"arguments": "{\"x\""}}])),
        calls(json!([{"index": 1, "id": "b", "type": "function", "function": {"name": "plain", "arguments": "{}"}}])),
        calls(json!([{"index": 0, "function": {"arguments": ": 1}"}}])),
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}),
    ]) + "data: [DONE]\n\n";
    let server = server(stream(text)).await;
    let (mut request, seen) = streamed();
    let tool = ToolOffer {
        name: "crm.find".into(),
        description: "".into(),
        parameters: std::sync::Arc::new(json!({})),
    };
    request.tools = [tool].into();
    let reply = builder(&server.uri())
        .native_tools(true)
        .build()
        .unwrap()
        .call(request)
        .await
        .unwrap();
    let calls: Vec<_> = reply
        .tool_calls
        .iter()
        .map(|call| (&*call.id, &*call.name, &*call.arguments))
        .collect();
    assert_eq!(calls, [("a", "crm.find", "{\"x\": 1}"), ("b", "plain", "{}")]);
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_wrapped_reply_is_shown_unwrapped() {
    let text = events(&[piece("{\"value\""), piece(": [1]}"), last_piece()]) + "data: [DONE]\n\n";
    let server = server(stream(text)).await;
    let (request, seen) = streamed();
    let request = request.with_schema(json!({"type": "array"}));
    let reply = builder(&server.uri())
        .structured_output(true)
        .build()
        .unwrap()
        .call(request)
        .await
        .unwrap();
    assert_eq!(reply.text, "[1]");
    assert_eq!(*seen.lock().unwrap(), ["[1]"]);
}

#[tokio::test]
async fn a_stream_that_ends_too_early_is_an_error_and_is_not_repeated() {
    let half = || chunk(events(&[piece("half")]));
    let cut_off = chunk("data: {\"choices\": [{\"index\": 0, \"delta\"");
    for script in [
        vec![head("text/event-stream"), half()],
        vec![head("text/event-stream"), half(), end()],
        vec![head("text/event-stream"), half(), cut_off, end()],
        vec![head("text/event-stream"), half(), Act::Send(b"no chunk\r\n".to_vec())],
    ] {
        let server = Raw::start(vec![script]).await;
        let (request, seen) = streamed();
        let error = failure(&builder(&server.url).build().unwrap(), request).await;
        assert_eq!(error.kind(), LlmErrorKind::Connection);
        assert!(
            error
                .to_string()
                .ends_with("the connection broke before the reply was complete"),
            "{error}"
        );
        assert_eq!(*seen.lock().unwrap(), ["half"]);
        assert_eq!(server.requests(), 1);
    }
}

#[tokio::test]
async fn a_stream_that_breaks_before_its_first_text_is_repeated() {
    let good = vec![head("text/event-stream"), chunk(whole_stream()), end()];
    let broken = vec![head("text/event-stream"), chunk(events(&[piece("")]))];
    let server = Raw::start(vec![broken, good]).await;
    let (request, seen) = streamed();
    let reply = builder(&server.url).build().unwrap().call(request).await.unwrap();
    assert_eq!((reply.text.as_str(), server.requests()), ("Grüße 🦀", 2));
    assert_eq!(seen.lock().unwrap().concat(), "Grüße 🦀");
}

#[tokio::test]
async fn a_stream_is_complete_once_it_says_so() {
    let finished = || chunk(events(&[piece("all"), last_piece()]));
    let done = chunk("data: [DONE]\n\n");
    let unended = chunk(format!("data: {}\n\ndata: [DONE]", piece("all")));
    for script in [
        vec![head("text/event-stream"), finished()],
        vec![head("text/event-stream"), finished(), end()],
        vec![head("text/event-stream"), finished(), done.clone(), Act::Hang],
        vec![head("text/event-stream"), chunk(events(&[piece("all")])), done, end()],
        vec![head("text/event-stream"), unended, end()],
        vec![head("text/plain"), finished(), end()],
    ] {
        let server = Raw::start(vec![script]).await;
        let reply = builder(&server.url).build().unwrap().call(streamed().0).await.unwrap();
        assert_eq!((reply.text.as_str(), server.requests()), ("all", 1));
    }
}

#[tokio::test]
async fn an_error_in_the_stream_is_the_calls_error() {
    let error = json!({"error": {"message": format!("lost the worker of {KEY}"), "code": 500}});
    let server = server(stream(events(&[piece("half"), error]))).await;
    let (request, seen) = streamed();
    let failure = failure(&builder(&server.uri()).build().unwrap(), request).await;
    assert!(
        failure
            .to_string()
            .ends_with("the endpoint reported an error: lost the worker of [hidden]"),
        "{failure}"
    );
    assert_eq!(*seen.lock().unwrap(), ["half"]);
    assert_eq!(count(&server).await, 1);
}

#[tokio::test]
async fn a_stream_that_makes_no_sense_says_so() {
    for (text, reason) in [
        ("data: {\"choices\"\n\n".to_owned(), "it is no JSON"),
        ("data: [DONE]\n\n".to_owned(), "the stream has no `choices`"),
        (events(&[json!({"choices": 1})]), "its JSON has another form"),
    ] {
        let server = server(stream(text)).await;
        let error = failure(&builder(&server.uri()).build().unwrap(), streamed().0).await;
        assert_eq!((error.kind(), count(&server).await), (LlmErrorKind::InvalidResponse, 1));
        let problem = error.downcast_ref::<OpenAiError>().unwrap().problem();
        assert!(
            matches!(problem, Problem::Invalid { reason: text } if text.contains(reason)),
            "{problem}"
        );
    }
}

#[tokio::test]
async fn a_page_in_place_of_a_stream_is_described() {
    let page = ResponseTemplate::new(200).set_body_raw("<html><title>Sign in</title></html>", "text/html");
    let server = server(page).await;
    let error = failure(&builder(&server.uri()).build().unwrap(), streamed().0).await;
    assert!(
        error.to_string().ends_with("it is an HTML page titled 'Sign in'"),
        "{error}"
    );
}

#[tokio::test]
async fn a_stream_can_refuse_or_end_without_text() {
    let refused = json!({"choices": [{"index": 0, "delta": {"refusal": "I won't."}, "finish_reason": "stop"}]});
    let cut = json!({"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "length"}]});
    for (piece, text) in [(refused, "the LLM refused: I won't."), (cut, "raise `max_tokens`")] {
        let server = server(stream(events(&[piece]) + "data: [DONE]\n\n")).await;
        let error = failure(&builder(&server.uri()).build().unwrap(), streamed().0).await;
        assert!(error.to_string().ends_with(text), "{error}");
    }
}
