//! How a caller is set up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use crate::caller::{OpenAi, Settings};
use crate::client::{self, Connections};
use crate::endpoint::Endpoint;
use crate::key::Secrets;
use crate::rate::Limiter;
use crate::request::Format;
use crate::retry::RetryPolicy;
use crate::{ApiKey, BuildError, options};

/// Sets up an [`OpenAi`]. Nothing is sent until it is called.
///
/// ```no_run
/// use soe_llm_openai::OpenAi;
///
/// let azure = OpenAi::builder()
///     .base_url("https://me.openai.azure.com/openai/deployments/gpt-4o")
///     .query("api-version", "2024-10-21")
///     .key("secret")
///     .key_header("api-key")
///     .model("gpt-4o")
///     .structured_output(true)
///     .native_tools(true)
///     .requests_per_minute(60)
///     .tokens_per_minute(90_000)
///     .build()?;
/// assert!(!format!("{azure:?}").contains("secret"));
/// # Ok::<(), soe_llm_openai::BuildError>(())
/// ```
#[must_use]
pub struct OpenAiBuilder {
    base_url: String,
    query: Vec<(String, String)>,
    key: Option<KeyFrom>,
    key_header: Option<String>,
    headers: Vec<(String, String)>,
    format: Format,
    connections: Connections,
    timeout: Duration,
    max_response_bytes: u64,
    retries: RetryPolicy,
    requests_per_minute: Option<u64>,
    tokens_per_minute: Option<u64>,
}

enum KeyFrom {
    Argument(ApiKey),
    Environment(String),
}

impl OpenAiBuilder {
    pub(crate) fn new() -> Self {
        Self {
            base_url: "https://api.openai.com/v1".to_owned(),
            query: Vec::new(),
            key: None,
            key_header: None,
            headers: Vec::new(),
            format: Format {
                defaults: Map::new(),
                structured_output: false,
                native_tools: false,
                streaming: true,
                stream_usage: true,
            },
            connections: Connections {
                timeout: Duration::from_secs(10),
                proxies: true,
            },
            timeout: Duration::from_secs(600),
            max_response_bytes: 32 << 20,
            retries: RetryPolicy {
                count: 4,
                first: Duration::from_millis(500),
                longest: Duration::from_secs(30),
                total: Duration::from_secs(120),
            },
            requests_per_minute: None,
            tokens_per_minute: None,
        }
    }

