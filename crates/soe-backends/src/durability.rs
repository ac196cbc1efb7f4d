//! What a store promises about writes that it has acknowledged.

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// A power cut: what was written is synced before a write is acknowledged.
    #[default]
    Full,
    /// A crash of the process, not a power cut: nothing waits for a sync.
    Relaxed,
}
