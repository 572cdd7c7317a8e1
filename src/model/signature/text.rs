//! Base64 and PEM, strictly.

/// Bytes of base64 in its usual alphabet, padded; `None` for anything else.
pub fn base64(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let last = (text.len() / 4).checked_sub(1);
    for (n, group) in text.chunks_exact(4).enumerate() {
        let padding = group.iter().rev().take_while(|byte| **byte == b'=').count();
        if padding > 2 || (padding > 0 && Some(n) != last) {
            return None;
        }
        let digits = group.get(..4 - padding)?;
        let bits = digits.iter().try_fold(0u32, |sum, byte| Some((sum << 6) | digit(*byte)?))? << (6 * padding);
        let bytes = bits.to_be_bytes();
        let (kept, unused) = (bytes.get(1..4 - padding)?, bytes.get(4 - padding..)?);
        // Bits that belong to no byte are zero, so that there is one text for the same bytes.
        if unused.iter().any(|byte| *byte != 0) {
            return None;
        }
        out.extend_from_slice(kept);
    }
    Some(out)
}

fn digit(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

/// All blocks of a PEM file: label and bytes. `None` if one is broken.
pub fn pem(text: &str) -> Option<Vec<(String, Vec<u8>)>> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines().map(str::trim) {
        if let Some(label) = line.strip_prefix("-----BEGIN ").and_then(|l| l.strip_suffix("-----")) {
            open.is_none().then(|| open = Some((label.to_owned(), String::new())))?;
        } else if let Some(label) = line.strip_prefix("-----END ").and_then(|l| l.strip_suffix("-----")) {
            let (begun, body) = open.take()?;
            blocks.push((Some(begun).filter(|begun| begun == label)?, base64(&body)?));
        } else if let Some((_, body)) = &mut open {
            body.push_str(line);
        }
    }
    open.is_none().then_some(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_has_one_text_for_the_same_bytes() {
        for (text, bytes) in [("", &b""[..]), ("Zg==", b"f"), ("Zm8=", b"fo"), ("Zm9v", b"foo"), ("Zm9vYg==", b"foob")]
        {
            assert_eq!(base64(text).as_deref(), Some(bytes), "{text}");
        }
        for text in ["Z", "Zg", "Zg=", "Zh==", "Zm9=", "Z===", "====", "Zg==Zg==", "Zm-_", "Zm9v\n"] {
            assert_eq!(base64(text), None, "{text}");
        }
    }

    #[test]
    fn pem_is_read_in_blocks() {
        let block = "-----BEGIN A-----\nZm\n9v\n-----END A-----\n";
        let twice = format!("words\n{block}{}", block.replace('A', "B"));
        assert_eq!(pem(&twice), Some(vec![("A".into(), b"foo".to_vec()), ("B".into(), b"foo".to_vec())]));
        assert_eq!(pem(&block.replace("END A", "END B")), None);
        assert_eq!(pem("-----BEGIN A-----\nZm9v\n"), None);
        assert_eq!(pem("nothing"), Some(vec![]));
    }
}
