//! What the examples with LLMs have in common: which LLM is asked, and how it is chosen on the command line.
//!
//! Without arguments, an example asks the mock, which answers by the script `replies.yaml` in the example's folder. With
//! `--llm openai`, it asks an endpoint that speaks OpenAI's protocol.

use std::env;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use soe_backends::{Context, Value};
use soe_core::llm::LlmCaller;
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
    /// The model; several, apart by commas, for examples that ask several LLMs
    #[arg(long, value_delimiter = ',', default_value = DEFAULT_MODEL)]
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
            println!("LLM: mocked, replies.yaml answers (--llm openai asks a real one)");
            let mock = MockLlm::from_yaml(replies).context("replies.yaml can't be used")?;
            let mock = if native_tools { mock.with_native_tools() } else { mock };
            return Ok(std::array::from_fn(|_| Arc::new(mock.clone()) as Arc<dyn LlmCaller>));
        }
        let place = self.base_url.as_deref().unwrap_or("OpenAI");
        println!("LLM: {} at {place}", self.model.join(", "));
        let callers = (0..N).map(|index| self.openai(index, native_tools));
        let callers = callers.collect::<anyhow::Result<Vec<_>>>()?;
        callers
            .try_into()
            .map_err(|callers: Vec<_>| anyhow::anyhow!("there are {} LLMs instead of {N}", callers.len()))
    }

    fn openai(&self, index: usize, native_tools: bool) -> anyhow::Result<Arc<dyn LlmCaller>> {
        let model = self
            .model
            .iter()
            .cycle()
            .nth(index)
            .map_or(DEFAULT_MODEL, String::as_str);
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
    format!(
        "{} requests to the LLM, {} tokens, {} tool calls, {} failed attempts",
        counts.llm_calls, counts.tokens, counts.tool_calls, counts.errors
    )
}
