//! What the workspace's tests share.

mod docs;
pub mod trees;
