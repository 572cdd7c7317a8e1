//! Ids of chunks and the seed of their cutting, by trust domain (docs/format.md, section 4).

use crate::base::{ChunkId, Domain};
use crate::crypto::{Secret, kd, mac};

/// Makes the chunk ids of one domain.
#[derive(Clone)]
pub struct IdKey(Secret<32>);

impl IdKey {
    /// The key of a domain.
    pub fn derive(id_root: &Secret<32>, domain: Domain) -> IdKey {
        IdKey(kd("chunk id", &[id_root.bytes(), &domain.0.to_le_bytes()]))
    }

    /// The id of a chunk.
    pub fn id(&self, plain: &[u8]) -> ChunkId {
        ChunkId(mac(self.0.bytes(), plain))
    }
}

/// Seed of the gear tables of a domain.
pub fn gear_seed(id_root: &Secret<32>, domain: Domain) -> u64 {
    let seed: Secret<8> = kd("gear", &[id_root.bytes(), &domain.0.to_le_bytes()]);
    u64::from_le_bytes(*seed.bytes())
}
