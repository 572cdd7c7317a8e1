//! Id types: fixed-length bytes shown as hex, made by one macro. No `Default`, no `Deref`.

use std::fmt;

/// Hex of any bytes, lower case.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

/// Bytes of a lower-case hex string; `None` for anything else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let bytes = text.as_bytes();
    if !bytes.len().is_multiple_of(2) {
        return None;
    }
    bytes.chunks(2).map(|p| Some(digit(p[0])? << 4 | digit(p[1])?)).collect()
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The bytes.
            pub fn bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Full hex.
            pub fn hex(&self) -> String {
                hex(&self.0)
            }

            /// The first eight hex digits, for people.
            pub fn short(&self) -> String {
                hex(&self.0[..4])
            }

            /// From full lower-case hex.
            pub fn parse(text: &str) -> Option<Self> {
                Some(Self(unhex(text)?.try_into().ok()?))
            }

            /// From a slice of exactly the right length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Some(Self(bytes.try_into().ok()?))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(&self.0)?;
                Ok(())
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                let bytes = d.bytes()?;
                Self::from_slice(bytes)
                    .ok_or_else(|| minicbor::decode::Error::message(concat!("wrong length of ", stringify!($name))))
            }
        }
    };
}

id!(/** A repository. */ RepoId, 16);
id!(/** A region: one object store that holds a complete copy. */ RegionId, 16);
id!(/** A session, and the snapshot that it may become. */ SessionId, 16);
id!(/** A key slot. */ SlotId, 16);
id!(/** A writer: the first half of the hash of its verify key. */ WriterId, 16);
id!(/** A hold. */ HoldId, 16);
id!(/** A change of tags. */ TagsId, 16);
id!(/** A run: one execution of a verb. */ RunId, 16);
id!(/** A damaged object that was set aside. */ QuarantineId, 16);
id!(/** An object that a store is tried with. */ ProbeId, 16);
id!(/** A chunk: keyed BLAKE3 of its plaintext. */ ChunkId, 32);
id!(/** A pack: BLAKE3 of the object. */ PackName, 32);
id!(/** An index segment: BLAKE3 of the object. */ SegmentName, 32);
id!(/** BLAKE3 of an object's bytes. */ Digest, 32);

impl ChunkId {
    /// Stands for a hole in a chunk list.
    pub const HOLE: ChunkId = ChunkId([0; 32]);
}

impl Digest {
    /// Where there is nothing before.
    pub const ZERO: Digest = Digest([0; 32]);

    /// BLAKE3 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Digest(*blake3::hash(bytes).as_bytes())
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] pub u32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(/** Number of an epoch of the retention protocol. */ Epoch);
number!(/** Number of a configuration. */ ConfigNo);
number!(/** Number of a generation: a set of snapshots that share no chunk with another. */ Generation);
number!(/** Number of a trust domain. */ Domain);
number!(/** Number of a key epoch. */ KeyEpoch);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_both_ways() {
        let id = SessionId([0xab; 16]);
        assert_eq!(SessionId::parse(&id.hex()), Some(id));
        assert_eq!(SessionId::parse("AB"), None);
        assert_eq!(SessionId::parse("zz"), None);
        assert_eq!(unhex("abc"), None);
    }
}
