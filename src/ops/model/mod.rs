//! Models on this machine: what is in their files, and in which tensors two of them differ.

mod compare;
mod files;

pub use compare::{Change, Difference, Report, Side, compare};
pub use files::{Holding, files, look};