    /// Where the endpoint is, up to what comes before `/chat/completions`. OpenAI itself if it isn't said. A query in it
    /// goes with every request.
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = url.into();
        self
    }

    /// A parameter of every request's query, such as Azure's `api-version`.
    pub fn query(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.query.push((name.into(), value.into()));
        self
    }

    /// The key. Endpoints that want none need none.
    pub fn key(mut self, key: impl Into<ApiKey>) -> Self {
        self.key = Some(KeyFrom::Argument(key.into()));
        self
    }

    /// Takes the key from an environment variable, when the caller is built. It must be there.
    pub fn key_from_env(mut self, variable: impl Into<String>) -> Self {
        self.key = Some(KeyFrom::Environment(variable.into()));
        self
    }

    /// Sends the key as it is in this header, such as Azure's `api-key`, instead of as `authorization: Bearer KEY`.
    pub fn key_header(mut self, name: impl Into<String>) -> Self {
        self.key_header = Some(name.into());
        self
    }

    /// A header of every request. Its value is treated as a secret.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The model of nodes that name none.
    pub fn model(self, model: impl Into<String>) -> Self {
        self.option("model", model.into())
    }

    /// A field of every request, unless the node says otherwise, such as `temperature`.
    pub fn option(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.format.defaults.insert(name.into(), value.into());
        self
    }

    /// Whether the endpoint makes the model keep to a JSON Schema (`response_format`). Off if it isn't said: then the
    /// schema is told in the prompt.
    pub fn structured_output(mut self, on: bool) -> Self {
        self.format.structured_output = on;
        self
    }

    /// Whether the model calls tools (`tools`), so that an agent makes one request a turn. Off if it isn't said.
    pub fn native_tools(mut self, on: bool) -> Self {
        self.format.native_tools = on;
        self
    }

    /// Whether replies are streamed when somebody wants to see them as they arrive. On if it isn't said.
    pub fn streaming(mut self, on: bool) -> Self {
        self.format.streaming = on;
        self
    }

    /// Whether streams are asked for their usage (`stream_options`). On if it isn't said; some older servers refuse it.
    pub fn stream_usage(mut self, on: bool) -> Self {
        self.format.stream_usage = on;
        self
    }

    /// How long connecting may take. 10 seconds if it isn't said.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connections.timeout = timeout;
        self
    }

    /// How long a call may take until the last byte of its reply, with its retries and the waits between them, but without
    /// waits for its turn under a rate limit. 10 minutes if it isn't said.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The most bytes of a reply, as it is sent. 32 MiB if it isn't said.
    pub fn max_response_bytes(mut self, bytes: u64) -> Self {
        self.max_response_bytes = bytes;
        self
    }

    /// How often a request is sent again that failed in passing. 4 times if it isn't said.
    pub fn retries(mut self, count: u32) -> Self {
        self.retries.count = count;
        self
    }

    /// The wait before the first retry, which doubles with each one up to `longest`. Chance takes up to half of it away.
    /// Half a second and 30 seconds if it isn't said. An endpoint's `retry-after` goes before it.
    pub fn retry_delay(mut self, first: Duration, longest: Duration) -> Self {
        self.retries.first = first;
        self.retries.longest = longest;
        self
    }

    /// The longest that a call waits between its requests, all waits together; if an endpoint asks for more, the call
    /// fails at once. 2 minutes if it isn't said.
    pub fn max_retry_wait(mut self, total: Duration) -> Self {
        self.retries.total = total;
        self
    }

    /// The most requests within any minute, of this caller and its clones together; the others wait for their turn.
    pub fn requests_per_minute(mut self, requests: u64) -> Self {
        self.requests_per_minute = Some(requests);
        self
    }

    /// The most tokens within any minute, of this caller and its clones together. Before a request they are estimated: a
    /// quarter of its characters, and its limit on tokens. Afterwards the usage that the endpoint reports counts.
    pub fn tokens_per_minute(mut self, tokens: u64) -> Self {
        self.tokens_per_minute = Some(tokens);
        self
    }

    /// Whether the environment's `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` count. They do if it isn't said.
    pub fn proxies(mut self, on: bool) -> Self {
        self.connections.proxies = on;
        self
    }

    /// The caller.
    ///
    /// # Errors
    /// A setting can't be used, the environment has no key, or there are no root certificates for an encrypted endpoint.
    pub fn build(self) -> Result<OpenAi, BuildError> {
        self.check()?;
        let endpoint = Endpoint::new(&self.base_url, &self.query)?;
        let mut secrets = Secrets::default();
        endpoint.secrets().for_each(|value| secrets.add(&value));
        let headers = self.all_headers(&mut secrets)?;
        let client = client::build(&self.connections, headers, endpoint.is_encrypted())?;
        Ok(OpenAi::new(Settings {
            client,
            endpoint,
            secrets,
            format: self.format,
            timeout: self.timeout,
            max_response_bytes: self.max_response_bytes,
            retries: self.retries,
            limiter: Arc::new(Limiter::new(self.requests_per_minute, self.tokens_per_minute)),
        }))
    }

    fn check(&self) -> Result<(), BuildError> {
        let wrong = |setting, reason: &str| {
            Err(BuildError::Setting {
                setting,
                reason: reason.to_owned(),
            })
        };
        let positive = [
            ("timeout", !self.timeout.is_zero()),
            ("connect_timeout", !self.connections.timeout.is_zero()),
            ("max_response_bytes", self.max_response_bytes > 0),
            ("requests_per_minute", self.requests_per_minute != Some(0)),
            ("tokens_per_minute", self.tokens_per_minute != Some(0)),
        ];
        if let Some((setting, _)) = positive.into_iter().find(|(_, positive)| !positive) {
            return wrong(setting, "must be more than nothing");
        }
        if self.key_header.is_some() && self.key.is_none() {
            return wrong("key_header", "has no key to send");
        }
        match self.format.defaults.keys().find(|name| options::is_reserved(name)) {
            Some(name) => wrong("option", &format!("can't be '{name}': the caller sets it")),
            None => Ok(()),
        }
    }

    fn all_headers(&self, secrets: &mut Secrets) -> Result<HeaderMap, BuildError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = &self.key {
            let key = key.get()?;
            let (name, prefix) = match &self.key_header {
                Some(name) => (header_name(name)?, ""),
                None => (AUTHORIZATION, "Bearer "),
            };
            headers.insert(name, key.header(prefix)?);
            secrets.add(key.text());
        }
        for (name, value) in &self.headers {
            let mut sent =
                HeaderValue::try_from(value).map_err(|_| BuildError::InvalidHeader { name: name.clone() })?;
            sent.set_sensitive(true);
            headers.insert(header_name(name)?, sent);
            secrets.add(value);
        }
        Ok(headers)
    }
}

impl KeyFrom {
    fn get(&self) -> Result<ApiKey, BuildError> {
        match self {
            KeyFrom::Argument(key) => Ok(key.clone()),
            KeyFrom::Environment(name) => {
                let reason = match std::env::var(name) {
                    Ok(key) if !key.is_empty() => return Ok(ApiKey::from(key)),
                    Ok(_) => "is empty",
                    Err(std::env::VarError::NotPresent) => "is not set",
                    Err(std::env::VarError::NotUnicode(_)) => "holds no text",
                };
                let name = name.clone();
                Err(BuildError::KeyFromEnv { name, reason })
            }
        }
    }
}

fn header_name(name: &str) -> Result<HeaderName, BuildError> {
    HeaderName::try_from(name).map_err(|_| BuildError::InvalidHeader { name: name.to_owned() })
}

impl fmt::Debug for OpenAiBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The base URL may hold secrets until it is taken apart.
        f.debug_struct("OpenAiBuilder")
            .field("format", &self.format)
            .field("timeout", &self.timeout)
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
}
