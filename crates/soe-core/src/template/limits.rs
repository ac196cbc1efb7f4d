//! What a template may cost. Templates may be written by a language model, so nothing about them is trusted.

/// The longest template, in bytes.
pub(crate) const MAX_SOURCE: usize = 1024 * 1024;
/// The most bytes inside `{{ }}` and `{% %}` of one template: what is compiled.
pub(crate) const MAX_CODE: usize = 8 * 1024;
/// How deep expressions and statements may nest, and how long a chain of `elif` may be.
pub(crate) const MAX_DEPTH: u16 = 64;
/// The depth that is compiled on the caller's stack: compiling recurses, in the engine as well. What is deeper gets its own.
pub(crate) const SHALLOW_DEPTH: u16 = 10;
/// The stack for what is deeper; its pages are used as needed.
pub(crate) const COMPILER_STACK: usize = 16 * 1024 * 1024;
/// The work that one evaluation may do: one unit for an instruction, an item visited or a piece of text.
pub(crate) const FUEL: u64 = 1_000_000;
/// The bytes of text that cost one unit of fuel.
pub(crate) const BYTES_PER_FUEL: usize = 32;
/// The bytes of text that cost one unit of fuel where it is only read: searched, counted, hashed or compared.
pub(crate) const BYTES_READ_PER_FUEL: usize = 256;
/// The longest text that a template may produce or build on its way.
pub(crate) const MAX_TEXT: usize = 16 * 1024 * 1024;
/// The most items that a sequence may have which a template builds.
pub(crate) const MAX_ITEMS: usize = 500_000;
/// The widest padding, indentation or precision.
pub(crate) const MAX_WIDTH: usize = 100_000;
/// How deep a value may nest to be printed, compared, converted.
pub(crate) const MAX_VALUE_DEPTH: usize = 100;
/// How deep macros and recursive loops may go, in the engine's units (a macro call costs four).
pub(crate) const RECURSION: usize = 60;
