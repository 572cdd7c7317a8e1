//! Globs that leave entries out (or, for a restore, choose them). The last pattern that matches decides.

use crate::error::{Error, Kind, Result};
use globset::{Glob, GlobBuilder, GlobMatcher};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

#[derive(Debug, Clone)]
struct Rule {
    matcher: GlobMatcher,
    negated: bool,
    dirs_only: bool,
}

/// A list of patterns, as `.gitignore` knows them: without `/` a pattern matches a name at any depth, with
/// one it is anchored at the root; `dir/` matches directories only; `!` takes an entry back in.
#[derive(Debug, Clone, Default)]
pub struct Excludes {
    rules: Vec<Rule>,
}

impl Excludes {
    /// Compiles patterns.
    ///
    /// # Errors
    /// [`Kind::Config`], naming the pattern.
    pub fn parse(patterns: &[String]) -> Result<Excludes> {
        Ok(Excludes { rules: patterns.iter().map(|p| rule(p)).collect::<Result<_>>()? })
    }

    /// Whether a pattern can be understood, without the work of compiling it.
    ///
    /// # Errors
    /// [`Kind::Config`], naming the pattern.
    pub(super) fn understood(pattern: &str) -> Result<()> {
        glob(pattern).map(|_| ())
    }

    /// Compiles the lines of an ignore file; empty lines and comments are skipped.
    ///
    /// # Errors
    /// [`Kind::Config`], naming the pattern.
    pub fn parse_file(text: &str) -> Result<Excludes> {
        let lines = text.lines().map(str::trim_end).filter(|l| !l.is_empty() && !l.starts_with('#'));
        Ok(Excludes { rules: lines.map(rule).collect::<Result<_>>()? })
    }

    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The verdict on a path relative to the root: `None` if no pattern matches.
    pub fn verdict(&self, path: &[u8], is_dir: bool) -> Option<bool> {
        let path = Path::new(OsStr::from_bytes(path));
        let hit = self.rules.iter().rev().find(|r| (is_dir || !r.dirs_only) && r.matcher.is_match(path))?;
        Some(!hit.negated)
    }

    /// Whether the patterns match it.
    pub fn excludes(&self, path: &[u8], is_dir: bool) -> bool {
        self.verdict(path, is_dir).unwrap_or(false)
    }
}

fn rule(pattern: &str) -> Result<Rule> {
    let (glob, negated, dirs_only) = glob(pattern)?;
    Ok(Rule { matcher: glob.compile_matcher(), negated, dirs_only })
}

/// The glob of a pattern, whether it takes back in, and whether it is for directories only.
fn glob(pattern: &str) -> Result<(Glob, bool, bool)> {
    let (negated, rest) = match pattern.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let (dirs_only, rest) = match rest.strip_suffix('/') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let bad = |why: String| {
        Error::new(Kind::Config, format!("the pattern `{pattern}` cannot be understood: {why}"))
            .advise("patterns: `*.tmp`, `/cache`, `node_modules/`, `!keep.tmp`")
    };
    if rest.is_empty() {
        return Err(bad("it is empty".into()));
    }
    let glob = match rest.strip_prefix('/') {
        Some(anchored) => anchored.to_owned(),
        None if rest.contains('/') => rest.to_owned(),
        None => format!("**/{rest}"),
    };
    let built = GlobBuilder::new(&glob).literal_separator(true).backslash_escape(true).build();
    Ok((built.map_err(|e| bad(e.kind().to_string()))?, negated, dirs_only))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(patterns: &[&str]) -> Excludes {
        Excludes::parse(&patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_last_match_decides() {
        let e = set(&["*.tmp", "!keep.tmp", "/top", "a/*/c", "cache/"]);
        assert!(e.excludes(b"x.tmp", false));
        assert!(e.excludes(b"deep/down/x.tmp", false));
        assert!(!e.excludes(b"deep/keep.tmp", false));
        assert!(e.excludes(b"top", false) && !e.excludes(b"sub/top", false));
        assert!(e.excludes(b"a/b/c", false) && !e.excludes(b"a/b/d/c", false));
        assert!(e.excludes(b"x/cache", true) && !e.excludes(b"x/cache", false));
        assert!(e.excludes(b"\xff\xfe.tmp", false));
        assert!(Excludes::parse(&["[".into()]).unwrap_err().to_string().contains("`[`"));
    }
}
