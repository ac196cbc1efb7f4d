//! The LLMs of an engine.

use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;

use super::{Capabilities, LlmCaller};

/// A caller and how it is used, before it is registered.
///
/// ```
/// use soe_core::llm::{Llm, Llms, llm_fn};
///
/// let mut llms = Llms::new();
/// llms.set_default(llm_fn(|prompt, _| async move { Ok(prompt) }));
/// llms.register("fast", Llm::new(llm_fn(|_, _| async { Ok("yes") })).max_concurrency(8))?;
/// assert_eq!(llms.specs().names().map(|name| name.as_ref()).collect::<Vec<_>>(), ["fast"]);
/// # Ok::<(), soe_core::llm::RegisterLlmError>(())
/// ```
#[derive(Clone)]
pub struct Llm {
    caller: Arc<dyn LlmCaller>,
    spec: LlmSpec,
}

/// What the engine knows about a caller without calling it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LlmSpec {
    /// What it can do.
    pub capabilities: Capabilities,
    /// The most calls that may be in flight at a time.
    pub max_concurrency: Option<usize>,
}

impl Llm {
    /// A caller without limits.
    pub fn new(caller: impl LlmCaller) -> Self {
        let spec = LlmSpec {
            capabilities: caller.capabilities(),
            max_concurrency: None,
        };
        Self {
            caller: Arc::new(caller),
            spec,
        }
    }

    /// At most so many calls at a time, at least one; the others wait.
    #[must_use]
    pub fn max_concurrency(mut self, calls: usize) -> Self {
        self.spec.max_concurrency = Some(calls.max(1));
        self
    }

    /// The caller.
    pub fn caller(&self) -> &Arc<dyn LlmCaller> {
        &self.caller
    }

    /// What there is to know about it without calling it.
    pub fn spec(&self) -> LlmSpec {
        self.spec
    }
}

impl<C: LlmCaller> From<C> for Llm {
    fn from(caller: C) -> Self {
        Self::new(caller)
    }
}

impl fmt::Debug for Llm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Llm").field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// The LLMs of an engine: those with a name, and the default for nodes that name none. Cheap to clone; a clone doesn't see
/// later registrations.
#[derive(Clone, Debug, Default)]
pub struct Llms {
    default: Option<Llm>,
    named: Arc<IndexMap<Arc<str>, Llm>>,
}

impl Llms {
    /// Without LLMs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses this LLM for nodes that name none, instead of the default before.
    pub fn set_default(&mut self, llm: impl Into<Llm>) -> &mut Self {
        self.default = Some(llm.into());
        self
    }

    /// Adds an LLM that nodes can name.
    ///
    /// # Errors
    /// The name is blank or taken.
    pub fn register(&mut self, name: impl Into<Arc<str>>, llm: impl Into<Llm>) -> Result<&mut Self, RegisterLlmError> {
        let name = name.into();
        if name.trim().is_empty() {
            return Err(RegisterLlmError::Blank);
        }
        if self.named.contains_key(&name) {
            return Err(RegisterLlmError::Duplicate { name });
        }
        Arc::make_mut(&mut self.named).insert(name, llm.into());
        Ok(self)
    }

    /// The LLM of that name, or the default.
    pub fn get(&self, name: Option<&str>) -> Option<&Llm> {
        match name {
            Some(name) => self.named.get(name),
            None => self.default.as_ref(),
        }
    }

    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        self.default.is_none() && self.named.is_empty()
    }

    /// What there is to know about the LLMs without calling them.
    pub fn specs(&self) -> LlmSpecs {
        let named = self.named.iter().map(|(name, llm)| (name.clone(), llm.spec)).collect();
        LlmSpecs {
            default: self.default.as_ref().map(|llm| llm.spec),
            named: Arc::new(named),
        }
    }
}

/// What the state machine knows about the LLMs of an engine. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct LlmSpecs {
    default: Option<LlmSpec>,
    named: Arc<IndexMap<Arc<str>, LlmSpec>>,
}

impl LlmSpecs {
    /// The LLM of that name, or the default.
    pub fn get(&self, name: Option<&str>) -> Option<LlmSpec> {
        match name {
            Some(name) => self.named.get(name).copied(),
            None => self.default,
        }
    }

    /// The names that nodes can give.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.named.keys()
    }
}

/// An LLM that can't be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterLlmError {
    /// The name is empty, or has spaces only.
    #[error("an LLM that nodes can name needs a name")]
    Blank,
    /// There is such an LLM.
    #[error("LLM '{name}' is registered twice")]
    Duplicate {
        /// Its name.
        name: Arc<str>,
    },
}
