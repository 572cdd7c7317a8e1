//! A document that is being judged: mistakes are gathered with their places.

use super::yaml::Node;
use crate::error::{Error, Kind, Result};

/// A document and what was found wrong with it.
pub(super) struct Sheet<'a> {
    file_name: &'a str,
    root: &'a Node,
    pub found: Vec<Error>,
}

impl<'a> Sheet<'a> {
    pub fn new(file_name: &'a str, root: &'a Node) -> Self {
        Sheet { file_name, root, found: Vec::new() }
    }

    pub fn file_name(&self) -> &'a str {
        self.file_name
    }

    /// `file:line:column` of the value at a path.
    pub fn place(&self, path: &str) -> String {
        format!("{}:{}", self.file_name, self.root.nearest(path).at)
    }

    /// The error, with the field's place and path.
    pub fn at(&self, path: &str, e: Error) -> Error {
        e.at(path).at(self.place(path))
    }

    pub fn note(&mut self, path: &str, e: Error) {
        let e = self.at(path, e);
        self.found.push(e);
    }

    /// Notes something that is wrong, and what to do.
    pub fn refuse(&mut self, path: &str, what: impl Into<String>, advice: impl Into<String>) {
        self.note(path, Error::new(Kind::Config, what).advise(advice));
    }

    /// The value, or its mistake is noted.
    pub fn take<T>(&mut self, path: &str, value: Result<T>) -> Option<T> {
        value.map_err(|e| self.note(path, e)).ok()
    }
}
