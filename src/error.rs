//! Errors by the reaction they ask for, and the exit codes that follow from them.
//!
//! Layers below `repo` have small typed errors of their own; from `region` up everything is
//! [`Error`]: what happened, where, and what to do, on one line.

use std::fmt;

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The same call may succeed later: a region is unreachable, slow, or full.
    Retry,
    /// Wrong usage or configuration.
    Config,
    /// Stored bytes are damaged, swapped, forged or rolled back.
    Damage,
    /// The object of another repository stands where ours should be.
    Foreign,
    /// A thing named by the caller does not exist.
    NotFound,
    /// There is no repository at this place.
    NoRepository,
    /// The secret opens no slot.
    WrongKey,
    /// The store or the file system refused the permission.
    Denied,
    /// No space is left.
    Full,
    /// The repository needs a newer program.
    Newer,
    /// A rule, a hold or a brake forbids it.
    Refused,
    /// The source could not be read or the target not be written.
    Source,
    /// Stopped by the user.
    Cancelled,
    /// A mistake of this program.
    Bug,
}

impl Kind {
    /// The name used in `--json`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Retry => "retry",
            Kind::Config => "config",
            Kind::Damage => "damage",
            Kind::Foreign => "foreign",
            Kind::NotFound => "not-found",
            Kind::NoRepository => "no-repository",
            Kind::WrongKey => "wrong-key",
            Kind::Denied => "denied",
            Kind::Full => "full",
            Kind::Newer => "newer",
            Kind::Refused => "refused",
            Kind::Source => "source",
            Kind::Cancelled => "cancelled",
            Kind::Bug => "bug",
        }
    }
}

/// Exit codes, the same for every verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything asked for was done.
    Done = 0,
    /// Fewer than `copies.min` complete copies, or nothing usable.
    Failed = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Done, but part of the source could not be read or restored.
    Partial = 3,
    /// Stored with at least `copies.min` copies; a region is behind.
    Behind = 4,
    /// Damage found.
    Damage = 5,
    /// No repository there.
    NoRepository = 10,
    /// Refused by a rule.
    Refused = 11,
    /// Wrong key.
    WrongKey = 12,
    /// Interrupted.
    Interrupted = 130,
}

impl Exit {
    /// All of them, by number.
    pub const ALL: [Exit; 10] = [
        Exit::Done,
        Exit::Failed,
        Exit::Usage,
        Exit::Partial,
        Exit::Behind,
        Exit::Damage,
        Exit::NoRepository,
        Exit::Refused,
        Exit::WrongKey,
        Exit::Interrupted,
    ];

    /// Where two apply, the first of 1, 5, 3, 4 counts.
    pub fn worse(self, other: Exit) -> Exit {
        let rank = |e: Exit| match e {
            Exit::Failed => 0,
            Exit::Damage => 1,
            Exit::Partial => 2,
            Exit::Behind => 3,
            Exit::Done => 5,
            _ => 4,
        };
        if rank(self) <= rank(other) { self } else { other }
    }

    /// The name used in `--json`.
    pub fn name(self) -> &'static str {
        match self {
            Exit::Done => "done",
            Exit::Failed => "failed",
            Exit::Usage => "usage",
            Exit::Partial => "partial",
            Exit::Behind => "behind",
            Exit::Damage => "damage",
            Exit::NoRepository => "no-repository",
            Exit::Refused => "refused",
            Exit::WrongKey => "wrong-key",
            Exit::Interrupted => "interrupted",
        }
    }
}

/// One error: what, where, what to do. `Display` is one line and never holds a secret.
#[derive(Debug, Clone)]
pub struct Error {
    kind: Kind,
    what: String,
    place: Option<String>,
    advice: Option<String>,
    more: Vec<Error>,
}

/// Result of everything from `region` up.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of this kind that says what happened.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Error { kind, what: what.into(), place: None, advice: None, more: Vec::new() }
    }

    /// Adds where it happened (region and object, file, line). The innermost place comes last.
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.place = Some(match self.place {
            None => place.to_string(),
            Some(inner) => format!("{place}: {inner}"),
        });
        self
    }

    /// Adds what the reader can do, unless something closer to the cause was said already.
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice.get_or_insert(advice.into());
        self
    }

    /// The same, behind what was said already.
    pub fn advise_also(mut self, advice: impl fmt::Display) -> Self {
        self.advice = Some(match self.advice {
            None => advice.to_string(),
            Some(first) => format!("{first}; {advice}"),
        });
        self
    }

    /// All of them as one: the first, which says how to react, and the others behind it. `None` without any.
    pub fn all(errors: Vec<Error>) -> Option<Error> {
        let mut rest = errors.into_iter();
        let mut first = rest.next()?;
        first.more.extend(rest);
        Some(first)
    }

    /// The others that were found together with this one.
    pub fn more(&self) -> &[Error] {
        &self.more
    }

    /// The reaction it asks for.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The same error, judged differently by someone who knows more.
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// What happened, without place and advice.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Where it happened.
    pub fn place(&self) -> Option<&str> {
        self.place.as_deref()
    }

    /// What to do about it.
    pub fn advice(&self) -> Option<&str> {
        self.advice.as_deref()
    }

    /// The exit code of a verb that ends with this error.
    pub fn exit(&self) -> Exit {
        match self.kind {
            Kind::Config => Exit::Usage,
            Kind::Damage | Kind::Foreign => Exit::Damage,
            Kind::NoRepository => Exit::NoRepository,
            Kind::WrongKey => Exit::WrongKey,
            Kind::Refused => Exit::Refused,
            Kind::Cancelled => Exit::Interrupted,
            Kind::Retry | Kind::NotFound | Kind::Denied | Kind::Full | Kind::Newer | Kind::Source | Kind::Bug => {
                Exit::Failed
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(place) = &self.place {
            write!(f, " [{place}]")?;
        }
        if let Some(advice) = &self.advice {
            write!(f, "; {advice}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worse_exit_wins() {
        assert_eq!(Exit::Partial.worse(Exit::Behind), Exit::Partial);
        assert_eq!(Exit::Behind.worse(Exit::Damage), Exit::Damage);
        assert_eq!(Exit::Done.worse(Exit::Behind), Exit::Behind);
        assert_eq!(Exit::Damage.worse(Exit::Failed), Exit::Failed);
    }

    #[test]
    fn every_exit_is_listed_once_by_number() {
        assert!(Exit::ALL.windows(2).all(|pair| (pair[0] as u8) < pair[1] as u8));
        // Who adds one must say where it stands here, and so meets the list.
        let place = |exit: Exit| match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Partial => 3,
            Exit::Behind => 4,
            Exit::Damage => 5,
            Exit::NoRepository => 6,
            Exit::Refused => 7,
            Exit::WrongKey => 8,
            Exit::Interrupted => 9,
        };
        assert!(Exit::ALL.iter().enumerate().all(|(n, exit)| place(*exit) == n));
    }

    #[test]
    fn an_error_says_what_where_and_what_to_do() {
        let e = Error::new(Kind::Damage, "checksum differs").at("packs/aa").at("region a").advise("run verify");
        assert_eq!(e.to_string(), "checksum differs [region a: packs/aa]; run verify");
        let e = e.advise("do nothing").advise_also("or do more");
        assert_eq!(e.advice(), Some("run verify; or do more"));
    }
}
