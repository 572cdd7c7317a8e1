//! Ids, units, clock and entropy, cancellation, pace and progress: std and serde only, no I/O
//! but the kernel's clock and random numbers.

pub mod cancel;
pub mod clock;
pub mod ids;
pub mod pace;
pub mod place;
pub mod progress;
pub mod units;

pub use cancel::Cancel;
pub use clock::{Env, TimeMs};
pub use ids::*;
pub use pace::Pace;
pub use place::{Bucket, Place, Service};
pub use progress::Progress;
