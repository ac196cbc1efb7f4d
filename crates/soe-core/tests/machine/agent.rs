//! agent nodes
