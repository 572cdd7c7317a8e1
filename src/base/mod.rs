//! Ids, units, clock and entropy, cancellation, pace, progress, programs that end with this one, and the allocator: std, serde and the C library only, no
//! I/O but the kernel's clock and random numbers.

pub mod cancel;
pub mod child;
pub mod clock;
pub mod ids;
pub mod memory;
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
