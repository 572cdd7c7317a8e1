//! Codecs, chosen by a cheap sample. What was encoded is decoded again and compared before it counts:
//! a compressor's bug or a flipped bit must not reach the repository.

use super::float;
use super::frame::{ChunkError, Compressor, HUFFMAN_LEVEL, PLANES_HEAD_BYTES, Parts, compress, decompress};
use zstd_safe::DCtx;

/// How a body was encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    Raw = 0,
    /// One zstd frame.
    Zstd = 1,
    /// bfloat16 planes.
    Bf16 = 2,
    /// IEEE half precision planes.
    F16 = 3,
    /// IEEE single precision planes.
    F32 = 4,
    /// Both planes of words of two bytes.
    Planes = 5,
}

impl Codec {
    /// Its number.
    pub fn id(self) -> u8 {
        self as u8
    }

    /// From its number.
    pub fn from_id(id: u8) -> Option<Codec> {
        use Codec::{Bf16, F16, F32, Planes, Raw, Zstd};
        [Raw, Zstd, Bf16, F16, F32, Planes].into_iter().find(|c| c.id() == id)
    }

    /// From the number in the head of a bundle, where only raw and zstd are allowed.
    pub fn of_bundle(id: u8) -> Option<Codec> {
        Codec::from_id(id).filter(|codec| codec.width().is_none())
    }

    fn width(self) -> Option<usize> {
        match self {
            Codec::Raw | Codec::Zstd => None,
            Codec::Bf16 | Codec::F16 | Codec::Planes => Some(2),
            Codec::F32 => Some(4),
        }
    }
}

/// How much work goes into making bodies shorter. What is stored already is found whatever this is: chunks are named
/// by what they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// None: bodies stay as they are.
    None,
    /// Little.
    Fast,
    /// As much as costs little time.
    #[default]
    Default,
    /// More.
    Better,
    /// As much as there is.
    Max,
}

impl Compression {
    /// All names, in order.
    pub const NAMES: [&str; 5] = ["none", "fast", "default", "better", "max"];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// From its name.
    pub fn parse(name: &str) -> Option<Compression> {
        use Compression::{Better, Default, Fast, Max, None};
        [None, Fast, Default, Better, Max].into_iter().find(|one| one.name() == name)
    }

    /// Level of zstd. Levels below the default's cost size and gain little speed on text.
    fn level(self) -> i32 {
        match self {
            Compression::Fast => -5,
            Compression::None | Compression::Default => 1,
            Compression::Better => 9,
            Compression::Max => 19,
        }
    }

    /// The same for chunks that do not shrink by themselves, pages of databases for one: there the default's next level
    /// saves a tenth for a third more time, in text next to nothing.
    fn dense_level(self) -> i32 {
        if self == Compression::Default { 2 } else { self.level() }
    }
}

/// How a frame is made.
#[derive(Debug, Clone, Copy)]
enum Effort {
    Usual,
    /// Of what shrinks little by itself.
    Dense,
    /// Of what repeats nothing.
    Huffman,
}

/// Larger chunks are sampled before they are compressed, in bytes.
const SAMPLED_BYTES_MIN: usize = 64 << 10;
/// Length of one piece of the sample, of which there are four, in bytes.
const SAMPLE_BYTES: usize = 4 << 10;
/// Compression of the sample: fast, and telling enough.
const SAMPLE_LEVEL: i32 = -3;
/// Above this share of the sample, in hundredths, a chunk is stored as it is. Data without any structure has 100; pages of
/// a database may have 95 and still come down to 40, since what is alike lies further apart than a sample is long.
const INCOMPRESSIBLE_PERCENT: usize = 98;
/// Above this share of a sample that repeats nothing its bytes are about equally frequent.
const EVEN_PERCENT: usize = 95;
/// Above this share a chunk is dense. Program text has 10 to 45.
const DENSE_PERCENT: usize = 50;
/// Below this nothing is gained.
const ENCODED_BYTES_MIN: usize = 64;

/// One worker's contexts and scratch buffers.
pub struct Coder {
    zstd: Compressor,
    dense: Compressor,
    huffman: Compressor,
    sample: Compressor,
    decoder: Option<DCtx<'static>>,
    upper: Vec<u8>,
    lower: Vec<u8>,
    check: Vec<u8>,
    rejected: u64,
    raw: bool,
    /// Whether both planes may be frames.
    both: bool,
}

impl Default for Coder {
    fn default() -> Coder {
        Coder::new(Compression::Default)
    }
}

