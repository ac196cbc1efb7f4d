//! Conversation histories, as they are told to an LLM.

use soe_backends::Turn;

/// How much of a conversation history goes into a request: its newest entries, as long as they fit. Without limits by
/// default.
///
/// The system prompt of the node's identity is always told, and doesn't count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryWindow {
    /// The most entries.
    pub turns: Option<usize>,
    /// The most characters, of entries that fit as a whole.
    pub characters: Option<usize>,
}

/// The history as text, oldest entry first: `system`, the prompt of the identity that asks, then the newest of `turns` that
/// fit into the window. System entries with a key are the engine's own, of any identity, and are left out.
pub(crate) fn history_text(system: Option<&str>, turns: &[Turn], window: HistoryWindow) -> String {
    let told = turns
        .iter()
        .filter(|turn| &*turn.role != "system" || turn.key.is_none());
    let mut characters = window.characters.unwrap_or(usize::MAX);
    let newest = told.rev().take(window.turns.unwrap_or(usize::MAX));
    let mut lines: Vec<String> = newest
        .map(|turn| entry_text(&turn.role, turn.tool_name.as_deref(), &turn.content))
        .take_while(|entry| {
            let left = characters.checked_sub(entry.chars().count());
            characters = left.unwrap_or(0);
            left.is_some()
        })
        .collect();
    lines.extend(system.map(|prompt| entry_text("system", None, prompt)));
    lines.reverse();
    lines.join("\n")
}

/// One entry: whose it is, and its text.
pub(crate) fn entry_text(role: &str, tool_name: Option<&str>, content: &str) -> String {
    match (role, tool_name) {
        ("tool", Some(name)) => format!("[Tool: {name}]\n{content}"),
        ("tool", None) => format!("[Tool]\n{content}"),
        ("tool_error", Some(name)) => format!("[Tool Error: {name}]\n{content}"),
        ("tool_error", None) => format!("[Tool Error]\n{content}"),
        ("system_error", _) => format!("[System Error]\n{content}"),
        (role, _) => format!("[{role}]: {content}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(role: &str, content: &str, key: Option<&str>) -> Turn {
        Turn {
            role: role.into(),
            tool_name: role.starts_with("tool").then(|| "search".into()),
            content: content.into(),
            key: key.map(Into::into),
        }
    }

    fn history() -> Vec<Turn> {
        vec![
            turn("system", "You are somebody else.", Some("1.0")),
            turn("system", "From the application.", None),
            turn("user", "Hi", Some("1.1")),
            turn("assistant", "Hello", Some("1.2")),
            turn("tool", "found: 3", Some("2.0")),
            turn("tool_error", "no network", Some("2.1")),
            turn("system_error", "no tool 'x'", Some("2.2")),
        ]
    }

    #[test]
    fn every_entry_says_whose_it_is() {
        let text = history_text(Some("You are kind."), &history(), HistoryWindow::default());
        let expected = "[system]: You are kind.\n[system]: From the application.\n[user]: Hi\n[assistant]: Hello\n\
                        [Tool: search]\nfound: 3\n[Tool Error: search]\nno network\n[System Error]\nno tool 'x'";
        assert_eq!(text, expected);
        assert_eq!(entry_text("tool", None, "x"), "[Tool]\nx");
        assert_eq!(entry_text("tool_error", None, "x"), "[Tool Error]\nx");
    }

    #[test]
    fn a_window_keeps_the_newest_entries_and_the_system_prompt() {
        let newest = "[System Error]\nno tool 'x'";
        let window = |turns, characters| HistoryWindow { turns, characters };
        for (window, expected) in [
            (window(Some(1), None), format!("[system]: S\n{newest}")),
            (window(Some(0), None), "[system]: S".to_owned()),
            (window(None, Some(newest.len())), format!("[system]: S\n{newest}")),
            (window(None, Some(newest.len() - 1)), "[system]: S".to_owned()),
            (
                window(Some(2), Some(1000)),
                format!("[system]: S\n[Tool Error: search]\nno network\n{newest}"),
            ),
        ] {
            assert_eq!(history_text(Some("S"), &history(), window), expected, "{window:?}");
        }
        assert_eq!(history_text(None, &[], HistoryWindow::default()), "");
        // Characters, not bytes; and nothing older is taken instead of what doesn't fit.
        let turns = [turn("user", "a", None), turn("user", "éé", None)];
        let characters = "[user]: éé".chars().count();
        assert_eq!(history_text(None, &turns, window(None, Some(characters))), "[user]: éé");
        assert_eq!(history_text(None, &turns, window(None, Some(characters - 1))), "");
    }
}
