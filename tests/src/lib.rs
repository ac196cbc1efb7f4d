//! What the workspace's tests share.

mod docs;
pub mod sim;
pub mod trees;
