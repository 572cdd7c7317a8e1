//! Names and widths of numbers.

/// Bits of a number, by safetensors' names; `None` for types that are not known here.
pub(super) fn bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => 8,
        "I16" | "U16" | "F16" | "BF16" => 16,
        "I32" | "U32" | "F32" => 32,
        "I64" | "U64" | "F64" | "C64" => 64,
        "C128" => 128,
        _ => return None,
    })
}

/// A type of GGML: its name, how many numbers a block has, how many bytes.
pub(super) fn ggml(id: u32) -> Option<(&'static str, u64, u64)> {
    Some(match id {
        0 => ("F32", 1, 4),
        1 => ("F16", 1, 2),
        2 => ("Q4_0", 32, 18),
        3 => ("Q4_1", 32, 20),
        6 => ("Q5_0", 32, 22),
        7 => ("Q5_1", 32, 24),
        8 => ("Q8_0", 32, 34),
        10 => ("Q2_K", 256, 84),
        11 => ("Q3_K", 256, 110),
        12 => ("Q4_K", 256, 144),
        13 => ("Q5_K", 256, 176),
        14 => ("Q6_K", 256, 210),
        15 => ("Q8_K", 256, 292),
        16 => ("IQ2_XXS", 256, 66),
        17 => ("IQ2_XS", 256, 74),
        18 => ("IQ3_XXS", 256, 98),
        19 => ("IQ1_S", 256, 50),
        20 => ("IQ4_NL", 32, 18),
        21 => ("IQ3_S", 256, 110),
        22 => ("IQ2_S", 256, 82),
        23 => ("IQ4_XS", 256, 136),
        24 => ("I8", 1, 1),
        25 => ("I16", 1, 2),
        26 => ("I32", 1, 4),
        27 => ("I64", 1, 8),
        28 => ("F64", 1, 8),
        29 => ("IQ1_M", 256, 56),
        30 => ("BF16", 1, 2),
        34 => ("TQ1_0", 256, 54),
        35 => ("TQ2_0", 256, 66),
        39 => ("MXFP4", 32, 17),
        _ => return None,
    })
}

/// A type of ONNX.
pub(super) fn onnx(id: u64) -> Option<&'static str> {
    Some(match id {
        1 => "F32",
        2 => "U8",
        3 => "I8",
        4 => "U16",
        5 => "I16",
        6 => "I32",
        7 => "I64",
        8 => "STRING",
        9 => "BOOL",
        10 => "F16",
        11 => "F64",
        12 => "U32",
        13 => "U64",
        14 => "C64",
        15 => "C128",
        16 => "BF16",
        17 => "F8_E4M3",
        18 => "F8_E4M3FNUZ",
        19 => "F8_E5M2",
        20 => "F8_E5M2FNUZ",
        21 => "UINT4",
        22 => "INT4",
        23 => "FLOAT4E2M1",
        24 => "F8_E8M0",
        _ => return None,
    })
}

/// A storage of PyTorch, by its class in the module `torch`.
pub(super) fn torch(class: &str) -> Option<&'static str> {
    Some(match class {
        "FloatStorage" => "F32",
        "HalfStorage" => "F16",
        "BFloat16Storage" => "BF16",
        "DoubleStorage" => "F64",
        "LongStorage" => "I64",
        "IntStorage" => "I32",
        "ShortStorage" => "I16",
        "CharStorage" => "I8",
        "ByteStorage" => "U8",
        "BoolStorage" => "BOOL",
        "ComplexFloatStorage" => "C64",
        "ComplexDoubleStorage" => "C128",
        "Float8_e5m2Storage" => "F8_E5M2",
        "Float8_e4m3fnStorage" => "F8_E4M3",
        _ => return None,
    })
}

/// A type of NumPy in the order of bytes of this machine; others keep the name that NumPy has for them.
pub(super) fn numpy(descr: &str) -> Option<&'static str> {
    let (order, rest) = descr.split_at_checked(1)?;
    Some(match (order, rest) {
        ("|", "b1") => "BOOL",
        ("|", "u1") => "U8",
        ("|", "i1") => "I8",
        ("<", "u2") => "U16",
        ("<", "i2") => "I16",
        ("<", "u4") => "U32",
        ("<", "i4") => "I32",
        ("<", "u8") => "U64",
        ("<", "i8") => "I64",
        ("<", "f2") => "F16",
        ("<", "f4") => "F32",
        ("<", "f8") => "F64",
        ("<", "c8") => "C64",
        ("<", "c16") => "C128",
        _ => return None,
    })
}

/// Bytes of one number of a NumPy type; `None` for objects and what is put together of several.
pub(super) fn numpy_bytes(descr: &str) -> Option<u64> {
    let mut chars = descr.chars();
    if !matches!(chars.next(), Some('<' | '>' | '|' | '=')) {
        return None;
    }
    let kind = chars.next()?;
    // Behind the digits stands the unit of a time.
    let digits: String = chars.take_while(char::is_ascii_digit).collect();
    let count: u64 = digits.parse().ok()?;
    match kind {
        'b' | 'i' | 'u' | 'f' | 'c' | 'S' | 'V' | 'a' | 'm' | 'M' => Some(count),
        'U' => count.checked_mul(4),
        _ => None,
    }
}
