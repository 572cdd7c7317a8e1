//! Floats split into planes: exponents compress, mantissas do not (docs/format.md, section 4).
//!
//! Rotating a word left by one bit puts its exponent into the most significant byte and its sign into the
//! least significant bit. That byte of all words goes through an entropy coder; the others are noise.

/// Which bytes of a sample are looked at, in bytes.
const SAMPLE_BYTES: usize = 4 << 10;
/// Entropy of an exponent plane, in bits a byte: bf16 and f32 weights have about 2.6.
const EXPONENT_BITS_MAX: f32 = 5.0;
/// The upper byte of an f16 holds three bits of mantissa besides its five of exponent.
const F16_UPPER_BITS_MAX: f32 = 6.4;
/// Entropy of a mantissa plane, in bits a byte; a sample of 4,096 random bytes shows 7.95.
const MANTISSA_BITS_MIN: f32 = 7.5;
/// What is gained, in bits a byte, where two planes are coded each by itself: below it, it is not worth the second frame.
const APART_BITS_MIN: f32 = 0.25;

/// How words lie in a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Bytes of a word: 2 or 4.
    pub(super) width: usize,
    /// Bytes before the first whole word.
    pub(super) phase: usize,
    /// Whether the upper byte holds mantissa bits too.
    pub(super) half: bool,
}

/// Histogram of bytes of several words.
struct Histogram([u32; 256], u32);

impl Histogram {
    fn new() -> Self {
        Histogram([0; 256], 0)
    }

    fn add(&mut self, byte: u8) {
        self.0[usize::from(byte)] += 1;
        self.1 += 1;
    }

    /// Shannon entropy, bits a byte.
    fn bits(&self) -> f32 {
        let total = self.1.max(1) as f32;
        let term = |n: &u32| *n as f32 / total * (*n as f32 / total).log2();
        -self.0.iter().filter(|n| **n > 0).map(term).sum::<f32>()
    }
}

/// Whether `plain` looks like floats, from two samples.
pub(super) fn detect(plain: &[u8]) -> Option<Layout> {
    if plain.len() < 4 * SAMPLE_BYTES {
        return None;
    }
    let layouts = [2usize, 4].into_iter().flat_map(|width| (0..width).map(move |phase| (width, phase)));
    let mut half = None;
    for (width, phase) in layouts {
        let (upper, lower) = sample(plain, width, phase);
        if lower < MANTISSA_BITS_MIN {
            continue;
        }
        if upper < EXPONENT_BITS_MAX {
            return Some(Layout { width, phase, half: false });
        }
        if width == 2 && upper < F16_UPPER_BITS_MAX {
            half.get_or_insert(Layout { width, phase, half: true });
        }
    }
    half
}

/// Where words of two bytes begin whose halves are each coded in fewer bits than all bytes together, as those of f16 are that
/// were made of numbers with fewer bits. For what repeats nothing.
pub(super) fn few_bits(plain: &[u8]) -> Option<Layout> {
    if plain.len() < 4 * SAMPLE_BYTES {
        return None;
    }
    let bits = |phase| {
        let (mut upper, lower) = histograms(plain, 2, phase);
        let apart = (upper.bits() + lower.bits()) / 2.0;
        lower.0.iter().zip(&mut upper.0).for_each(|(low, up)| *up += low);
        upper.1 += lower.1;
        (phase, apart, upper.bits() - apart)
    };
    let [even, odd] = [bits(0), bits(1)];
    let (phase, _, gain) = if odd.1 < even.1 { odd } else { even };
    (gain >= APART_BITS_MIN).then_some(Layout { width: 2, phase, half: true })
}

/// Entropies of the upper and the lower bytes of rotated words.
fn sample(plain: &[u8], width: usize, phase: usize) -> (f32, f32) {
    let (upper, lower) = histograms(plain, width, phase);
    (upper.bits(), lower.bits())
}

fn histograms(plain: &[u8], width: usize, phase: usize) -> (Histogram, Histogram) {
    let (mut upper, mut lower) = (Histogram::new(), Histogram::new());
    for start in [phase, plain.len() / 2 / width * width + phase] {
        let piece = plain.get(start..).unwrap_or_default();
        for word in piece[..piece.len().min(SAMPLE_BYTES)].chunks_exact(width) {
            let (high, next) = (word[width - 1], word[width - 2]);
            upper.add(high << 1 | next >> 7);
            lower.add(next << 1 | if width == 2 { high >> 7 } else { word[width - 3] >> 7 });
        }
    }
    (upper, lower)
}

