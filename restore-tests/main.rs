//! The one integration-test binary: everything that is tried from outside the library.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod alerts;
mod basics;
mod catalog;
mod command_line;
mod coverage;
mod crash;
mod daemon;
mod damage;
mod forged;
mod full_disk;
mod harness;
mod hooks;
mod hostile;
mod house;
mod index_cache;
mod inside;
mod install;
mod interrupts;
mod key_files;
mod keys;
mod limits;
mod lost_parts;
mod operating;
mod policies;
mod properties;
mod reader;
mod regions;
mod retention;
mod scheduler;
mod serve;
mod sessions;
mod tidy;
mod torture;
mod vectors;
mod year;
