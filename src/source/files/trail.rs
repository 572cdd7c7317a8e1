//! The path of an open directory, kept as a chain of names: thousands of directories in each other share what
//! they have in common, where full paths would add up to gigabytes.

use std::sync::Arc;

/// A name, and the directory that it is in.
#[derive(Debug)]
pub(super) struct Trail {
    above: Option<Arc<Trail>>,
    name: Vec<u8>,
}

impl Trail {
    /// Begins with a path.
    pub(super) fn new(path: &[u8]) -> Arc<Trail> {
        Arc::new(Trail { above: None, name: path.to_vec() })
    }

    /// A directory below.
    pub(super) fn below(self: &Arc<Trail>, name: &[u8]) -> Arc<Trail> {
        Arc::new(Trail { above: Some(Arc::clone(self)), name: name.to_vec() })
    }

    /// The path in full.
    pub(super) fn path(&self) -> Vec<u8> {
        let mut names = vec![&self.name[..]];
        let mut at = self;
        while let Some(above) = &at.above {
            names.push(&above.name);
            at = above;
        }
        let mut path = Vec::with_capacity(names.iter().map(|n| n.len() + 1).sum());
        for name in names.iter().rev() {
            join(&mut path, name);
        }
        path
    }

    /// The path of an entry; of the directory itself for an empty name.
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut path = self.path();
        if !name.is_empty() {
            join(&mut path, name);
        }
        path
    }
}

fn join(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() && path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_put_together() {
        let root = Trail::new(b"/");
        assert_eq!((root.path(), root.path_of(b"x")), (b"/".to_vec(), b"/x".to_vec()));
        let deep = Trail::new(b"/srv").below(b"a").below(b"\xff");
        assert_eq!((deep.path_of(b""), deep.path_of(b"x")), (b"/srv/a/\xff".to_vec(), b"/srv/a/\xff/x".to_vec()));
    }
}
