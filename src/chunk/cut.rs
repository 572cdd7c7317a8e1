//! Content-defined cutting: FastCDC 2020 (Xia et al.) with a gear table of the repository's own.

use fastcdc::v2020::{Normalization, cut_gear, get_gear_with_seed, select_masks};

/// Smallest chunk but the last, in bytes.
pub const MIN: usize = 256 << 10;
/// Average, in bytes.
pub const AVG: usize = 1 << 20;
/// Largest, in bytes.
pub const MAX: usize = 4 << 20;
/// The same for small pieces.
const SMALL_MIN: usize = 2 << 10;
const SMALL_AVG: usize = 8 << 10;
const SMALL_MAX: usize = 64 << 10;

/// Finds cut points.
pub struct Cutter {
    min: usize,
    avg: usize,
    max: usize,
    gear: Vec<u64>,
    gear_ls: Vec<u64>,
    mask_s: u64,
    mask_l: u64,
}

impl Cutter {
    /// For the `files` profile.
    pub fn files(gear_seed: u64) -> Cutter {
        Self::of((MIN, AVG, MAX), gear_seed)
    }

    /// For small pieces: of a file that is changed in many places by a little.
    pub fn small(gear_seed: u64) -> Cutter {
        Self::of((SMALL_MIN, SMALL_AVG, SMALL_MAX), gear_seed)
    }

    fn of((min, avg, max): (usize, usize, usize), gear_seed: u64) -> Cutter {
        let (gear, gear_ls) = get_gear_with_seed(gear_seed);
        let (mask_s, mask_l) = select_masks(avg, Normalization::Level2);
        Cutter { min, avg, max, gear: gear.into_owned(), gear_ls: gear_ls.into_owned(), mask_s, mask_l }
    }

    /// Length of the chunk at the front of `data`; `None` if more bytes are needed to tell.
    pub fn next(&self, data: &[u8], at_end: bool) -> Option<usize> {
        let Cutter { min, avg, max, mask_s, mask_l, .. } = *self;
        let window = &data[..data.len().min(max)];
        let whole = (at_end || window.len() == max).then_some(window.len()).filter(|len| *len > 0);
        if window.len() <= min {
            return whole;
        }
        let (_, len) =
            cut_gear(window, min, avg, max, mask_s, mask_l, mask_s << 1, mask_l << 1, &self.gear, &self.gear_ls);
        // A cut inside depends on the bytes before it alone.
        if len < window.len() { Some(len) } else { whole }
    }
}
