//! Names of tools that endpoints accept.

use std::collections::{HashMap, HashSet};

use soe_core::llm::{LlmRequest, Message};

/// The longest name that is accepted.
const LONGEST: usize = 64;

/// The names of a request's tools, as they are sent and as they are meant.
///
/// Endpoints take letters, digits, `_` and `-`, at most 64. Names that fit are sent as they are; the others are changed, so
/// that no two become the same. The same tools in the same order always get the same names.
#[derive(Debug, Default)]
pub(crate) struct Names {
    sent: HashMap<String, String>,
    meant: HashMap<String, String>,
}

impl Names {
    pub(crate) fn of(request: &LlmRequest) -> Self {
        let offered = request.tools.iter().map(|tool| tool.name.as_ref());
        let called = request.messages.iter().flat_map(|message| match message {
            Message::Assistant { tool_calls, .. } => tool_calls.as_slice(),
            _ => &[],
        });
        Self::new(offered.chain(called.map(|call| call.name.as_str())))
    }

    fn new<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Self {
        // A name that fits must not be taken away by one that is made to fit.
        let mut taken: HashSet<String> = names.clone().filter(|name| fits(name)).map(str::to_owned).collect();
        let mut all = Self::default();
        for name in names {
            if fits(name) || all.sent.contains_key(name) {
                continue;
            }
            let fitting = free(&fitted(name), &taken);
            taken.insert(fitting.clone());
            all.meant.insert(fitting.clone(), name.to_owned());
            all.sent.insert(name.to_owned(), fitting);
        }
        all
    }

    /// The name that is sent for the tool.
    pub(crate) fn sent<'a>(&'a self, name: &'a str) -> &'a str {
        self.sent.get(name).map_or(name, String::as_str)
    }

    /// The tool that is meant by a name that came back.
    pub(crate) fn meant(&self, name: String) -> String {
        self.meant.get(&name).cloned().unwrap_or(name)
    }
}

fn fits(name: &str) -> bool {
    (1..=LONGEST).contains(&name.len()) && name.chars().all(is_accepted)
}

fn is_accepted(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

fn fitted(name: &str) -> String {
    let fitted: String = name
        .chars()
        .map(|c| if is_accepted(c) { c } else { '_' })
        .take(LONGEST)
        .collect();
    if fitted.is_empty() { "tool".to_owned() } else { fitted }
}

/// The name, or the name with a number that makes it a new one.
fn free(name: &str, taken: &HashSet<String>) -> String {
    let mut free = name.to_owned();
    let mut number = 2;
    while taken.contains(&free) {
        let suffix = format!("_{number}");
        // All characters are ASCII here, so any cut is between two of them.
        free = format!("{}{suffix}", &name[..name.len().min(LONGEST - suffix.len())]);
        number += 1;
    }
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_fit_stay_and_the_others_become_different_ones() {
        let long = "x".repeat(80);
        let longer = "x".repeat(81);
        let all = ["crm.find", "crm_find", "crm/find", "größe", "", &long, &longer, "ok-1"];
        let names = Names::new(all.into_iter());
        let sent: Vec<_> = all.iter().map(|name| names.sent(name).to_owned()).collect();
        assert_eq!(sent[..5], ["crm_find_2", "crm_find", "crm_find_3", "gr__e", "tool"]);
        assert_eq!(sent[7], "ok-1");
        assert!(sent.iter().all(|name| fits(name)), "{sent:?}");
        assert_eq!(sent.iter().collect::<HashSet<_>>().len(), all.len());
        for (name, sent) in all.iter().zip(sent) {
            assert_eq!(names.meant(sent), *name);
        }
        assert_eq!(names.meant("invented".into()), "invented");
    }
}
