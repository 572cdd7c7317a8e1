//! Codecs, chosen by a cheap sample.

/// How a body was encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// As it is.
    Raw,
    /// zstd.
    Zstd,
}

impl Codec {
    /// Its number.
    pub fn id(self) -> u8 {
        self as u8
    }

    /// From its number.
    pub fn from_id(id: u8) -> Option<Codec> {
        [Codec::Raw, Codec::Zstd].into_iter().find(|c| c.id() == id)
    }
}

/// Why a body was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid body")]
pub struct ChunkError;

/// Encodes and decodes.
pub struct Coder {
    level: i32,
}

impl Coder {
    /// With a zstd level.
    pub fn new(level: i32) -> Coder {
        Coder { level }
    }

    /// Appends the body.
    pub fn encode(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Codec {
        let z = zstd::bulk::compress(plain, self.level).unwrap_or_default();
        if !z.is_empty() && z.len() < plain.len() / 100 * 97 {
            out.extend_from_slice(&z);
            Codec::Zstd
        } else {
            out.extend_from_slice(plain);
            Codec::Raw
        }
    }

    /// Appends exactly `plain_len` bytes.
    ///
    /// # Errors
    /// Not a valid body.
    pub fn decode(&mut self, codec: Codec, body: &[u8], plain_len: usize, out: &mut Vec<u8>) -> Result<(), ChunkError> {
        let plain = match codec {
            Codec::Raw => body.to_vec(),
            Codec::Zstd => zstd::bulk::decompress(body, plain_len).map_err(|_| ChunkError)?,
        };
        if plain.len() != plain_len {
            return Err(ChunkError);
        }
        out.extend_from_slice(&plain);
        Ok(())
    }
}
