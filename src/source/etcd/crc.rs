//! CRC-32C, by which etcd compares what its members hold.

const TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0u32; 256]; 8];
    let mut n = 0;
    while n < 256 {
        let mut crc = n as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        tables[0][n] = crc;
        n += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut n = 0;
        while n < 256 {
            let before = tables[table - 1][n];
            tables[table][n] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            n += 1;
        }
        table += 1;
    }
    tables
}

/// A sum over what was written so far.
#[derive(Debug, Clone, Copy)]
pub struct Crc(u32);

impl Default for Crc {
    fn default() -> Crc {
        Crc(!0)
    }
}

impl Crc {
    /// Takes further bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        let at = |table: usize, byte: u8| TABLES[table][usize::from(byte)];
        for word in words {
            let low = self.0.to_le_bytes();
            self.0 = at(7, word[0] ^ low[0])
                ^ at(6, word[1] ^ low[1])
                ^ at(5, word[2] ^ low[2])
                ^ at(4, word[3] ^ low[3])
                ^ at(3, word[4])
                ^ at(2, word[5])
                ^ at(1, word[6])
                ^ at(0, word[7]);
        }
        for byte in rest {
            self.0 = self.0 >> 8 ^ at(0, byte ^ self.0 as u8);
        }
    }

    /// The sum.
    pub fn sum(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_sum_of_the_standard() {
        let sum = |parts: &[&[u8]]| {
            let mut crc = Crc::default();
            parts.iter().for_each(|part| crc.write(part));
            crc.sum()
        };
        assert_eq!(sum(&[b"123456789"]), 0xe306_9283);
        assert_eq!(sum(&[b"1234", b"5", b"", b"6789"]), 0xe306_9283);
        // RFC 3720, B.4.
        assert_eq!(sum(&[&[0; 32]]), 0x8a91_36aa);
        assert_eq!(sum(&[&[0xff; 32]]), 0x62a8_ab43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(sum(&[&rising]), 0x46dd_794e);
    }
}
