//! Cut points, chunk ids and codecs: pure.

mod codec;
mod cut;
mod float;
mod frame;
mod ids;
mod model;
mod pages;

pub use codec::{Codec, Coder, Compression};
pub use cut::{Cutter, MAX as CUT_BYTES_MAX};
pub use frame::ChunkError;
pub use ids::{IdKey, gear_seed};
pub use model::Layout;
pub use pages::{PAGES_FRONT_BYTES, Pages};
