//! What the examples with LLMs have in common: which LLM is asked, and how it is chosen on the command line.
//!
//! Without arguments, an example asks the mock, which answers by the script `replies.yaml` in the example's folder. With
//! `--llm openai`, it asks an endpoint that speaks OpenAI's protocol.

use std::env;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use soe_backends::{Context, EventKind, ExecutionId, Value};
use soe_core::llm::LlmCaller;
use soe_core::runtime::{Engine, EngineError};
use soe_core::testing::MockLlm;
use soe_llm_openai::OpenAi;

/// The model that is asked if the command line names none.
const DEFAULT_MODEL: &str = "gpt-4o-mini";

/// The environment variable with the key.
const KEY: &str = "OPENAI_API_KEY";

/// The arguments that choose the LLM.
#[derive(Args, Clone, Debug)]
pub struct LlmArgs {
    /// Which LLM is asked
    #[arg(long, value_enum, default_value_t = Provider::Mock)]
    llm: Provider,
    /// Where the endpoint is, such as http://localhost:11434/v1; without it, OpenAI
    #[arg(long)]
    base_url: Option<String>,
    /// The model; several, apart by commas, for examples that ask several LLMs; gpt-4o-mini if none is named
    #[arg(long, value_delimiter = ',')]
    model: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Provider {
    /// A script answers: no key, no network
    Mock,
    /// An endpoint with OpenAI's protocol; the key is taken from OPENAI_API_KEY
    Openai,
}

impl LlmArgs {
    /// The LLM that was chosen; `replies` is the script of the mock. Says on stdout which one it is.
    ///
    /// # Errors
    /// The script is not valid, or the endpoint's settings can't be used: the key is missing, for example.
    pub fn caller(&self, replies: &str) -> anyhow::Result<Arc<dyn LlmCaller>> {
        let [caller] = self.build(replies, false)?;
        Ok(caller)
    }

    /// The same, with tools that are called natively if `native_tools` is set.
    ///
    /// # Errors
    /// As those of [`LlmArgs::caller`].
    pub fn caller_with_tools(&self, replies: &str, native_tools: bool) -> anyhow::Result<Arc<dyn LlmCaller>> {
        let [caller] = self.build(replies, native_tools)?;
        Ok(caller)
    }

    /// `N` LLMs. With several models, each gets the next one; the mock answers for all of them.
    ///
    /// # Errors
    /// As those of [`LlmArgs::caller`].
    pub fn callers<const N: usize>(&self, replies: &str) -> anyhow::Result<[Arc<dyn LlmCaller>; N]> {
        self.build(replies, false)
    }

    fn build<const N: usize>(&self, replies: &str, native_tools: bool) -> anyhow::Result<[Arc<dyn LlmCaller>; N]> {
        if self.llm == Provider::Mock {
            self.check_mocked()?;
            println!("LLM: mocked, replies.yaml answers (--llm openai asks a real one)");
            let mock = MockLlm::from_yaml(replies).context("replies.yaml can't be used")?;
            let mock = if native_tools { mock.with_native_tools() } else { mock };
            return Ok(std::array::from_fn(|_| Arc::new(mock.clone()) as Arc<dyn LlmCaller>));
        }
        let place = self.base_url.as_deref().unwrap_or("OpenAI");
        println!("LLM: {} at {place}", self.models().collect::<Vec<_>>().join(", "));
        let callers = (0..N).map(|index| self.openai(index, native_tools));
        let callers = callers.collect::<anyhow::Result<Vec<_>>>()?;
        callers
            .try_into()
            .map_err(|callers: Vec<_>| anyhow::anyhow!("there are {} LLMs instead of {N}", callers.len()))
    }

    /// The mock has no endpoint and no model: whoever names one means another LLM.
    fn check_mocked(&self) -> anyhow::Result<()> {
        let given = [
            ("--base-url", self.base_url.is_some()),
            ("--model", !self.model.is_empty()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((option, _)) => bail!("{option} is for an endpoint, but the LLM is mocked: add --llm openai"),
            None => Ok(()),
        }
    }

    fn models(&self) -> impl Iterator<Item = &str> + Clone {
        let named = self.model.iter().map(String::as_str);
        named.chain(self.model.is_empty().then_some(DEFAULT_MODEL))
    }

    fn openai(&self, index: usize, native_tools: bool) -> anyhow::Result<Arc<dyn LlmCaller>> {
        let model = self.models().cycle().nth(index).unwrap_or(DEFAULT_MODEL);
        let mut openai = OpenAi::builder().model(model).native_tools(native_tools);
        if let Some(url) = &self.base_url {
            openai = openai.base_url(url);
        }
        // OpenAI wants a key; an endpoint on this machine rarely does.
        if self.base_url.is_none() || env::var_os(KEY).is_some() {
            openai = openai.key_from_env(KEY);
        }
        let openai = openai.build().context("the endpoint can't be asked")?;
        Ok(Arc::new(openai))
    }
}

/// The signals of an execution, in their order.
pub fn signals(context: &Context) -> String {
    let signals: Vec<&str> = context.operational.signals.iter().map(AsRef::as_ref).collect();
    signals.join(" ")
}

/// A field's current value: text as it is, everything else as JSON; empty if there is none.
pub fn text(context: &Context, field: &str) -> String {
    context.value(field).map(plain).unwrap_or_default()
}

/// Text as it is, everything else as JSON.
pub fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What the LLMs were asked and took, as one line.
pub fn costs(context: &Context) -> String {
    let counts = &context.operational;
    let requests = count(counts.llm_calls, "request");
    let (tokens, calls) = (count(counts.tokens, "token"), count(counts.tool_calls, "tool call"));
    let failed = count(counts.errors, "failed attempt");
    format!("{requests} to the LLM, {tokens}, {calls}, {failed}")
}

/// A number of things: `1 request`, `2 requests`.
pub fn count(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

/// What went wrong in an execution, each text once, in the order of the events.
///
/// # Errors
/// The events can't be read.
pub async fn errors(engine: &Engine, execution: &ExecutionId) -> Result<Vec<String>, EngineError> {
    let mut errors: Vec<String> = Vec::new();
    for event in engine.telemetry(execution, 0, 10_000).await? {
        if let EventKind::NodeError { error, .. } = event.kind
            && !errors.iter().any(|known| known == error.as_ref())
        {
            errors.push(error.to_string());
        }
    }
    Ok(errors)
}
