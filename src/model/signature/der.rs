//! As much of DER as keys and certificates need.

/// What is left to be read.
#[derive(Debug, Clone, Copy)]
pub struct Der<'a>(pub &'a [u8]);

impl<'a> Der<'a> {
    /// The next value: its tag and what it holds. `None` at the end and for what is not DER.
    pub fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (tag, rest) = self.0.split_first()?;
        let (first, rest) = rest.split_first()?;
        let (length, rest) = if *first < 0x80 {
            (usize::from(*first), rest)
        } else {
            let count = usize::from(first & 0x7f);
            let digits = rest.get(..count).filter(|_| (1..=4).contains(&count))?;
            let length = digits.iter().fold(0usize, |sum, byte| (sum << 8) | usize::from(*byte));
            (length, rest.get(count..)?)
        };
        let value = rest.get(..length)?;
        self.0 = rest.get(length..)?;
        Some((*tag, value))
    }

    /// The next value, if it has this tag.
    pub fn expect_tag(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, value)| value)
    }
}

/// A sequence.
pub const SEQUENCE: u8 = 0x30;
/// An object identifier.
pub const OID: u8 = 0x06;
/// A bit string.
pub const BITS: u8 = 0x03;
/// A byte string.
pub const BYTES: u8 = 0x04;
/// A boolean.
pub const BOOLEAN: u8 = 0x01;

/// The value of a certificate's extension, by the bytes of its identifier.
pub fn extension<'a>(certificate: &'a [u8], oid: &[u8]) -> Option<&'a [u8]> {
    let mut to_be_signed = Der(Der(Der(certificate).expect_tag(SEQUENCE)?).expect_tag(SEQUENCE)?);
    let tagged = std::iter::from_fn(|| to_be_signed.next()).find(|(tag, _)| *tag == 0xa3)?.1;
    let mut extensions = Der(Der(tagged).expect_tag(SEQUENCE)?);
    std::iter::from_fn(|| extensions.expect_tag(SEQUENCE)).find_map(|extension| {
        let mut parts = Der(extension);
        (parts.expect_tag(OID)? == oid).then_some(())?;
        std::iter::from_fn(|| parts.next()).find(|(tag, _)| *tag == BYTES).map(|(_, value)| value)
    })
}

/// Whether a certificate may issue others.
pub fn is_authority(certificate: &[u8]) -> bool {
    let constraints = extension(certificate, &[0x55, 0x1d, 0x13]);
    let inside = constraints.and_then(|value| Der(value).expect_tag(SEQUENCE));
    inside.and_then(|value| Der(value).expect_tag(BOOLEAN)) == Some(&[0xff])
}

/// Whether a certificate says that its key may not sign: it names uses, and this is not among them.
pub fn may_not_sign(certificate: &[u8]) -> bool {
    let Some(usage) = extension(certificate, &[0x55, 0x1d, 0x0f]) else { return false };
    // The first bit behind the count of unused ones.
    let bits = Der(usage).expect_tag(BITS).and_then(|bits| bits.get(1).copied());
    bits.is_none_or(|bits| bits & 0x80 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_not_believed() {
        assert_eq!(Der(&[0x30, 2, 5, 0]).next(), Some((0x30, &[5, 0][..])));
        assert_eq!(Der(&[0x30, 0x81, 1, 7]).next(), Some((0x30, &[7][..])));
        for bytes in [&[][..], &[0x30], &[0x30, 3, 0, 0], &[0x30, 0x80, 0, 0], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]] {
            assert_eq!(Der(bytes).next(), None, "{bytes:?}");
        }
        assert!(extension(&[0x30, 0x82], &[1]).is_none());
    }
}
