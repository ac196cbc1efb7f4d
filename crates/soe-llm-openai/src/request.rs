//! The request as it is sent.

use serde_json::{Map, Value, json};
use soe_core::llm::{LlmRequest, Message, ToolRequest};

use crate::names::Names;
use crate::schema::Form;
use crate::{Problem, options, schema};

/// What decides about the form of requests.
#[derive(Clone, Debug)]
pub(crate) struct Format {
    /// Fields of every request.
    pub(crate) defaults: Map<String, Value>,
    pub(crate) structured_output: bool,
    pub(crate) native_tools: bool,
    pub(crate) streaming: bool,
    pub(crate) stream_usage: bool,
}

/// A request, ready to be sent any number of times.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) body: String,
    pub(crate) names: Names,
    /// What the reply's text has to be.
    pub(crate) form: Form,
    pub(crate) streamed: bool,
    /// About how many tokens it takes, the reply included.
    pub(crate) tokens: u64,
}

impl Prepared {
    pub(crate) fn new(request: &LlmRequest, format: &Format) -> Result<Self, Problem> {
        let mut fields = options::collect(&format.defaults, &request.config, &request.node)?;
        let model = fields.get("model").and_then(Value::as_str).unwrap_or_default();
        if model.is_empty() {
            return Err(Problem::NoModel {
                node: request.node.clone(),
            });
        }
        let names = Names::of(request);
        let messages: Result<Vec<_>, _> = request
            .messages
            .iter()
            .map(|message| on_wire(message, &names))
            .collect();
        fields.insert("messages".to_owned(), Value::Array(messages?));
        if format.native_tools && !request.tools.is_empty() {
            fields.insert("tools".to_owned(), offered(request, &names));
        }
        let form = match &request.schema {
            None => Form::Free,
            Some(schema) if format.structured_output && add_schema(&mut fields, schema) => Form::Wrapped,
            Some(_) => Form::Json,
        };
        let streamed = format.streaming && request.tokens.is_wanted();
        if streamed {
            fields.insert("stream".to_owned(), json!(true));
            if format.stream_usage {
                fields.insert("stream_options".to_owned(), json!({"include_usage": true}));
            }
        }
        let most = ["max_completion_tokens", "max_tokens"]
            .iter()
            .find_map(|name| fields.get(*name)?.as_u64());
        let body = Value::Object(fields).to_string();
        Ok(Self {
            tokens: (body.chars().count() as u64 / 4).saturating_add(most.unwrap_or(0)),
            body,
            names,
            form,
            streamed,
        })
    }
}

/// Asks for replies of the schema; says whether they are wrapped.
fn add_schema(fields: &mut Map<String, Value>, schema: &Value) -> bool {
    // Who sets the format in `llm_options` has a reason.
    if fields.contains_key("response_format") {
        return false;
    }
    let (schema, wrapped) = schema::for_endpoint(schema);
    let format = json!({
        "type": "json_schema",
        "json_schema": {"name": "reply", "schema": schema, "strict": false},
    });
    fields.insert("response_format".to_owned(), format);
    wrapped
}

fn on_wire(message: &Message, names: &Names) -> Result<Value, Problem> {
    Ok(match message {
        Message::User { content } => json!({"role": "user", "content": content}),
        Message::Assistant { content, tool_calls } if tool_calls.is_empty() => {
            json!({"role": "assistant", "content": content})
        }
        Message::Assistant { content, tool_calls } => {
            let content = (!content.is_empty()).then_some(content);
            let calls: Vec<_> = tool_calls.iter().map(|call| call_on_wire(call, names)).collect();
            json!({"role": "assistant", "content": content, "tool_calls": calls})
        }
        Message::Tool { id, content, .. } => json!({"role": "tool", "tool_call_id": id, "content": content}),
        _ => return Err(Problem::UnknownMessage),
    })
}

fn call_on_wire(call: &ToolRequest, names: &Names) -> Value {
    // Servers read the arguments of earlier calls, and some fail on an empty text.
    let arguments = if call.arguments.trim().is_empty() {
        "{}"
    } else {
        &call.arguments
    };
    json!({
        "id": call.id,
        "type": "function",
        "function": {"name": names.sent(&call.name), "arguments": arguments},
    })
}

fn offered(request: &LlmRequest, names: &Names) -> Value {
    let tools = request.tools.iter().map(|tool| {
        json!({
            "type": "function",
            "function": {
                "name": names.sent(&tool.name),
                "description": tool.description,
                "parameters": tool.parameters,
            },
        })
    });
    Value::Array(tools.collect())
}
