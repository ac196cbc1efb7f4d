//! How an application describes a tool that it registers.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tool::result_to_json;
use super::{ArgumentProblem, ArgumentsError, InvalidSchema, Tool, ToolContext, ToolError, ToolSpec};

/// A tool with typed arguments: their schema is derived from `A`, and they are deserialised before `call` sees them.
///
/// `A` is a struct whose fields are the tool's parameters (doc comments become their descriptions), [`NoArguments`], or,
/// with [`process_accumulated`](ToolDefinition::process_accumulated), a `Vec`.
///
/// ```
/// use schemars::JsonSchema;
/// use serde::{Deserialize, Serialize};
/// use soe_core::tools::tool_fn;
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Lookup {
///     /// The customer's number.
///     customer: u64,
/// }
///
/// #[derive(Serialize)]
/// struct Customer {
///     name: String,
/// }
///
/// let tool = tool_fn("lookup", "Finds a customer.", |args: Lookup, _ctx| async move {
///     Ok(Customer { name: format!("Customer {}", args.customer) })
/// })
/// .retries(3)
/// .failure_signal("LOOKUP_FAILED");
/// ```
pub fn tool_fn<A, R, F, Fut>(name: impl Into<Arc<str>>, description: impl Into<String>, call: F) -> ToolDefinition
where
    A: DeserializeOwned + JsonSchema + Send + 'static,
    R: Serialize + 'static,
    F: Fn(A, ToolContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, ToolError>> + Send + 'static,
{
    let name = name.into();
    let tool = TypedTool {
        name: name.clone(),
        call,
        arguments: PhantomData,
    };
    raw_tool(name, description, tool).arguments::<A>()
}

/// A tool that takes JSON as it comes. Without a schema it accepts everything, see [`ToolDefinition::schema`].
///
/// ```
/// use serde_json::{Value, json};
/// use soe_core::tools::{ToolContext, raw_tool};
///
/// let tool = raw_tool("echo", "Returns its arguments.", |args: Value, _: ToolContext| async { Ok(args) });
/// let tool = tool.schema(json!({"type": "object", "properties": {"text": {"type": "string"}}}));
/// ```
pub fn raw_tool(name: impl Into<Arc<str>>, description: impl Into<String>, tool: impl Tool) -> ToolDefinition {
    ToolDefinition {
        name: name.into(),
        description: description.into(),
        schema: Value::Object(serde_json::Map::new()),
        max_retries: 0,
        failure_signal: None,
        process_accumulated: false,
        timeout: None,
        max_concurrency: None,
        tool: Arc::new(tool),
    }
}

/// The arguments of a tool that takes none.
///
/// ```
/// use soe_core::tools::{NoArguments, tool_fn};
///
/// let tool = tool_fn("ping", "Says pong.", |_: NoArguments, _| async { Ok("pong") });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoArguments {}

/// A tool and all that is said about it, ready to be [registered](super::ToolRegistry::register).
#[must_use = "a tool has to be registered"]
pub struct ToolDefinition {
    name: Arc<str>,
    description: String,
    schema: Value,
    max_retries: u32,
    failure_signal: Option<Arc<str>>,
    process_accumulated: bool,
    timeout: Option<Duration>,
    max_concurrency: Option<usize>,
    tool: Arc<dyn Tool>,
}

impl ToolDefinition {
    /// The JSON Schema of the arguments. It is checked when the tool is registered.
    pub fn schema(self, schema: Value) -> Self {
        Self { schema, ..self }
    }

    /// Takes the schema of the arguments from a type.
    pub fn arguments<A: JsonSchema>(self) -> Self {
        self.schema(schemars::schema_for!(A).to_value())
    }

    /// How often a failed run is tried again; 0 if it isn't said.
    pub fn retries(self, max_retries: u32) -> Self {
        Self { max_retries, ..self }
    }

    /// The signal that is emitted when the tool has failed for good.
    pub fn failure_signal(self, signal: impl Into<Arc<str>>) -> Self {
        Self {
            failure_signal: Some(signal.into()),
            ..self
        }
    }

    /// The longest that one attempt may take. After that it has failed with [`ToolTimeout`](super::ToolTimeout).
    pub fn timeout(self, limit: Duration) -> Self {
        Self {
            timeout: Some(limit),
            ..self
        }
    }

    /// The most calls that may be in flight at a time, in the whole engine; further ones wait. At least one is let through.
    pub fn concurrency(self, most: usize) -> Self {
        Self {
            max_concurrency: Some(most.max(1)),
            ..self
        }
    }

    /// A node with `context_parameter_field` passes the field's whole history, a list, as the single argument.
    pub fn process_accumulated(self) -> Self {
        Self {
            process_accumulated: true,
            ..self
        }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn build(self) -> Result<(ToolSpec, Arc<dyn Tool>), InvalidSchema> {
        let mut spec = ToolSpec::new(self.name, self.description, self.schema)?;
        spec.max_retries = self.max_retries;
        spec.failure_signal = self.failure_signal;
        spec.process_accumulated = self.process_accumulated;
        spec.timeout = self.timeout;
        spec.max_concurrency = self.max_concurrency;
        Ok((spec, self.tool))
    }
}

impl fmt::Debug for ToolDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolDefinition")
            .field("name", &self.name)
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

struct TypedTool<A, F> {
    name: Arc<str>,
    call: F,
    // `fn(A)` and not `A`: the tool holds none, so it is `Sync` whatever `A` is.
    arguments: PhantomData<fn(A)>,
}

#[async_trait]
impl<A, R, F, Fut> Tool for TypedTool<A, F>
where
    A: DeserializeOwned + Send + 'static,
    R: Serialize + 'static,
    F: Fn(A, ToolContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, ToolError>> + Send,
{
    async fn call(&self, arguments: Value, context: ToolContext) -> Result<Value, ToolError> {
        let arguments = deserialize(&self.name, arguments)?;
        let result = (self.call)(arguments, context).await?;
        result_to_json(result)
    }
}

/// Arguments that satisfy the schema may yet not deserialise: a type can ask for more than its schema says.
fn deserialize<A: DeserializeOwned>(tool: &Arc<str>, arguments: Value) -> Result<A, ToolError> {
    serde_path_to_error::deserialize(arguments).map_err(|error| {
        let path = error.path().to_string();
        let problem = ArgumentProblem::Invalid {
            parameter: if path == "." { String::new() } else { path },
            message: error.into_inner().to_string(),
        };
        let error = ArgumentsError {
            tool: tool.clone(),
            problems: vec![problem],
            more: 0,
        };
        ToolError::from(error).no_retry()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Deserialize, JsonSchema)]
    struct Sum {
        /// What is added up.
        numbers: Vec<i64>,
        scale: Option<i64>,
    }

    async fn call(tool: ToolDefinition, arguments: Value) -> Result<Value, ToolError> {
        let (spec, tool) = tool.build().unwrap();
        spec.check_json(&arguments)?;
        tool.call(arguments, ToolContext::for_tests().build()).await
    }

    fn sum() -> ToolDefinition {
        tool_fn("sum", "Adds up.", |args: Sum, _| async move {
            Ok(args.numbers.iter().sum::<i64>() * args.scale.unwrap_or(1))
        })
    }

    #[tokio::test]
    async fn arguments_are_checked_and_typed() {
        assert_eq!(call(sum(), json!({"numbers": [1, 2]})).await.unwrap(), 3);
        assert_eq!(call(sum(), json!({"numbers": [1, 2], "scale": 2})).await.unwrap(), 6);
        let error = call(sum(), json!({"numbers": ["1"], "factor": 2})).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "Tool 'sum': parameter 'numbers[0]': \"1\" is not of type \"integer\"; \
             unexpected parameter: factor (it takes: numbers, scale)"
        );
    }

    #[test]
    fn doc_comments_describe_parameters() {
        let (spec, _) = sum().build().unwrap();
        let description = &spec.parameters()["properties"]["numbers"]["description"];
        assert_eq!(description, "What is added up.");
    }

    #[tokio::test]
    async fn a_type_may_ask_for_more_than_its_schema_says() {
        // A float without a fraction is an integer to JSON Schema, and none to serde.
        let error = call(sum(), json!({"numbers": [1.0]})).await.unwrap_err();
        assert!(!error.is_retryable());
        assert!(error.is::<ArgumentsError>());
        let text = error.to_string();
        assert!(
            text.starts_with("Tool 'sum': parameter 'numbers[0]': invalid type"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_tool_without_arguments_takes_none() {
        let ping = || tool_fn("ping", "", |_: NoArguments, _| async { Ok("pong") });
        assert_eq!(call(ping(), json!({})).await.unwrap(), "pong");
        let error = call(ping(), json!({"x": 1})).await.unwrap_err();
        assert_eq!(error.to_string(), "Tool 'ping': unexpected parameter: x");
    }

    #[tokio::test]
    async fn a_history_is_one_list() {
        let total = tool_fn("total", "", |scores: Vec<i64>, _| async move {
            Ok(scores.iter().sum::<i64>())
        });
        let total = total.process_accumulated();
        assert_eq!(call(total, json!([1, 2, 3])).await.unwrap(), 6);
    }

    #[tokio::test]
    async fn a_function_is_as_good_as_a_closure() {
        async fn first(args: Sum, context: ToolContext) -> Result<String, ToolError> {
            let first = args.numbers.first().ok_or_else(|| ToolError::new("empty"))?;
            Ok(format!("{}: {first}", context.node_name()))
        }
        let tool = tool_fn("first", "", first);
        assert_eq!(call(tool, json!({"numbers": [7]})).await.unwrap(), "test: 7");
    }

    #[test]
    fn the_options_end_up_in_the_spec() {
        let tool = sum()
            .retries(3)
            .failure_signal("NO")
            .timeout(Duration::from_secs(1))
            .concurrency(0);
        let (spec, _) = tool.process_accumulated().build().unwrap();
        assert_eq!((spec.max_retries, spec.failure_signal.as_deref()), (3, Some("NO")));
        assert_eq!(
            (spec.timeout, spec.max_concurrency),
            (Some(Duration::from_secs(1)), Some(1))
        );
        assert!(spec.process_accumulated);
    }
}
