//! What an application implements to be called.

use std::any::Any;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::Value;

use super::{ToolContext, ToolError};

/// A tool: takes JSON, returns JSON or an error, may await.
///
/// Async functions and closures `|arguments: serde_json::Value, context: ToolContext| async { ... }` whose result is
/// `Result<impl Serialize, ToolError>` are tools; [`tool_fn`](super::tool_fn) makes tools of functions with typed
/// arguments. Implement the trait for a type that carries what its calls need.
///
/// A call may happen more than once (see [`ToolContext::idempotency_key`]), many calls may be in flight at the same time,
/// and a call's future is dropped when nobody waits for it any more. A tool must not wait for an execution of the engine
/// that calls it: `child` nodes are for that.
///
/// ```
/// use serde_json::{Value, json};
/// use soe_core::tools::{Tool, ToolContext, ToolError, raw_tool};
///
/// struct Greeter {
///     greeting: String,
/// }
///
/// #[async_trait::async_trait]
/// impl Tool for Greeter {
///     async fn call(&self, arguments: Value, _context: ToolContext) -> Result<Value, ToolError> {
///         let name = arguments["name"].as_str().ok_or_else(|| ToolError::new("who?").no_retry())?;
///         Ok(json!(format!("{} {name}", self.greeting)))
///     }
/// }
///
/// let greeter = Greeter { greeting: "Hello".into() };
/// let tool = raw_tool("greet", "Greets somebody.", greeter);
/// ```
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a tool",
    label = "not a tool",
    note = "a tool is an async function `(serde_json::Value, ToolContext) -> Result<impl Serialize, ToolError>`, or a type that implements `Tool`",
    note = "the future of an async function must be `Send`, and a closure must be `Fn + Send + Sync + 'static`",
    note = "for arguments of a type of yours, see `tool_fn`"
)]
pub trait Tool: Send + Sync + 'static {
    /// Runs the tool with arguments that have been checked against its schema.
    ///
    /// # Errors
    /// Whatever keeps it from giving a result.
    async fn call(&self, arguments: Value, context: ToolContext) -> Result<Value, ToolError>;
}

// The error type is fixed, the result's is not: with both open, a closure's `Ok(...)` and `?` would need annotations.
#[async_trait]
impl<F, Fut, R> Tool for F
where
    F: Fn(Value, ToolContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, ToolError>> + Send,
    R: Serialize + 'static,
{
    async fn call(&self, arguments: Value, context: ToolContext) -> Result<Value, ToolError> {
        let result = self(arguments, context).await?;
        result_to_json(result)
    }
}

/// A result that is no JSON stays none in the next attempt. One that is JSON already is taken as it is: serialising it
/// would copy it, and recurse into whatever depth it has.
pub(super) fn result_to_json<R: Serialize + 'static>(result: R) -> Result<Value, ToolError> {
    let mut result = Some(result);
    if let Some(json) = (&mut result as &mut dyn Any).downcast_mut::<Option<Value>>() {
        return Ok(json.take().unwrap_or_default());
    }
    serde_json::to_value(result).map_err(|error| ToolError::new(ResultNotJson(error)).no_retry())
}

/// A tool's result that can't be written as JSON.
#[derive(Debug, thiserror::Error)]
#[error("the result can't be written as JSON")]
struct ResultNotJson(#[source] serde_json::Error);

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    async fn call(tool: impl Tool, arguments: Value) -> Result<Value, ToolError> {
        let tool: Arc<dyn Tool> = Arc::new(tool);
        tool.call(arguments, ToolContext::for_tests().build()).await
    }

    #[tokio::test]
    async fn functions_and_closures_are_tools() {
        async fn double(arguments: Value, _: ToolContext) -> Result<Value, ToolError> {
            let number = arguments["x"]
                .as_i64()
                .ok_or_else(|| ToolError::new("x is no number"))?;
            Ok(json!(2 * number))
        }
        assert_eq!(call(double, json!({"x": 4})).await.unwrap(), 8);
        assert_eq!(call(double, json!({})).await.unwrap_err().to_string(), "x is no number");

        let prefix = Arc::new("run".to_owned());
        let name = move |_: Value, context: ToolContext| {
            let prefix = prefix.clone();
            async move { Ok(format!("{prefix} {}", context.run_id())) }
        };
        assert_eq!(call(name, Value::Null).await.unwrap(), "run test:1");

        let parse = async |arguments: Value, _: ToolContext| {
            let number: u8 = arguments.as_str().unwrap_or_default().parse()?;
            Ok(number)
        };
        assert_eq!(call(parse, json!("7")).await.unwrap(), 7);
        assert!(
            call(parse, json!("x"))
                .await
                .unwrap_err()
                .is::<std::num::ParseIntError>()
        );
    }

    #[tokio::test]
    async fn a_result_that_is_no_json_is_an_error_that_no_retry_helps() {
        let pairs = |_: Value, _: ToolContext| async { Ok(HashMap::from([((1, 2), 3)])) };
        let error = call(pairs, Value::Null).await.unwrap_err();
        assert!(!error.is_retryable());
        assert!(error.source().is_some());
    }
}
