//! Where the secret of a key slot comes from: a passphrase, a key file, a recovery key. Reads and judges the
//! secret's form; whether it opens a slot is found out elsewhere.
//!
//! Nothing here prints, asks, or looks into the environment: the command line hands over what it was given.
//! Secrets are wiped when dropped and stand in no error, no `Debug` output and no buffer left behind. Whatever
//! yields no secret (a file that is missing, empty, too long) is [`Kind::WrongKey`], like a wrong one: a caller
//! must never go on without a key.

mod file;

pub use file::{KEY_FILE_BYTES, create_key_file, from_key_file, from_passphrase_file, from_recovery_file};

use crate::error::{Error, Kind, Result};
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use zeroize::Zeroizing;

/// Longest passphrase, in bytes.
pub const PASSPHRASE_BYTES_MAX: usize = 4096;

/// The secret that is to open a slot. `Debug` shows its kind only.
pub enum Unlock {
    /// Goes through a slow derivation.
    Passphrase(Zeroizing<String>),
    /// The content of a key file.
    KeyFile(Zeroizing<[u8; KEY_FILE_BYTES]>),
    /// The text of a recovery key, without the white space around it; not yet decoded.
    RecoveryKey(Zeroizing<String>),
}

impl Unlock {
    /// What it is, for people.
    pub fn kind(&self) -> &'static str {
        match self {
            Unlock::Passphrase(_) => "passphrase",
            Unlock::KeyFile(_) => "key file",
            Unlock::RecoveryKey(_) => "recovery key",
        }
    }
}

impl fmt::Debug for Unlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unlock({})", self.kind())
    }
}

/// A secret from a file, and what is wrong with the file although it was read: a sentence each.
#[derive(Debug)]
pub struct FromFile {
    /// The secret.
    pub unlock: Unlock,
    /// For the user to read.
    pub warnings: Vec<String>,
}

/// A passphrase that was typed or handed over, taken as it is.
///
/// # Errors
/// [`Kind::WrongKey`] when it is empty or too long.
pub fn from_passphrase(text: Zeroizing<String>) -> Result<Unlock> {
    judge_passphrase(text.as_bytes())?;
    Ok(Unlock::Passphrase(text))
}

/// The value of `HOLDFAST_PASSPHRASE`, taken as it is: no line end is cut off.
///
/// # Errors
/// [`Kind::WrongKey`] when it is empty, too long or not UTF-8.
pub fn from_env(value: OsString) -> Result<Unlock> {
    let bytes = Zeroizing::new(value.into_vec());
    passphrase(&bytes).map_err(|e| e.at("HOLDFAST_PASSPHRASE"))
}

/// A recovery key that was typed; white space around it is cut off.
///
/// # Errors
/// [`Kind::WrongKey`] when nothing is left, or far more than a recovery key has.
pub fn from_recovery_key(text: &str) -> Result<Unlock> {
    let text = text.trim();
    if text.is_empty() {
        return Err(no_secret("the recovery key is empty").advise("type it as it was written down: `hfkey1…`"));
    }
    if text.len() > PASSPHRASE_BYTES_MAX {
        return Err(no_secret("this is too long for a recovery key").advise("it begins with `hfkey1`"));
    }
    Ok(Unlock::RecoveryKey(Zeroizing::new(text.to_owned())))
}

fn no_secret(what: &str) -> Error {
    Error::new(Kind::WrongKey, what)
}

fn judge_passphrase(bytes: &[u8]) -> Result<()> {
    if bytes.is_empty() {
        return Err(no_secret("the passphrase is empty").advise("give one, or name another secret"));
    }
    if bytes.len() > PASSPHRASE_BYTES_MAX {
        let what = format!("the passphrase has more than {PASSPHRASE_BYTES_MAX} bytes");
        return Err(no_secret(&what).advise("is it the right file?"));
    }
    Ok(())
}

fn passphrase(bytes: &[u8]) -> Result<Unlock> {
    judge_passphrase(bytes)?;
    Ok(Unlock::Passphrase(Zeroizing::new(text(bytes)?.to_owned())))
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes)
        .map_err(|_| no_secret("the secret is not text (UTF-8)").advise("32 raw bytes are given as a key file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let secrets = [
            from_passphrase(Zeroizing::new("hunter2".into())).unwrap(),
            Unlock::KeyFile(Zeroizing::new(*b"hunter2hunter2hunter2hunter2hunt")),
            from_recovery_key("hunter2").unwrap(),
        ];
        for secret in secrets {
            let shown = format!("{secret:?} {secret:#?} {}", secret.kind());
            assert!(!shown.contains("hunter") && !shown.contains("104"), "{shown}");
            let shown = format!("{:?}", FromFile { unlock: secret, warnings: Vec::new() });
            assert!(!shown.contains("hunter"), "{shown}");
        }
    }

    #[test]
    fn the_environment_is_taken_as_it_is() {
        let Unlock::Passphrase(got) = from_env(" a b\n".into()).unwrap() else { panic!("another kind") };
        assert_eq!(*got, " a b\n");
        for bad in [OsString::new(), OsString::from_vec(b"hunter2\xff".to_vec()), "hunter2".repeat(1000).into()] {
            let e = from_env(bad).unwrap_err();
            assert_eq!(e.kind(), Kind::WrongKey);
            assert!(e.place() == Some("HOLDFAST_PASSPHRASE") && e.advice().is_some(), "{e}");
            assert!(!format!("{e} {e:?}").contains("hunter"), "{e}");
        }
    }

    #[test]
    fn recovery_keys_are_trimmed() {
        let Unlock::RecoveryKey(got) = from_recovery_key("\n hfkey1abc \r\n").unwrap() else { panic!("another kind") };
        assert_eq!(*got, "hfkey1abc");
        for bad in ["", " \n", &"hunter2".repeat(1000)] {
            let e = from_recovery_key(bad).unwrap_err();
            assert_eq!(e.kind(), Kind::WrongKey);
            assert!(!e.to_string().contains("hunter"), "{e}");
        }
    }

    #[test]
    fn typed_passphrases() {
        assert_eq!(from_passphrase(Zeroizing::default()).unwrap_err().kind(), Kind::WrongKey);
        assert!(from_passphrase(Zeroizing::new("x".repeat(PASSPHRASE_BYTES_MAX))).is_ok());
        assert!(from_passphrase(Zeroizing::new("x".repeat(PASSPHRASE_BYTES_MAX + 1))).is_err());
    }
}
