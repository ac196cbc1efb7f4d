//! The rules of a script: which requests, which answers, how often.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;

use super::answer::{Answer, Body};
use super::{Matcher, lock};
use crate::llm::{LlmErrorKind, LlmReply, LlmRequest, Stage};

/// Gives a rule of a [`MockLlm`](super::MockLlm) its answers, in the order in which they are given. The last one is repeated.
///
/// `after`, `usage`, `signals` and `in_pieces_of` say more about the answer before them; without one, about all answers of
/// the rule that don't say it themselves. [`Answer`] describes the answers.
#[derive(Clone)]
pub struct RuleBuilder {
    rules: Arc<Mutex<Vec<Rule>>>,
    index: usize,
}

impl RuleBuilder {
    pub(super) fn add(rules: &Arc<Mutex<Vec<Rule>>>, matcher: Matcher, place: String) -> Self {
        let mut list = lock(rules);
        list.push(Rule::new(matcher, place));
        Self {
            rules: rules.clone(),
            index: list.len() - 1,
        }
    }

    /// Answers with this text; see [`Answer::text`].
    pub fn text(self, text: impl Into<String>) -> Self {
        self.then(Answer::text(text))
    }

    /// Answers with this value as JSON; see [`Answer::json`].
    pub fn json(self, value: impl Serialize) -> Self {
        self.then(Answer::json(value))
    }

    /// Answers with this output, in the form that is asked for; see [`Answer::output`].
    pub fn output(self, value: impl Serialize) -> Self {
        self.then(Answer::output(value))
    }

    /// Calls a tool; see [`Answer::call_tool`].
    pub fn call_tool(self, name: impl Into<Arc<str>>) -> Self {
        self.then(Answer::call_tool(name))
    }

    /// Gives the tool call before it its arguments. If the answer before it is no tool call, or has its arguments, this is an
    /// answer of its own, to a request for arguments.
    pub fn arguments(self, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value);
        let mut answer = Some(match value {
            Ok(value) => Answer::arguments(value),
            Err(error) => Answer::broken(&error),
        });
        self.change(|rule| {
            if let (Some(step), Some(own)) = (rule.steps.last_mut(), &answer)
                && let (Body::CallTool { arguments, .. }, Body::Arguments(value)) = (&mut step.answer.body, &own.body)
                && arguments.is_none()
            {
                *arguments = Some(value.clone());
                answer = None;
            }
        });
        match answer {
            Some(answer) => self.then(answer),
            None => self,
        }
    }

    /// Ends an agent's tool calls; its output is the answer after it. See [`Answer::finish`].
    pub fn finish(self) -> Self {
        self.then(Answer::finish())
    }

    /// Answers with this reply, as it is; see [`Answer::reply`].
    pub fn reply(self, reply: impl Into<LlmReply>) -> Self {
        self.then(Answer::reply(reply))
    }

    /// Fails; see [`Answer::error`].
    pub fn error(self, kind: LlmErrorKind, message: impl Into<Arc<str>>) -> Self {
        self.then(Answer::error(kind, message))
    }

    /// Answers with what `compute` makes of the request.
    pub fn with(self, compute: impl Fn(&LlmRequest) -> Answer + Send + Sync + 'static) -> Self {
        self.then(Answer::with(compute))
    }

    /// Gives this answer next.
    pub fn then(self, answer: impl Into<Answer>) -> Self {
        let answer = answer.into();
        self.change(|rule| rule.steps.push(Step { answer, given: false }));
        self
    }

    /// Chooses these signals; see [`Answer::signals`].
    pub fn signals<S: Into<String>>(self, signals: impl IntoIterator<Item = S>) -> Self {
        let signals: Vec<String> = signals.into_iter().map(Into::into).collect();
        self.adjust(|answer| answer.signals(signals))
    }

    /// Reports these tokens; see [`Answer::usage`].
    pub fn usage(self, prompt_tokens: u64, completion_tokens: u64) -> Self {
        self.adjust(|answer| answer.usage(prompt_tokens, completion_tokens))
    }

    /// Takes this time; see [`Answer::after`].
    pub fn after(self, latency: Duration) -> Self {
        self.adjust(|answer| answer.after(latency))
    }

    /// Streams in pieces of so many characters; see [`Answer::in_pieces_of`].
    pub fn in_pieces_of(self, characters: usize) -> Self {
        self.adjust(|answer| answer.in_pieces_of(characters))
    }

    /// Answers at most so many requests; later ones go to the next rule that matches.
    pub fn times(self, requests: usize) -> Self {
        self.change(|rule| rule.times = Some(requests));
        self
    }

    /// Answers a single request.
    pub fn once(self) -> Self {
        self.times(1)
    }

    fn adjust(self, change: impl FnOnce(Answer) -> Answer) -> Self {
        self.change(|rule| {
            let answer = rule.steps.last_mut().map_or(&mut rule.common, |step| &mut step.answer);
            *answer = change(answer.clone());
        });
        self
    }

    fn change(&self, change: impl FnOnce(&mut Rule)) {
        if let Some(rule) = lock(&self.rules).get_mut(self.index) {
            change(rule);
        }
    }
}

