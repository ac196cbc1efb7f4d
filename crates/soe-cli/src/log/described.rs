//! Events in words.

use std::sync::Arc;
use std::time::Duration;

use anstyle::Style;
use soe_backends::{EventKind, Stage, WorkflowChange, WorkflowEdit};

use super::MARGIN;
use crate::output::{ERROR, FAINT, GOOD, SIGNAL, WARNING, brief, safe, seconds};

/// The most of an error's text that is shown in the log.
const MAX_MESSAGE: usize = 2_000;

/// The most of what a tool gets and gives.
const MAX_VALUE: usize = 200;

/// The style of an event's word, the word, the text.
type Described = (Style, &'static str, String);

/// How an event is shown. Not all are.
pub(super) fn described(kind: &EventKind) -> Option<Described> {
    Some(match kind {
        EventKind::OrchestrationStart { workflow_name } => {
            (FAINT, "start", format!("workflow {}", safe(workflow_name)))
        }
        EventKind::ConfigInheritanceStart { source_execution_id } => {
            (FAINT, "inherit", format!("configuration of {source_execution_id}"))
        }
        EventKind::ContextInheritanceStart { source_execution_id } => {
            (FAINT, "inherit", format!("context of {source_execution_id}"))
        }
        EventKind::ContextMerge { fields } => (FAINT, "context", format!("appended to: {}", names(fields))),
        EventKind::ExecutionForked {
            source_execution_id,
            version,
        } => (FAINT, "fork", format!("of {source_execution_id} at version {version}")),
        EventKind::SignalsBroadcast { signals } => (SIGNAL, "signal", names(signals)),
        EventKind::ContextUpdated { field, length } => {
            let count = if *length == 1 {
                String::new()
            } else {
                format!(" ({length} values)")
            };
            (Style::new(), "context", format!("{}{count}", safe(field)))
        }
        EventKind::ContextWarning { node_name, message } => {
            let text = format!("{}: {}", safe(node_name), brief(message, MAX_MESSAGE));
            (WARNING, "warning", text)
        }
        EventKind::CompletionDiscarded { run, status } => (
            FAINT,
            "dropped",
            format!("the result of run {run}: the execution is {status}"),
        ),
        EventKind::ExecutionRested {} => (GOOD, "rested", String::new()),
        EventKind::ExecutionFailed { error } => (ERROR, "failed", in_full(error)),
        EventKind::ExecutionCancelled { aborted_runs } => {
            let stopped = match aborted_runs {
                0 => String::new(),
                1 => "one run was stopped".to_owned(),
                runs => format!("{runs} runs were stopped"),
            };
            (WARNING, "cancelled", stopped)
        }
        _ => return of_run(kind),
    })
}

/// What happens in a run.
fn of_run(kind: &EventKind) -> Option<Described> {
    Some(match kind {
        EventKind::NodeExecution {
            node_name,
            node_type,
            run,
        } => match (run, node_type.as_ref()) {
            (None, _) => (FAINT, "route", safe(node_name).into_owned()),
            // The call of the tool or the question to the LLM follows.
            (Some(_), "tool" | "llm") => return None,
            (Some(_), other) => (Style::new(), "run", format!("{} ({})", safe(node_name), safe(other))),
        },
        EventKind::ToolCall {
            node_name, tool_name, ..
        } => (Style::new(), "call", called(node_name, tool_name)),
        EventKind::NodeError {
            node_name,
            error,
            retry_attempt,
            ..
        } => {
            let next = retry_attempt.map_or_else(String::new, |attempt| format!("; trying again, attempt {attempt}"));
            let style = if retry_attempt.is_some() { WARNING } else { ERROR };
            let text = format!("{}: {}{next}", safe(node_name), in_full(error));
            (style, "error", text)
        }
        EventKind::NodeFinished {
            node_name, duration_us, ..
        } => {
            let duration = seconds(Duration::from_micros(*duration_us));
            (FAINT, "finished", format!("{} after {duration}", safe(node_name)))
        }
        _ => return of_llm(kind),
    })
}

/// What LLMs are asked.
fn of_llm(kind: &EventKind) -> Option<Described> {
    Some(match kind {
        EventKind::LlmCall {
            node_name, call, stage, ..
        } => (Style::new(), "ask", asked(node_name, *stage, *call)),
        EventKind::LlmReply { node_name, usage, .. } => {
            // Without usage there is nothing to say: what came of the reply follows.
            let usage = usage.as_ref()?;
            let text = format!(
                "{}: {} + {} tokens",
                safe(node_name),
                usage.prompt_tokens,
                usage.completion_tokens
            );
            (FAINT, "reply", text)
        }
        _ => return of_agent(kind),
    })
}

/// What agents do.
fn of_agent(kind: &EventKind) -> Option<Described> {
    Some(match kind {
        EventKind::AgentToolsLoaded {
            node_name, agent_tools, ..
        } => {
            let tools = if agent_tools.is_empty() {
                "none".to_owned()
            } else {
                names(agent_tools)
            };
            (
                FAINT,
                "tools",
                format!("{}: {}", safe(node_name), brief(&tools, MAX_VALUE)),
            )
        }
        EventKind::AgentToolCall {
            node_name,
            tool_name,
            tool_args,
            ..
        } => {
            let arguments = brief(tool_args, MAX_VALUE);
            (
                Style::new(),
                "call",
                format!("{}: {} {arguments}", safe(node_name), safe(tool_name)),
            )
        }
        EventKind::AgentToolResult {
            node_name,
            tool_name,
            result_preview,
            ..
        } => {
            let result = brief(result_preview, MAX_VALUE);
            (
                FAINT,
                "result",
                format!("{}: {}: {result}", safe(node_name), safe(tool_name)),
            )
        }
        EventKind::AgentToolNotFound {
            node_name, tool_name, ..
        } => {
            let text = format!("{}: it has no tool '{}'", safe(node_name), brief(tool_name, MAX_VALUE));
            (WARNING, "warning", text)
        }
        EventKind::ChildStarted { node_name, child, .. } => (FAINT, "child", format!("{}: {child}", safe(node_name))),
        EventKind::ChildFailed { child, error } => (
            WARNING,
            "warning",
            format!("child {child}: {}", brief(error, MAX_VALUE)),
        ),
        EventKind::SignalsToParent { signals } => {
            let names: Vec<_> = signals.iter().map(|signal| safe(signal)).collect();
            (FAINT, "parent", format!("is told {}", names.join(", ")))
        }
        EventKind::MessageTaken { refused: None, .. } => (FAINT, "message", "of another process".to_owned()),
        EventKind::MessageTaken { refused: Some(why), .. } => (
            WARNING,
            "refused",
            format!("what another process asked: {}", brief(why, MAX_VALUE)),
        ),
        EventKind::PolicyDenied {
            node_name,
            tool_name,
            reason,
            ..
        } => {
            let text = format!("{}: {}: {}", safe(node_name), safe(tool_name), brief(reason, MAX_VALUE));
            (WARNING, "denied", text)
        }
        EventKind::WorkflowChanged(change) => (Style::new(), "workflow", edited(change)),
        other => (FAINT, "event", other.name().replace('_', " ")),
    })
}

pub(super) fn called(node: &str, tool: &str) -> String {
    match node == tool {
        true => safe(node).into_owned(),
        false => format!("{}: {}", safe(node), safe(tool)),
    }
}

/// `Extend: soe_inject_node: flow, node Look (version 2)`
fn edited(change: &WorkflowChange) -> String {
    let what = match &change.edit {
        WorkflowEdit::Changed {
            workflow_name,
            changed_node: None,
        } => safe(workflow_name).into_owned(),
        WorkflowEdit::Changed {
            workflow_name,
            changed_node: Some(node),
        } => format!("{}, node {}", safe(workflow_name), safe(node)),
        WorkflowEdit::Reverted { to } => format!("as in version {to}"),
        _ => "changed".to_owned(),
    };
    let by = change.by.as_ref();
    let by = by.map_or_else(String::new, |by| format!("{}: ", called(&by.node_name, &by.tool_name)));
    format!("{by}{what} (version {})", change.version)
}

fn names(signals: &[Arc<str>]) -> String {
    let names: Vec<_> = signals.iter().map(|signal| safe(signal)).collect();
    names.join(", ")
}

/// The text of an error with its lines, each of them below the text of the first.
fn in_full(error: &str) -> String {
    let shown: String = error.trim_end().chars().take(MAX_MESSAGE).collect();
    let lines: Vec<String> = shown.lines().map(|line| safe(line).into_owned()).collect();
    let rest = if is_shown_in_full(error) { "" } else { "..." };
    lines.join(&format!("\n{:MARGIN$}", "")) + rest
}

/// Whether an error is short enough for the log.
pub(super) fn is_shown_in_full(error: &str) -> bool {
    error.trim_end().chars().nth(MAX_MESSAGE).is_none()
}

/// `Draft`, `Researcher (router, request 3)`
fn asked(node: &str, stage: Stage, call: u32) -> String {
    let stage = (stage != Stage::Llm).then(|| stage.as_str().to_owned());
    let call = (call > 1).then(|| format!("request {call}"));
    let details: Vec<String> = stage.into_iter().chain(call).collect();
    match details.is_empty() {
        true => safe(node).into_owned(),
        false => format!("{} ({})", safe(node), details.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(kind: EventKind) -> String {
        let (_, word, text) = described(&kind).unwrap();
        format!("{word} {text}")
    }

    #[test]
    fn events_are_words() {
        let error = |retry_attempt| EventKind::NodeError {
            node_name: "Fetch".into(),
            run: 1,
            error: "it\nbroke \u{1b}[2J".into(),
            retry_attempt,
        };
        assert_eq!(
            shown(error(Some(2))),
            "error Fetch: it\n                    broke \\u{1b}[2J; trying again, attempt 2"
        );
        assert_eq!(
            shown(error(None)),
            "error Fetch: it\n                    broke \\u{1b}[2J"
        );
        let signals = ["A".into(), "B".into()].into();
        assert_eq!(shown(EventKind::SignalsBroadcast { signals }), "signal A, B");
        let updated = |length| EventKind::ContextUpdated {
            field: "page".into(),
            length,
        };
        assert_eq!(shown(updated(1)), "context page");
        assert_eq!(shown(updated(3)), "context page (3 values)");
    }

    #[test]
    fn what_llms_and_agents_do_is_words_too() {
        let (node_name, run): (Arc<str>, u64) = ("N".into(), 1);
        let ask = |call, stage| EventKind::LlmCall {
            node_name: node_name.clone(),
            run,
            call,
            stage,
        };
        assert_eq!(shown(ask(1, Stage::Llm)), "ask N");
        assert_eq!(shown(ask(2, Stage::Llm)), "ask N (request 2)");
        assert_eq!(shown(ask(3, Stage::Router)), "ask N (router, request 3)");
        let call = EventKind::AgentToolCall {
            node_name: node_name.clone(),
            run,
            index: 0,
            tool_name: "search".into(),
            tool_args: format!("{{\"q\": \"{}\u{1b}\"}}", "x".repeat(500)).into(),
        };
        let call = shown(call);
        assert!(
            call.starts_with("call N: search {\"q\": \"xxx") && call.ends_with("..."),
            "{call}"
        );
        assert!(call.len() < 300, "{call}");
        let result = EventKind::AgentToolResult {
            node_name: node_name.clone(),
            run,
            index: 0,
            tool_name: "search".into(),
            result_preview: "one\n\u{1b}[2Jtwo".into(),
        };
        assert_eq!(shown(result), "result N: search: one \\u{1b}[2Jtwo");
        let missing = EventKind::AgentToolNotFound {
            node_name,
            run,
            tool_name: "fly".into(),
        };
        assert_eq!(shown(missing), "warning N: it has no tool 'fly'");
    }
}
