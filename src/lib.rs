//! Holdfast: backup, snapshot and disaster recovery.

pub mod base;
pub mod catalog;
pub mod chunk;
pub mod cli;
pub mod cluster;
pub mod crypto;
pub mod daemon;
pub mod error;
pub mod format;
pub mod model;
pub mod ops;
pub mod policy;
pub mod region;
pub mod repo;
pub mod source;
pub mod store;
pub mod unlock;