impl fmt::Debug for RuleBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleBuilder")
            .field("rule", &(self.index + 1))
            .finish_non_exhaustive()
    }
}

/// A rule, and how much of it is used.
pub(super) struct Rule {
    pub(super) matcher: Arc<Matcher>,
    /// Where it is written.
    place: String,
    steps: Vec<Step>,
    /// What holds for all answers that don't say it themselves.
    common: Answer,
    times: Option<usize>,
    calls: usize,
    next: usize,
    /// Whether the next answer, a tool call, has told the tool already, and its arguments are still to be asked for.
    told_tool: bool,
}

struct Step {
    answer: Answer,
    given: bool,
}

impl Rule {
    fn new(matcher: Matcher, place: String) -> Self {
        Self {
            matcher: Arc::new(matcher),
            place,
            steps: Vec::new(),
            common: Answer::empty(),
            times: None,
            calls: 0,
            next: 0,
            told_tool: false,
        }
    }

    /// Why it answers no more requests.
    pub(super) fn used_up(&self) -> Option<String> {
        let times = self.times.filter(|times| self.calls >= *times)?;
        Some(format!(
            "used up: it answers {times} request{}",
            if times == 1 { "" } else { "s" }
        ))
    }

    /// What of it no request has asked for.
    pub(super) fn unused(&self) -> Option<String> {
        let rest = self.steps.iter().filter(|step| !step.given).count();
        match (self.calls, rest) {
            (0, _) => Some("never used".to_owned()),
            (_, 0) => None,
            (_, rest) => Some(format!("{rest} of its {} answers never given", self.steps.len())),
        }
    }

    /// The answer to a request that it matches.
    pub(super) fn take(&mut self, request: &LlmRequest) -> Answer {
        self.calls += 1;
        if std::mem::take(&mut self.told_tool) {
            let arguments = self.arguments_of_next();
            self.advance();
            if let (Stage::Parameter, Some(arguments)) = (request.stage, arguments) {
                return arguments;
            }
        }
        // An LLM with native tool calls doesn't say that it finishes: it just gives its output.
        while request.stage == Stage::Turn && self.next + 1 < self.steps.len() && self.is_finish() {
            self.advance();
        }
        let Some(step) = self.steps.get_mut(self.next) else {
            return Answer::empty();
        };
        let answer = step.answer.clone().or(&self.common);
        match &answer.body {
            Body::CallTool { arguments: Some(_), .. } if request.stage == Stage::Router => {
                step.given = true;
                self.told_tool = true;
            }
            _ => self.advance(),
        }
        answer
    }

    /// The arguments of the tool call that is the next answer.
    fn arguments_of_next(&self) -> Option<Answer> {
        let answer = &self.steps.get(self.next)?.answer;
        let Body::CallTool { arguments, .. } = &answer.body else {
            return None;
        };
        let arguments = Answer::arguments(arguments.clone()?);
        Some(arguments.or(answer).or(&self.common))
    }

    fn is_finish(&self) -> bool {
        let step = self.steps.get(self.next);
        step.is_some_and(|step| matches!(step.answer.body, Body::Finish))
    }

    /// Goes on to the next answer; the last one stays.
    fn advance(&mut self) {
        if let Some(step) = self.steps.get_mut(self.next) {
            step.given = true;
        }
        self.next = (self.next + 1).min(self.steps.len().saturating_sub(1));
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.matcher, self.place)
    }
}
