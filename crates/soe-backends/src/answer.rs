//! Answers of built-in tools that have changed something: kept, so that a repeated call changes it once.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{ExecutionId, Value};

/// So many answers to calls of other executions are kept. Their runs are not known here, so the oldest make room.
const MAX_FOREIGN: usize = 64;

/// What a built-in tool answered to a call that has changed something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The execution whose run made the call; `None` for a run of this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<ExecutionId>,
    /// The run's number.
    pub run: u64,
    /// The call's number in the run, if an agent made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// The answer.
    pub value: Value,
}

/// The answers that are kept, oldest first: those to runs in flight, and the last ones to other executions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Answers(VecDeque<Arc<Answer>>);

impl Answers {
    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The answer that this call got, if it is kept.
    pub fn get(&self, execution: Option<&ExecutionId>, run: u64, index: Option<u32>) -> Option<&Value> {
        let same = |answer: &&Arc<Answer>| {
            answer.execution.as_ref() == execution && (answer.run, answer.index) == (run, index)
        };
        self.0.iter().find(same).map(|answer| &answer.value)
    }

    pub(crate) fn keep(&mut self, answer: &Arc<Answer>) {
        let foreign = |answer: &Arc<Answer>| answer.execution.is_some();
        if foreign(answer) && self.0.iter().filter(|kept| foreign(kept)).count() >= MAX_FOREIGN {
            let oldest = self.0.iter().position(foreign);
            oldest.map(|oldest| self.0.remove(oldest));
        }
        self.0.push_back(answer.clone());
    }

    /// Forgets what a run of this execution was answered.
    pub(crate) fn forget(&mut self, run: u64) {
        if !self.0.is_empty() {
            self.0.retain(|answer| answer.execution.is_some() || answer.run != run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(execution: Option<&str>, run: u64, index: Option<u32>) -> Arc<Answer> {
        Arc::new(Answer {
            execution: execution.map(|id| ExecutionId::new(id).unwrap()),
            run,
            index,
            value: Value::from(run),
        })
    }

    #[test]
    fn an_answer_is_kept_until_its_run_is_over() {
        let mut answers = Answers::default();
        answers.keep(&answer(None, 1, None));
        answers.keep(&answer(None, 1, Some(0)));
        answers.keep(&answer(None, 2, None));
        assert_eq!(answers.get(None, 1, Some(0)), Some(&Value::from(1_u64)));
        assert_eq!(answers.get(None, 1, Some(1)), None);
        answers.forget(1);
        assert!(answers.get(None, 1, None).is_none() && answers.get(None, 2, None).is_some());
    }

    #[test]
    fn of_answers_to_others_the_last_ones_are_kept() {
        let mut answers = Answers::default();
        answers.keep(&answer(None, 0, None));
        for run in 0..100 {
            answers.keep(&answer(Some("child"), run, None));
        }
        let child = ExecutionId::new("child").unwrap();
        assert_eq!(answers.0.len(), MAX_FOREIGN + 1);
        assert!(answers.get(Some(&child), 35, None).is_none() && answers.get(Some(&child), 36, None).is_some());
        answers.forget(99);
        assert!(
            answers.get(Some(&child), 99, None).is_some(),
            "the run is another execution's"
        );
    }
}
