//! How much of a conversation is sent.

/// How much of the conversation history a request takes: the newest entries that fit. Nothing is lost from what is stored,
/// and an identity's own prompt is always sent.
///
/// Written on a node as `history_window: 20` (entries), or `history_window: {turns: 20, characters: 8000}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryWindow {
    /// At most so many entries; `None`: all.
    pub turns: Option<usize>,
    /// At most so many characters of entries; `None`: all.
    pub characters: Option<usize>,
}
