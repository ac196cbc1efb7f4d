//! Calls of built-in tools: messages to the coordinators of the executions that they are about, after a look into the stores
//! where that is needed.

use std::sync::Arc;

use serde_json::Value as Json;
use soe_backends::{ExecutionId, ExecutionState, History, ListQuery, Value};
use tokio::sync::oneshot;

use super::super::EngineError;
use super::super::shared::{BuiltinResult, Message};
use super::Task;
use crate::machine::{BuiltinCall, BuiltinRequest, ToolCall, ToolFailure};

/// So many executions are listed.
const MAX_LISTED: usize = 100;

/// So many signals of each are shown.
const LAST_SIGNALS: usize = 5;

impl Task {
    pub(super) async fn builtin_result(&self, call: ToolCall) -> BuiltinResult {
        match call.tool.as_ref() {
            "soe_call_tool" => self.call_by_name(call).await,
            "soe_copy_context" => self.copy_context(&call).await,
            "soe_list_contexts" => self.list_contexts(&call).await,
            _ => {
                self.ask_own(&call, BuiltinRequest::Arguments(call.arguments.clone()))
                    .await
            }
        }
    }

    /// Gives a call to the execution that makes it.
    async fn ask_own(&self, call: &ToolCall, request: BuiltinRequest) -> BuiltinResult {
        let (reply, answer) = oneshot::channel();
        let (execution, call) = (self.execution.id.clone(), Box::new(builtin_call(call, None, request)));
        let gone = || failed("the execution is not active any more");
        self.performer
            .mailbox
            .send(Box::new(Message::Builtin { execution, call, reply }))
            .await
            .map_err(|_| gone())?;
        match answer.await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(unavailable(&error)),
            Err(_) => Err(gone()),
        }
    }

    /// Gives a call to another execution, which is taken up if it isn't active.
    async fn ask_other(&self, execution: &ExecutionId, call: &ToolCall, request: BuiltinRequest) -> BuiltinResult {
        let call = builtin_call(call, Some(&self.execution.id), request);
        let message = |reply| Message::Builtin {
            execution: execution.clone(),
            call: Box::new(call.clone()),
            reply,
        };
        match self.performer.shared.ask(execution, message).await {
            Ok(result) => result,
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// Calls a tool of the application, if the execution allows it.
    async fn call_by_name(&self, call: ToolCall) -> BuiltinResult {
        let allowed = self
            .ask_own(&call, BuiltinRequest::Arguments(call.arguments.clone()))
            .await?;
        let name: Arc<str> = call.arguments["tool_name"].as_str().unwrap_or_default().into();
        let (Some(arguments), Some(tool)) = (allowed.get("call"), self.performer.shared.tools.get(&name)) else {
            return Ok(allowed);
        };
        let limits = [
            self.performer.shared.permits.tools.get(&name),
            self.performer.shared.permits.tasks.as_ref(),
        ];
        let _permits = match self.performer.permits(limits) {
            None => Vec::new(),
            Some(permits) => permits.await,
        };
        let context = self.context(call.run, call.attempt, &call.node.name, &call.node.config);
        let context = match call.index {
            Some(index) => context.for_call(index),
            None => context,
        };
        Ok(match tool.call_with_retries(arguments.to_json(), context).await {
            Ok(result) => Value::map([
                ("success", Value::Bool(true)),
                ("tool_name", Value::from(name)),
                ("result", Value::from(result).bounded()),
            ]),
            Err(error) => Value::map([
                ("error", Value::from(format!("tool '{name}' failed: {error}"))),
                ("tool_name", Value::from(name)),
            ]),
        })
    }

    async fn copy_context(&self, call: &ToolCall) -> BuiltinResult {
        let [source, target] = ["source_execution_id", "target_execution_id"]
            .map(|name| call.arguments[name].as_str().unwrap_or_default());
        let source = match self.reach(source).await {
            Ok(source) => source,
            Err(unreached) => return self.not_reached(call, unreached).await,
        };
        let target = match self.reach(target).await {
            Ok(target) => target.id.clone(),
            Err(unreached) => return self.not_reached(call, unreached).await,
        };
        let fields = copied(&call.arguments, &source).map_err(|error| failed(&error))?;
        let names = fields
            .iter()
            .map(|(from, to, _)| (from.clone(), Value::from(to.clone())));
        let answer = Value::map([
            ("status", Value::from("copied")),
            ("source_execution", Value::from(source.id.as_str())),
            ("target_execution", Value::from(target.as_str())),
            ("fields_copied", Value::map(names)),
        ]);
        let fields = fields.into_iter().map(|(_, to, history)| (to, history)).collect();
        let request = BuiltinRequest::Copy { fields, answer };
        match target == self.execution.id {
            true => self.ask_own(call, request).await,
            false => self.ask_other(&target, call, request).await,
        }
    }

    async fn list_contexts(&self, call: &ToolCall) -> BuiltinResult {
        let everywhere = self.performer.shared.specs.policy.allows_other_trees();
        let (trees, mut more) = match everywhere {
            true => self.all_trees().await?,
            false => (vec![self.performer.tree.clone()], false),
        };
        let include_current = call.arguments["include_current"] != Json::Bool(false);
        let mut contexts = Vec::new();
        for root in trees {
            // One that was deleted meanwhile is left out.
            let tree = self.performer.shared.find_tree(&root).await;
            let Some(tree) = tree.map_err(|error| unavailable(&error))? else {
                continue;
            };
            let executions = tree.executions.values();
            for state in executions.filter(|state| include_current || state.id != self.execution.id) {
                more |= contexts.len() >= MAX_LISTED;
                if more {
                    break;
                }
                contexts.push(described(state, &self.execution.id));
            }
        }
        let mut answer = vec![
            ("current_execution_id", Value::from(self.execution.id.as_str())),
            ("contexts", Value::list(contexts)),
        ];
        if more {
            let more = format!("these are {MAX_LISTED}; there are more");
            answer.push(("message", Value::from(more)));
        }
        Ok(Value::map(answer))
    }

    /// The newest trees, and whether there are more.
    async fn all_trees(&self) -> Result<(Vec<ExecutionId>, bool), ToolFailure> {
        let query = ListQuery {
            limit: MAX_LISTED,
            ..ListQuery::default()
        };
        let shared = &self.performer.shared;
        let page = shared.call(shared.backends.context().list(&query)).await;
        let page = page.map_err(|error| unavailable(&error))?;
        let roots = page.executions.into_iter().map(|root| root.id).collect();
        Ok((roots, page.next.is_some()))
    }

    /// The state of the execution that is meant, this one if none is named.
    async fn reach(&self, id: &str) -> Result<Arc<ExecutionState>, Unreached> {
        let id = match id {
            "" => self.execution.id.clone(),
            id => ExecutionId::new(id).map_err(|error| Unreached::Failed(failed(&error.to_string())))?,
        };
        let found = self.performer.shared.find(&id).await;
        let found = found.map_err(|error| Unreached::Failed(unavailable(&error)))?;
        let everywhere = self.performer.shared.specs.policy.allows_other_trees();
        match found {
            Some(state) if everywhere || *state.main_execution_id() == self.performer.tree => Ok(state),
            None if everywhere => Err(Unreached::Failed(failed(&format!("there is no execution '{id}'")))),
            // The same for one that doesn't exist: what there is elsewhere is not told.
            _ => Err(Unreached::Denied(format!(
                "execution '{id}' is not in this execution's tree"
            ))),
        }
    }

    async fn not_reached(&self, call: &ToolCall, unreached: Unreached) -> BuiltinResult {
        match unreached {
            Unreached::Failed(failure) => Err(failure),
            Unreached::Denied(reason) => self.ask_own(call, BuiltinRequest::Deny(reason)).await,
        }
    }
}

/// Why another execution isn't reached.
enum Unreached {
    Failed(ToolFailure),
    Denied(String),
}

fn builtin_call(call: &ToolCall, execution: Option<&ExecutionId>, request: BuiltinRequest) -> BuiltinCall {
    BuiltinCall {
        execution: execution.cloned(),
        run: call.run,
        index: call.index,
        node: call.node.name.clone(),
        tool: call.tool.clone(),
        request,
    }
}

/// A field that is to be copied: its name in the source, its name in the target, its history.
type Copied = (Arc<str>, Arc<str>, History);

fn copied(arguments: &Json, source: &ExecutionState) -> Result<Vec<Copied>, String> {
    let fields = &source.context.fields;
    if arguments["all_fields"] == true {
        let all = fields.iter();
        return Ok(all
            .map(|(name, history)| (name.clone(), name.clone(), history.clone()))
            .collect());
    }
    let Some(wanted) = arguments["fields"].as_object().filter(|fields| !fields.is_empty()) else {
        return Err("it needs either 'fields' (name in the source: name in the target) or 'all_fields: true'".into());
    };
    let copy = |(from, to): (&String, &Json)| match source.context.history(from) {
        Some(history) => Ok((
            Arc::from(from.as_str()),
            Arc::from(to.as_str().unwrap_or(from)),
            history.clone(),
        )),
        None => {
            let known: Vec<&str> = fields.iter().map(|(name, _)| name.as_ref()).take(50).collect();
            let known = known.join(", ");
            Err(format!(
                "execution {} has no field '{from}'; there are: {known}",
                source.id
            ))
        }
    };
    wanted.iter().map(copy).collect()
}

fn described(state: &ExecutionState, current: &ExecutionId) -> Value {
    let operational = &state.context.operational;
    let signals = &operational.signals;
    let last = (signals.len().saturating_sub(LAST_SIGNALS)..signals.len()).filter_map(|at| signals.get(at));
    let request = state.context.value("user_request").cloned().unwrap_or_default();
    Value::map([
        ("execution_id", Value::from(state.id.as_str())),
        ("is_current", Value::Bool(state.id == *current)),
        ("user_request", request),
        ("signals", Value::list(last.map(|signal| Value::from(signal.clone())))),
        (
            "node_count",
            Value::from(operational.nodes.iter().map(|(_, runs)| *runs).sum::<u64>()),
        ),
    ])
}

fn unavailable(error: &EngineError) -> ToolFailure {
    failed(&format!("{error:#}"))
}

fn failed(message: &str) -> ToolFailure {
    ToolFailure {
        message: message.into(),
        retryable: false,
    }
}