/// Makes `upper` the exponent plane and `lower` the other planes, from the second most significant byte down.
/// `words` is a whole number of words.
pub(super) fn split(words: &[u8], width: usize, upper: &mut Vec<u8>, lower: &mut Vec<u8>) {
    let count = words.len() / width;
    // Every byte is written below: what was there before need not be cleared.
    upper.resize(count, 0);
    lower.resize(count * (width - 1), 0);
    if width == 2 {
        let pairs = words.as_chunks::<2>().0;
        for ((word, up), low) in pairs.iter().zip(upper.iter_mut()).zip(lower.iter_mut()) {
            let [l, u] = u16::from_le_bytes(*word).rotate_left(1).to_le_bytes();
            (*up, *low) = (u, l);
        }
        return;
    }
    let (second, rest) = lower.split_at_mut(count);
    let (third, fourth) = rest.split_at_mut(count);
    let outs = upper.iter_mut().zip(second).zip(third.iter_mut().zip(fourth));
    for (word, ((a, b), (c, d))) in words.as_chunks::<4>().0.iter().zip(outs) {
        let bytes = u32::from_le_bytes(*word).rotate_left(1).to_le_bytes();
        (*a, *b, *c, *d) = (bytes[3], bytes[2], bytes[1], bytes[0]);
    }
}

/// Appends the words of which [`split`] made the planes. `lower` has `width - 1` times the length of `upper`.
pub(super) fn join(upper: &[u8], lower: &[u8], width: usize, out: &mut Vec<u8>) {
    let count = upper.len();
    let start = out.len();
    out.resize(start + count * width, 0);
    let words = &mut out[start..];
    if width == 2 {
        for ((word, up), low) in words.as_chunks_mut::<2>().0.iter_mut().zip(upper).zip(lower) {
            *word = u16::from_le_bytes([*low, *up]).rotate_right(1).to_le_bytes();
        }
        return;
    }
    let (second, rest) = lower.split_at(count);
    let (third, fourth) = rest.split_at(count);
    let ins = upper.iter().zip(second).zip(third.iter().zip(fourth));
    for (word, ((a, b), (c, d))) in words.as_chunks_mut::<4>().0.iter_mut().zip(ins) {
        *word = u32::from_le_bytes([*d, *c, *b, *a]).rotate_right(1).to_le_bytes();
    }
}

/// Whether the planes are those of these words: joins and compares in one pass, and keeps nothing.
pub(super) fn are_planes_of(upper: &[u8], lower: &[u8], width: usize, words: &[u8]) -> bool {
    let count = upper.len();
    if words.len() != count * width || lower.len() != count * (width - 1) {
        return false;
    }
    // Every word is looked at: a branch in each would cost more than what an early end saves.
    if width == 2 {
        let mut differ = 0;
        for ((word, up), low) in words.as_chunks::<2>().0.iter().zip(upper).zip(lower) {
            differ |= u16::from_le_bytes(*word) ^ u16::from_le_bytes([*low, *up]).rotate_right(1);
        }
        return differ == 0;
    }
    let (second, rest) = lower.split_at(count);
    let (third, fourth) = rest.split_at(count);
    let planes = upper.iter().zip(second).zip(third.iter().zip(fourth));
    let mut differ = 0;
    for (word, ((a, b), (c, d))) in words.as_chunks::<4>().0.iter().zip(planes) {
        differ |= u32::from_le_bytes(*word) ^ u32::from_le_bytes([*d, *c, *b, *a]).rotate_right(1);
    }
    differ == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_join_to_what_was_split() {
        for width in [2, 4] {
            let words: Vec<u8> = (0..4096u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
            let (mut upper, mut lower, mut back) = (Vec::new(), Vec::new(), Vec::new());
            split(&words, width, &mut upper, &mut lower);
            assert_eq!(upper.len(), words.len() / width);
            assert_eq!(upper[1], {
                let w = &words[width..2 * width];
                w[width - 1] << 1 | w[width - 2] >> 7
            });
            join(&upper, &lower, width, &mut back);
            assert_eq!(back, words);
        }
    }

    #[test]
    fn planes_of_other_words_are_told_apart() {
        for width in [2, 4] {
            let mut words: Vec<u8> = (0..999u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
            let (mut upper, mut lower) = (vec![7; 9000], vec![7; 10]);
            split(&words, width, &mut upper, &mut lower);
            assert!(are_planes_of(&upper, &lower, width, &words));
            for at in [0, 1, 2, 3, 500, words.len() - 1] {
                for bit in 0..8 {
                    words[at] ^= 1 << bit;
                    assert!(!are_planes_of(&upper, &lower, width, &words), "byte {at}, bit {bit}");
                    words[at] ^= 1 << bit;
                }
            }
            for plane in [&mut upper, &mut lower] {
                let last = plane.len() - 1;
                plane[last] ^= 0x10;
            }
            assert!(!are_planes_of(&upper, &lower, width, &words));
            assert!(!are_planes_of(&upper[1..], &lower, width, &words));
            assert!(!are_planes_of(&upper, &lower[1..], width, &words));
        }
    }
}
