//! etcd: snapshots of a live cluster, and the file that they are.
//!
//! A snapshot is a member's bbolt file, streamed by it, with a SHA-256 behind. What is recorded of it is read from
//! the file itself, never asked beside the stream: between two answers a cluster moves on.

pub mod bolt;
mod calls;
pub mod cluster;
mod crc;
pub mod data_dir;
pub mod follow;
pub mod grpc;
pub mod keys;
pub mod kv;
pub mod new_file;
mod proto;
pub mod rebuild;
pub mod segment;
pub mod survey;
pub mod table;
mod taken;
pub mod tools;
pub mod trial;