impl Coder {
    /// One that works so hard.
    pub fn new(compression: Compression) -> Coder {
        Coder {
            zstd: Compressor::new(compression.level()),
            dense: Compressor::new(compression.dense_level()),
            huffman: Compressor::new(HUFFMAN_LEVEL),
            sample: Compressor::new(SAMPLE_LEVEL),
            decoder: None,
            upper: Vec::new(),
            lower: Vec::new(),
            check: Vec::new(),
            rejected: 0,
            raw: compression == Compression::None,
            both: false,
        }
    }

    /// The same, which may use [`Codec::Planes`]: readers of the repository must know it.
    #[must_use]
    pub fn with_planes(self, may: bool) -> Coder {
        Coder { both: may, ..self }
    }

    /// How often, since this was asked last, an encoded body did not decode to what it was made of; each was
    /// stored raw instead.
    pub fn take_rejected(&mut self) -> u64 {
        std::mem::take(&mut self.rejected)
    }

    /// Appends the body of a chunk in the codec that suits it.
    pub fn encode(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Codec {
        if self.raw {
            return self.encode_plain(plain, out);
        }
        if let Some(layout) = float::detect(plain) {
            let codec = match (layout.width, layout.half) {
                (4, _) => Codec::F32,
                (_, true) => Codec::F16,
                (_, false) => Codec::Bf16,
            };
            let start = out.len();
            if self.float(plain, layout, codec, out) && self.holds(codec, plain, start, out) {
                return codec;
            }
            out.truncate(start);
            return self.encode_plain(plain, out);
        }
        match self.sampled_percent(plain) {
            INCOMPRESSIBLE_PERCENT.. if self.is_even() => {
                out.extend_from_slice(plain);
                Codec::Raw
            }
            INCOMPRESSIBLE_PERCENT.. => {
                let start = out.len();
                if let Some(layout) = float::few_bits(plain).filter(|_| self.both)
                    && self.float(plain, layout, Codec::Planes, out)
                    && self.holds(Codec::Planes, plain, start, out)
                {
                    return Codec::Planes;
                }
                out.truncate(start);
                self.encode_frame(Effort::Huffman, plain, out)
            }
            DENSE_PERCENT.. => self.encode_frame(Effort::Dense, plain, out),
            _ => self.encode_frame(Effort::Usual, plain, out),
        }
    }

    /// Appends `plain` as a zstd frame, or raw where that is not shorter.
    pub fn encode_plain(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Codec {
        self.encode_frame(Effort::Usual, plain, out)
    }

    fn encode_frame(&mut self, effort: Effort, plain: &[u8], out: &mut Vec<u8>) -> Codec {
        let start = out.len();
        let compressor = match effort {
            Effort::Usual => &mut self.zstd,
            Effort::Dense => &mut self.dense,
            Effort::Huffman => &mut self.huffman,
        };
        if !self.raw
            && plain.len() >= ENCODED_BYTES_MIN
            && compress(compressor, plain, out)
            && self.holds(Codec::Zstd, plain, start, out)
        {
            return Codec::Zstd;
        }
        out.truncate(start);
        out.extend_from_slice(plain);
        Codec::Raw
    }

    /// Whether the body behind `start` is worth it, and decodes to `plain`.
    fn holds(&mut self, codec: Codec, plain: &[u8], start: usize, out: &[u8]) -> bool {
        let body = &out[start..];
        if body.len() >= plain.len() - plain.len() / 32 {
            return false;
        }
        let same = self.gives(codec, body, plain).unwrap_or(false);
        self.rejected += u64::from(!same);
        same
    }

    /// Whether a body decodes to `plain`. Floats are put together word by word for it, and not kept.
    fn gives(&mut self, codec: Codec, body: &[u8], plain: &[u8]) -> Result<bool, ChunkError> {
        self.check.clear();
        let Some(width) = codec.width() else {
            decompress(&mut self.decoder, body, plain.len(), &mut self.check)?;
            return Ok(self.check == plain);
        };
        let parts = Parts::of(body, (width, codec == Codec::Planes), plain.len())?;
        decompress(&mut self.decoder, parts.frame, parts.count, &mut self.check)?;
        let mut lower = parts.lower;
        if codec == Codec::Planes {
            // What was made of it is in the body.
            self.upper.clear();
            decompress(&mut self.decoder, parts.lower, parts.count, &mut self.upper)?;
            lower = &self.upper;
        }
        let (phase, rest) = plain.split_at(parts.phase.len());
        let (words, tail) = rest.split_at(parts.count * width);
        let same = phase == parts.phase && tail == parts.tail;
        Ok(same && float::are_planes_of(&self.check, lower, width, words))
    }

    /// What a fast compressor leaves of a sample of a chunk, in hundredths; 0 for chunks that are not sampled.
    fn sampled_percent(&mut self, plain: &[u8]) -> usize {
        if plain.len() < SAMPLED_BYTES_MIN {
            return 0;
        }
        self.upper.clear();
        let step = (plain.len() - SAMPLE_BYTES) / 3;
        for piece in 0..4 {
            self.upper.extend_from_slice(&plain[piece * step..piece * step + SAMPLE_BYTES]);
        }
        self.lower.clear();
        let packed = compress(&mut self.sample, &self.upper, &mut self.lower);
        if packed { self.lower.len() * 100 / self.upper.len() } else { 0 }
    }

    /// Whether the last sample, which repeats nothing, has all bytes about as often as each other. Text in base64 and halves of
    /// few bits have not, and come down by a quarter.
    fn is_even(&mut self) -> bool {
        self.lower.clear();
        let packed = compress(&mut self.huffman, &self.upper, &mut self.lower);
        !packed || self.lower.len() * 100 / self.upper.len().max(1) >= EVEN_PERCENT
    }

    fn float(&mut self, plain: &[u8], layout: float::Layout, codec: Codec, out: &mut Vec<u8>) -> bool {
        let words_len = (plain.len() - layout.phase) / layout.width * layout.width;
        let (phase, rest) = plain.split_at(layout.phase);
        let (words, tail) = rest.split_at(words_len);
        float::split(words, layout.width, &mut self.upper, &mut self.lower);
        let start = out.len();
        out.extend_from_slice(&[layout.phase as u8, 0, 0, 0, 0]);
        out.extend_from_slice(phase);
        let frame = out.len();
        if !compress(&mut self.huffman, &self.upper, out) {
            return false;
        }
        let frame_len = (out.len() - frame) as u32;
        out[start + 1..start + PLANES_HEAD_BYTES].copy_from_slice(&frame_len.to_le_bytes());
        if codec != Codec::Planes {
            out.extend_from_slice(&self.lower);
        } else if !compress(&mut self.huffman, &self.lower, out) {
            return false;
        }
        out.extend_from_slice(tail);
        true
    }

    /// Appends exactly `plain_len` bytes; the caller has checked that number against a limit.
    ///
    /// # Errors
    /// Not a valid body; `out` may have grown.
    pub fn decode(&mut self, codec: Codec, body: &[u8], plain_len: usize, out: &mut Vec<u8>) -> Result<(), ChunkError> {
        let start = out.len();
        match codec.width() {
            Some(width) => self.join(body, (codec, width), plain_len, out)?,
            None if codec == Codec::Raw => out.extend_from_slice(body),
            None => decompress(&mut self.decoder, body, plain_len, out)?,
        }
        if out.len() - start == plain_len { Ok(()) } else { Err(ChunkError) }
    }

    fn join(
        &mut self,
        body: &[u8],
        (codec, width): (Codec, usize),
        plain_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), ChunkError> {
        let parts = Parts::of(body, (width, codec == Codec::Planes), plain_len)?;
        self.upper.clear();
        decompress(&mut self.decoder, parts.frame, parts.count, &mut self.upper)?;
        let mut lower = parts.lower;
        if codec == Codec::Planes {
            self.lower.clear();
            decompress(&mut self.decoder, parts.lower, parts.count, &mut self.lower)?;
            lower = &self.lower;
        }
        if self.upper.len() != parts.count || lower.len() != parts.count * (width - 1) {
            return Err(ChunkError);
        }
        out.reserve(plain_len);
        out.extend_from_slice(parts.phase);
        float::join(&self.upper, lower, width, out);
        out.extend_from_slice(parts.tail);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Floats around zero, as weights are: sums of four bytes of a hash, about normal.
    fn weights(count: usize) -> Vec<f32> {
        let mut xof = blake3::Hasher::new().finalize_xof();
        let mut bytes = vec![0; count * 8];
        xof.fill(&mut bytes);
        let mean = |eight: &[u8]| eight.iter().map(|b| f32::from(*b)).sum::<f32>() / 8.0 - 127.5;
        bytes.chunks_exact(8).map(|eight| mean(eight) * 0.0007 + f32::from(eight[0]) * 1e-7).collect()
    }

    fn bf16(count: usize) -> Vec<u8> {
        let noise = blake3::hash(b"noise");
        let mut low = noise.as_bytes().iter().cycle();
        weights(count)
            .iter()
            .flat_map(|w| ((w.to_bits() >> 16) as u16 ^ u16::from(*low.next().unwrap() & 0x3f)).to_le_bytes())
            .collect()
    }

    fn round_trip(plain: &[u8]) -> (Codec, usize) {
        let mut coder = Coder::default();
        let mut out = b"before".to_vec();
        let codec = coder.encode(plain, &mut out);
        assert_eq!(&out[..6], b"before");
        let mut back = b"front".to_vec();
        coder.decode(codec, &out[6..], plain.len(), &mut back).unwrap();
        assert_eq!(&back[..5], b"front");
        assert!(&back[5..] == plain);
        assert_eq!(coder.take_rejected(), 0);
        (codec, out.len() - 6)
    }

    #[test]
    fn each_kind_of_content_gets_its_codec() {
        let mut noise = vec![0; 1 << 20];
        blake3::Hasher::new_keyed(&[3; 32]).finalize_xof().fill(&mut noise);
        assert_eq!(round_trip(&noise), (Codec::Raw, 1 << 20));
        let text = b"the quick brown fox jumps over the lazy dog\n".repeat(20_000);
        assert_eq!(round_trip(&text).0, Codec::Zstd);
        assert_eq!(round_trip(b"").0, Codec::Raw);
        assert_eq!(round_trip(b"short").0, Codec::Raw);
        assert_eq!(round_trip(&vec![0; 4 << 20]).0, Codec::Zstd);
        let singles: Vec<u8> = weights(200_000).iter().flat_map(|w| w.to_le_bytes()).collect();
        let (codec, len) = round_trip(&singles);
        assert_eq!(codec, Codec::F32);
        assert!(len < singles.len() / 100 * 88, "{len}");
        for cut in [1, 2, 3, 5] {
            assert_eq!(round_trip(&singles[cut..]).0, Codec::F32, "cut {cut}");
        }
        let halves = bf16(400_000);
        for cut in 0..4 {
            let (codec, len) = round_trip(&halves[cut..halves.len() - cut]);
            assert_eq!(codec, Codec::Bf16, "cut {cut}");
            assert!(len < halves.len() / 100 * 75, "{len}");
        }
    }

    /// Rows as a database has them: keys of noise, and texts of a few thousand words in any order.
    fn pages(len: usize) -> Vec<u8> {
        let mut xof = blake3::Hasher::new_keyed(&[5; 32]).finalize_xof();
        let mut some = move |n: usize| {
            let mut bytes = vec![0; n];
            xof.fill(&mut bytes);
            bytes
        };
        let letters = b"etaoinshrdlu";
        let mut word = |_| -> Vec<u8> {
            let len = 3 + usize::from(some(1)[0] % 7);
            some(len).iter().map(|b| letters[usize::from(b % 12)]).collect()
        };
        let words: Vec<Vec<u8>> = (0..5000).map(&mut word).collect();
        let mut out = Vec::new();
        while out.len() < len {
            out.extend(some(16));
            for pair in some(120).chunks_exact(2) {
                out.extend_from_slice(&words[usize::from(u16::from_le_bytes([pair[0], pair[1]])) % words.len()]);
                out.push(b' ');
            }
        }
        out.truncate(len);
        out
    }

    #[test]
    fn what_a_sample_calls_dense_still_comes_down() {
        let pages = pages(1 << 20);
        let mut coder = Coder::default();
        assert!((DENSE_PERCENT..INCOMPRESSIBLE_PERCENT).contains(&coder.sampled_percent(&pages)));
        let (codec, len) = round_trip(&pages);
        assert_eq!(codec, Codec::Zstd);
        let mut light = Vec::new();
        coder.encode_plain(&pages, &mut light);
        assert!(len < light.len() / 100 * 94, "{len} of {}", light.len());
        assert!(coder.sampled_percent(&include_bytes!("codec.rs").repeat(5)) < DENSE_PERCENT);
    }

    #[test]
    fn what_repeats_nothing_is_stored_by_how_often_its_bytes_are() {
        let mut noise = vec![0; 1 << 20];
        blake3::Hasher::new_keyed(&[4; 32]).finalize_xof().fill(&mut noise);
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let text: Vec<u8> = noise.iter().map(|b| letters[usize::from(b % 64)]).collect();
        let (codec, len) = round_trip(&text);
        assert_eq!(codec, Codec::Zstd);
        assert!(len < text.len() / 100 * 77, "{len}");
        // Halves that were made of bfloat16: the last three bits of each are nothing.
        let halves = weights(400_000).into_iter().flat_map(|w| {
            let bits = w.to_bits();
            let half = (bits >> 16 & 0x8000) | ((bits >> 23 & 0xff).saturating_sub(112) << 10) | (bits >> 13 & 0x3f8);
            (half as u16).to_le_bytes()
        });
        let halves: Vec<u8> = halves.collect();
        let (codec, len) = round_trip(&halves);
        assert!(codec == Codec::Zstd && len < 800_000 / 100 * 85, "{codec:?} {len}");
        for cut in 0..3 {
            let (plain, mut body, mut back) = (&halves[cut..halves.len() - cut], Vec::new(), Vec::new());
            let mut coder = Coder::default().with_planes(true);
            assert_eq!(coder.encode(plain, &mut body), Codec::Planes, "cut {cut}");
            assert!(body.len() < len / 100 * 90, "{} of {len}", body.len());
            Coder::default().decode(Codec::Planes, &body, plain.len(), &mut back).unwrap();
            assert!(back == plain && coder.take_rejected() == 0);
            for wrong in [&body[..body.len() - 1], &[&body[..], &[0]].concat(), &body[..9]] {
                assert!(coder.decode(Codec::Planes, wrong, plain.len(), &mut Vec::new()).is_err());
            }
            assert!(coder.decode(Codec::F16, &body, plain.len(), &mut Vec::new()).is_err());
            assert!(coder.decode(Codec::Planes, &body, plain.len() - 2, &mut Vec::new()).is_err());
        }
        let mut coder = Coder::default().with_planes(true);
        assert_eq!(coder.encode(&text, &mut Vec::new()), Codec::Zstd);
    }

    #[test]
    fn more_work_gives_less_and_none_leaves_it_as_it_is() {
        let text = include_bytes!("codec.rs");
        let mut sizes = Vec::new();
        for name in Compression::NAMES {
            let compression = Compression::parse(name).unwrap();
            assert_eq!(compression.name(), name);
            let (mut coder, mut out, mut back) = (Coder::new(compression), Vec::new(), Vec::new());
            let codec = coder.encode(text, &mut out);
            assert_eq!(codec == Codec::Raw, compression == Compression::None);
            // Any coder reads it.
            Coder::default().decode(codec, &out, text.len(), &mut back).unwrap();
            assert!(back == text);
            sizes.push(out.len());
        }
        assert!(sizes.windows(2).all(|pair| pair[0] > pair[1]), "{sizes:?}");
        assert_eq!((sizes[0], Compression::parse("best")), (text.len(), None));
    }

    #[test]
    fn bodies_that_lie_about_their_lengths_are_refused() {
        let halves = bf16(100_000);
        let mut coder = Coder::default();
        let mut body = Vec::new();
        let codec = coder.encode(&halves, &mut body);
        assert_eq!(codec, Codec::Bf16);
        let mut refuse = |codec, body: &[u8], len| assert!(coder.decode(codec, body, len, &mut Vec::new()).is_err());
        refuse(codec, &body, halves.len() - 1);
        refuse(codec, &body, halves.len() + 2);
        refuse(codec, &body[..body.len() - 1], halves.len());
        refuse(codec, &[&body[..], &[0]].concat(), halves.len());
        refuse(codec, &[&[2], &body[1..]].concat(), halves.len());
        refuse(codec, &[&body[..1], &[0xff; 4], &body[5..]].concat(), halves.len());
        refuse(Codec::F32, &body, halves.len());
        refuse(Codec::Zstd, &body, halves.len());
        refuse(Codec::Raw, &body, halves.len());
        refuse(codec, b"", 0);
    }

    #[test]
    fn one_frame_of_the_right_size_and_nothing_else() {
        let mut coder = Coder::default();
        let plain = vec![7; 10_000];
        let mut frame = Vec::new();
        assert_eq!(coder.encode_plain(&plain, &mut frame), Codec::Zstd);
        let twice = [&frame[..], &frame[..]].concat();
        assert!(coder.decode(Codec::Zstd, &twice, 20_000, &mut Vec::new()).is_err());
        assert!(coder.decode(Codec::Zstd, &frame, 9_999, &mut Vec::new()).is_err());
        assert!(coder.decode(Codec::Zstd, &frame[..frame.len() - 1], 10_000, &mut Vec::new()).is_err());
        assert!(coder.decode(Codec::Zstd, b"", 0, &mut Vec::new()).is_err());
    }
}
