//! What can be read for a backup and written back by a restore, by kind. Knows no repository.

pub mod any;
pub mod bucket;
pub mod etcd;
pub mod files;
pub mod scratch;
mod sort;
pub mod stream;
