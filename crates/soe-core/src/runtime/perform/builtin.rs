//! Calls of built-in tools: messages to the coordinators of the executions that they are about.

use soe_backends::Value;
use tokio::sync::oneshot;

use super::super::shared::Message;
use super::Performer;
use crate::machine::{BuiltinCall, BuiltinRequest, ToolCall, ToolFailure};

impl Performer {
    pub(super) async fn builtin_result(&self, call: ToolCall) -> Result<Value, ToolFailure> {
        let request = BuiltinRequest::Arguments(call.arguments.clone());
        self.ask_own(&call, request).await
    }

    /// Gives a call to the execution that makes it.
    async fn ask_own(&self, call: &ToolCall, request: BuiltinRequest) -> Result<Value, ToolFailure> {
        let (reply, answer) = oneshot::channel();
        let call = Box::new(BuiltinCall {
            execution: None,
            run: call.run,
            index: call.index,
            node: call.node.name.clone(),
            tool: call.tool.clone(),
            request,
        });
        let gone = || failed("the execution is not active any more");
        self.mailbox
            .send(Message::Builtin { call, reply })
            .await
            .map_err(|_| gone())?;
        match answer.await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(failed(&format!("{error:#}"))),
            Err(_) => Err(gone()),
        }
    }
}

fn failed(message: &str) -> ToolFailure {
    ToolFailure {
        message: message.into(),
        retryable: false,
    }
}
