//! The integration tests of the adapter for openraft 0.9: one binary, a module for each subject.

mod cluster;
mod common;
#[path = "../examples/three_nodes_09/network.rs"]
mod network;
mod one_write;
mod storage;
mod suite;
mod usual;
