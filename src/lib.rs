//! Holdfast: backup, snapshot and disaster recovery.

pub mod base;
pub mod chunk;
pub mod crypto;
pub mod error;
pub mod format;
pub mod policy;
pub mod unlock;
