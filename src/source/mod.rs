//! What can be read for a backup and written back by a restore, by kind. Knows no repository.

pub mod etcd;
pub mod files;
pub mod stream;
