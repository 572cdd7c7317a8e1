//! Holdfast: backup, snapshot and disaster recovery.

pub mod base;
pub mod crypto;
pub mod error;
pub mod format;
