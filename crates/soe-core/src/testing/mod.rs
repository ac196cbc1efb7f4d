//! For tests of workflows: a scripted LLM, recorded conversations, and a clock that stands still. Feature `testing`.
//!
//! * [`MockLlm`] answers by a script: by node, by stage, by what the prompt contains, in sequence. It keeps what it was asked.
//! * [`Recorder`] writes the conversation with a real LLM to a file, [`Player`] replays it, and fails when it is asked
//!   something else.
//! * [`TestClock`] is a clock for the engine that only a test moves.
//!
//! None of them needs a network or a key, and all give the same results every time, also when nodes run in parallel.

mod answer;
mod clock;
mod diff;
mod fit;
mod matcher;
mod mock;
mod names;
mod record;
mod recording;
mod replay;
mod rule;
mod script;
mod script_answer;
mod unscripted;

pub use answer::Answer;
pub use clock::TestClock;
pub use matcher::{Matcher, any, node, prompt_contains, stage, when};
pub use mock::{MockLlm, RecordedRequest};
pub use record::Recorder;
pub use recording::{Exchange, RecordedError, RecordingError, SELECTED_CONFIG};
pub use replay::Player;
pub use rule::RuleBuilder;
pub use script::{ScriptError, ScriptProblem};
pub use unscripted::UnscriptedRequest;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks; what a panicking test leaves behind is still whole, since nothing here panics while it holds a lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
