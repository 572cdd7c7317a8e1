//! Whether bytes are plain text, told while they are read.

use std::io::Read;

/// A reader that remembers whether all that it gave was text.
pub struct Text<R> {
    inner: R,
    is_text: bool,
    /// Bytes of a character that is not complete yet.
    rest: Vec<u8>,
}

impl<R: Read> Text<R> {
    /// Nothing was read yet.
    pub fn new(inner: R) -> Self {
        Text { inner, is_text: true, rest: Vec::new() }
    }

    /// Reads what is left; whether all of it was UTF-8 without control characters but ends of lines and tabulators.
    pub fn ends_as_text(mut self) -> bool {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => return self.is_text && self.rest.is_empty(),
                Ok(_) if !self.is_text => return false,
                Err(e) if e.kind() != std::io::ErrorKind::Interrupted => return false,
                _ => {}
            }
        }
    }

    fn look(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let (text, rest) = match std::str::from_utf8(&self.rest) {
            Ok(text) => (text, 0),
            Err(e) if e.error_len().is_none() => {
                let (whole, rest) = self.rest.split_at(e.valid_up_to());
                (std::str::from_utf8(whole).unwrap_or_default(), rest.len())
            }
            Err(_) => {
                self.is_text = false;
                self.rest = Vec::new();
                return;
            }
        };
        self.is_text = !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'));
        let kept = self.rest.len().saturating_sub(rest);
        self.rest.drain(..kept);
    }
}

impl<R: Read> Read for Text<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let got = self.inner.read(buffer)?;
        if self.is_text {
            self.look(buffer.get(..got).unwrap_or_default());
        }
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_text(bytes: &[u8], step: usize) -> bool {
        struct Steps<'a>(&'a [u8], usize);
        impl Read for Steps<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let len = buffer.len().min(self.1);
                self.0.read(&mut buffer[..len])
            }
        }
        Text::new(Steps(bytes, step)).ends_as_text()
    }

    #[test]
    fn text_is_text_however_it_comes() {
        let words = "cat\ndöner\r\n\t猫\n🐈".as_bytes();
        for step in 1..=words.len() {
            assert!(is_text(words, step));
            assert!(!is_text(&words[..words.len() - 1], step), "a character without its end");
            assert!(!is_text(&[words, b"\xff"].concat(), step));
            assert!(!is_text(&[b"\0", words].concat(), step));
        }
        assert!(is_text(b"", 1) && !is_text(b"a\x80b", 2));
    }
}
