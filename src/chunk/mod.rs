//! Cut points, chunk ids and codecs: pure.

mod codec;
mod cut;
mod float;
mod ids;
mod model;

pub use codec::{ChunkError, Codec, Coder, Compression};
pub use cut::{Cutter, MAX as CUT_BYTES_MAX};
pub use ids::{IdKey, gear_seed};
pub use model::Layout;
