//! Where endpoints and credentials come from: variables of the environment, and files that they name.

use super::error::StoreError;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// More than any credential has, in bytes.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Variables: those of this process, or some that are given.
#[derive(Clone, Default)]
pub struct Variables {
    given: Option<Arc<BTreeMap<String, String>>>,
}

impl std::fmt::Debug for Variables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Variables")
    }
}

impl Variables {
    /// Only these.
    pub fn of<'a>(given: impl IntoIterator<Item = (&'a str, &'a str)>) -> Variables {
        let given = given.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Variables { given: Some(Arc::new(given)) }
    }

    /// One of them; an empty one is none.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        let value = match &self.given {
            Some(given) => given.get(name).cloned(),
            None => std::env::var(name).ok(),
        };
        value.filter(|value| !value.is_empty())
    }

    /// The first of several.
    pub(super) fn first(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| self.get(name))
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1")
    }

    /// A secret: the variable `name`, or what is in the file that `name_FILE` names.
    ///
    /// # Errors
    /// Both are set, or the file cannot be read.
    pub(super) fn secret(&self, name: &str) -> Result<Option<Zeroizing<String>>, StoreError> {
        let file = self.get(&format!("{name}_FILE"));
        match (self.get(name).map(Zeroizing::new), file) {
            (Some(_), Some(_)) => {
                Err(StoreError::unfit(&name, format!("{name}_FILE is set too")).advise("leave one of them out"))
            }
            (value, None) => Ok(value),
            (None, Some(file)) => secret_file(Path::new(&file)).map(Some),
        }
    }

    /// The first of several secrets.
    pub(super) fn first_secret(&self, names: &[&str]) -> Result<Option<Zeroizing<String>>, StoreError> {
        for name in names {
            if let Some(found) = self.secret(name)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// A file in the home directory.
    pub(super) fn at_home(&self, path: &str) -> Option<PathBuf> {
        self.get("HOME").map(|home| Path::new(&home).join(path))
    }
}

/// What is in a file, without blanks around it.
fn secret_file(path: &Path) -> Result<Zeroizing<String>, StoreError> {
    let text = text_of(path)?;
    let trimmed = Zeroizing::new(text.trim().to_owned());
    match trimmed.is_empty() {
        true => Err(StoreError::unfit(&path.display(), "the file is empty")),
        false => Ok(trimmed),
    }
}

/// The text in a file of credentials.
pub(super) fn text_of(path: &Path) -> Result<Zeroizing<String>, StoreError> {
    use std::io::Read;
    let fail = |e: std::io::Error| StoreError::io("read", &path.display().to_string(), &e);
    let file = std::fs::File::open(path).map_err(fail)?;
    let mut text = Zeroizing::new(String::new());
    // Words of the reader may repeat bytes of the file.
    let read = file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text);
    match read {
        Ok(len) if len as u64 > SECRET_BYTES_MAX => Err(StoreError::unfit(&path.display(), "the file is too long")),
        Ok(_) => Ok(text),
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
            Err(StoreError::unfit(&path.display(), "the file is no text"))
        }
        Err(e) => Err(fail(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_from_one_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, " hunter2\n").unwrap();
        let path = path.to_str().unwrap();
        let both = Variables::of([("K", "hunter3"), ("K_FILE", path)]);
        let e = both.secret("K").unwrap_err().lift().to_string();
        assert!(e.contains("K_FILE is set too") && !e.contains("hunter"), "{e}");
        assert_eq!(Variables::of([("K_FILE", path)]).secret("K").unwrap().unwrap().as_str(), "hunter2");
        assert_eq!(Variables::of([("K", "hunter3")]).secret("K").unwrap().unwrap().as_str(), "hunter3");
        assert!(Variables::of([("K", "")]).secret("K").unwrap().is_none());
        assert!(Variables::of([("K_FILE", "/does/not/exist")]).secret("K").is_err());
        std::fs::write(path, [0xff, 0xfe]).unwrap();
        assert!(Variables::of([("K_FILE", path)]).secret("K").is_err());
        assert_eq!(format!("{both:?}"), "Variables");
    }
}
