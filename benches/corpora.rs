//! Makes the corpora of the race that a script would be slow at, always the same bytes.
//!
//! `cargo bench --bench corpora -- random BYTES FILE`: bytes without any structure.
//! `cargo bench --bench corpora -- weights BYTES FILE`: a safetensors file of bf16 tensors, gaussian, deviation 0.02.

use std::fs::File;
use std::io::{BufWriter, Write};

type Done<T> = Result<T, Box<dyn std::error::Error>>;

/// Values of one tensor of the weights.
const TENSOR_VALUES: u64 = 16 << 20;
const SEED: &[u8; 32] = b"holdfast race corpora, version 1";

/// Random bytes in pieces of this size.
const PIECE: usize = 1 << 20;

fn random(label: &str) -> blake3::OutputReader {
    blake3::Hasher::new_keyed(SEED).update(label.as_bytes()).finalize_xof()
}

fn write_random(out: &mut impl Write, bytes: u64) -> Done<()> {
    let (mut reader, mut piece) = (random("random"), vec![0; PIECE]);
    let mut left = bytes;
    while left > 0 {
        let take = left.min(PIECE as u64) as usize;
        reader.fill(&mut piece[..take]);
        out.write_all(&piece[..take])?;
        left -= take as u64;
    }
    Ok(())
}

/// The upper half of a float, rounded to even (bfloat16).
fn bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// Tensors one after the other behind a header, as safetensors lays them out.
fn write_weights(out: &mut impl Write, bytes: u64) -> Done<()> {
    let count = (bytes / 2).div_ceil(TENSOR_VALUES);
    let entry = |n: u64| {
        let (begin, end) = (n * TENSOR_VALUES * 2, (n + 1) * TENSOR_VALUES * 2);
        format!(
            "\"model.layers.{n}.weight\":{{\"dtype\":\"BF16\",\"shape\":[4096,{}],\"data_offsets\":[{begin},{end}]}}",
            TENSOR_VALUES / 4096
        )
    };
    let mut header = format!("{{{}}}", (0..count).map(entry).collect::<Vec<_>>().join(","));
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    let (mut reader, mut piece) = (random("weights"), vec![0; PIECE]);
    let mut values = Vec::with_capacity(PIECE / 4);
    for _ in 0..count * TENSOR_VALUES * 4 / PIECE as u64 {
        reader.fill(&mut piece);
        values.clear();
        for pair in piece.chunks_exact(8) {
            // Box and Muller, 1958: two uniform numbers make two gaussian ones.
            let unit = |four: &[u8]| f64::from(u32::from_le_bytes([four[0], four[1], four[2], four[3]])) / 4294967296.0;
            let (radius, angle) =
                ((-2.0 * (1.0 - unit(&pair[..4])).ln()).sqrt(), std::f64::consts::TAU * unit(&pair[4..]));
            for part in [angle.cos(), angle.sin()] {
                values.extend(bf16((radius * part * 0.02) as f32).to_le_bytes());
            }
        }
        out.write_all(&values)?;
    }
    Ok(())
}

fn main() -> Done<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [kind, bytes, path] = args.as_slice() else {
        // Asked for with all other benchmarks: there is nothing to measure here.
        return Ok(());
    };
    let mut out = BufWriter::with_capacity(PIECE, File::create(path)?);
    match kind.as_str() {
        "random" => write_random(&mut out, bytes.parse()?)?,
        "weights" => write_weights(&mut out, bytes.parse()?)?,
        other => return Err(format!("{other}: say random or weights").into()),
    }
    Ok(out.flush()?)
}
