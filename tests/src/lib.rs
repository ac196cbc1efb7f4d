//! What the workspace's tests share.

pub mod crashes;
mod docs;
pub mod sim;
pub mod trees;
