//! What is done when: due runs of every policy, started once each, within limits, whatever the clock does.
//!
//! [`schedule`] decides and does nothing else: no I/O, no threads, no clock of its own. [`state`] keeps what it
//! must remember over a restart. [`engine`] turns the two, [`crew`] has the threads on which runs are at work, and
//! [`run`] is one of them. [`mend`] brings up regions that are behind, beside them.

mod agenda;
pub mod alert;
mod beat;
pub mod between;
mod child;
pub mod crew;
pub mod engine;
pub mod entrusted;
pub mod hook;
pub mod job;
mod memory;
pub mod mend;
pub mod note;
pub mod notify;
mod report;
pub mod round;
pub mod run;
pub mod schedule;
pub mod seed;
pub mod state;
pub mod tally;
pub mod teller;
mod turn;
mod webhook;
mod wrong;

pub use job::{Job, JobId};
pub use memory::{Again, Counts, Memory, Pending, Running};
pub use note::{Missed, Note};
pub use schedule::{Limits, Plan, Reading, Scheduler, Start};
