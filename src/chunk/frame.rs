//! Frames of zstd, and the bodies that are made of several (docs/format.md, section 4).

use zstd_safe::{CCtx, CParameter, DCtx, ParamSwitch, compress_bound};

/// `u8 phase ‖ u32 z` of a body of planes.
pub(super) const PLANES_HEAD_BYTES: usize = 5;
/// A level so low that zstd finds no matches: what is left is its Huffman coder.
pub(super) const HUFFMAN_LEVEL: i32 = -1000;

/// Why a body was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid body")]
pub struct ChunkError;

/// A compressor that is made when it is first used: who only reads needs none.
pub(super) struct Compressor {
    level: i32,
    context: Option<CCtx<'static>>,
}

impl Compressor {
    pub(super) fn new(level: i32) -> Compressor {
        Compressor { level, context: None }
    }

    pub(super) fn context(&mut self) -> &mut CCtx<'static> {
        self.context.get_or_insert_with(|| {
            let mut context = CCtx::create();
            // Parameters that every zstd of this version knows cannot be refused.
            let _ = context.set_parameter(CParameter::CompressionLevel(self.level));
            let _ = context.set_parameter(CParameter::ContentSizeFlag(true));
            let _ = context.set_parameter(CParameter::ChecksumFlag(false));
            if self.level == HUFFMAN_LEVEL {
                let _ = context.set_parameter(CParameter::LiteralCompressionMode(ParamSwitch::Enable));
                let _ = context.set_parameter(CParameter::MinMatch(7));
            }
            context
        })
    }
}

/// Appends a frame; false if zstd failed.
pub(super) fn compress(compressor: &mut Compressor, plain: &[u8], out: &mut Vec<u8>) -> bool {
    out.reserve(compress_bound(plain.len()));
    let end = out.len() as u64;
    let mut tail = std::io::Cursor::new(out);
    tail.set_position(end);
    compressor.context().compress2(&mut tail, plain).is_ok()
}

/// Appends what one frame holds, at most `plain_len` bytes.
pub(super) fn decompress(
    context: &mut Option<DCtx<'_>>,
    frame: &[u8],
    plain_len: usize,
    out: &mut Vec<u8>,
) -> Result<(), ChunkError> {
    // Two frames one after another decode to both: the format has one.
    if zstd_safe::find_frame_compressed_size(frame) != Ok(frame.len()) {
        return Err(ChunkError);
    }
    if !matches!(zstd_safe::get_frame_content_size(frame), Ok(Some(size)) if size == plain_len as u64) {
        return Err(ChunkError);
    }
    out.reserve(plain_len);
    let end = out.len() as u64;
    let mut tail = std::io::Cursor::new(out);
    tail.set_position(end);
    context.get_or_insert_with(DCtx::create).decompress(&mut tail, frame).map(drop).map_err(|_| ChunkError)
}

/// The parts of a body of planes.
pub(super) struct Parts<'b> {
    /// Words.
    pub(super) count: usize,
    /// What stands before the first of them.
    pub(super) phase: &'b [u8],
    /// A frame with their most significant bytes.
    pub(super) frame: &'b [u8],
    /// Their other planes; a frame with it where both of two are frames.
    pub(super) lower: &'b [u8],
    /// What stands behind the last.
    pub(super) tail: &'b [u8],
}

impl Parts<'_> {
    /// Takes a body apart whose lengths are those of `plain_len` bytes. `both`: whether the lower plane is a frame, too.
    pub(super) fn of(body: &[u8], (width, both): (usize, bool), plain_len: usize) -> Result<Parts<'_>, ChunkError> {
        let (head, rest) = body.split_first_chunk::<PLANES_HEAD_BYTES>().ok_or(ChunkError)?;
        let phase_len = usize::from(head[0]);
        let frame_len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if phase_len >= width || phase_len > plain_len {
            return Err(ChunkError);
        }
        let count = (plain_len - phase_len) / width;
        let tail_len = plain_len - phase_len - count * width;
        let (phase, rest) = rest.split_at_checked(phase_len).ok_or(ChunkError)?;
        let (frame, rest) = rest.split_at_checked(frame_len).ok_or(ChunkError)?;
        let (lower, tail) = rest.split_at_checked(rest.len().wrapping_sub(tail_len)).ok_or(ChunkError)?;
        if !both && lower.len() != count * (width - 1) {
            return Err(ChunkError);
        }
        Ok(Parts { count, phase, frame, lower, tail })
    }
}
