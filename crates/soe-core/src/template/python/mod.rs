//! Python's values over the engine's: what they are called, how they print, compare and add up.

pub(crate) mod arith;
pub(crate) mod args;
pub(crate) mod compare;
pub(crate) mod digits;
pub(crate) mod kinds;
pub(crate) mod meter;
pub(crate) mod objects;
pub(crate) mod printf;
pub(crate) mod sequence;
pub(crate) mod str_format;
pub(crate) mod text;

/// The result of everything that runs inside the engine.
pub(crate) type Result<T> = std::result::Result<T, minijinja::Error>;
