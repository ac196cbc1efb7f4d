//! The examples with child workflows that ask no LLM.

mod domains;
mod fan_out;
mod map_reduce;
