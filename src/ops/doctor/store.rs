//! What the answers of one store mean.

use super::check::{Check, Grade};
use crate::base::units;
use crate::store::{
    Creates, Deletion, Examined, Ground, Lasting, Lock, Rate, StoreError, StoreErrorKind, Tried, Versioning,
};
use std::time::Duration;

/// A clock this far away is worth knowing, ms.
const CLOCK_NOTE_MS: i64 = 5_000;
/// Behind ours by more than this, and what is stored seems to come from the future: retention does not believe it, ms.
pub(super) const CLOCK_BAD_MS: i64 = 5 * 60_000;
/// Answers that take longer make every verb slow.
const SLOW: Duration = Duration::from_millis(500);
/// Less space than this does not last.
const SPACE_LOW_BYTES: u64 = 10 * units::GIB;

/// All of one store.
pub(super) fn judge(x: &Examined) -> Vec<Check> {
    let mut checks = Vec::new();
    checks.push(reachable(x));
    checks.extend(protection(x));
    let made = matches!(x.create, Some(Ok(_)));
    checks.extend(x.ground.iter().flat_map(|under| ground(under, made)));
    if !matches!(&x.first, Some(Err(e)) if e.kind != StoreErrorKind::Denied) {
        checks.extend(rights(x));
        checks.extend(x.create.iter().filter_map(|tried| tried.as_ref().ok()).map(creates));
        checks.extend(contract(x));
        checks.extend(clock(x));
        checks.extend(deletion(x));
        checks.extend(kept(x));
        checks.extend(latency(x));
        checks.extend(throughput(x));
    }
    checks.extend(probes(x));
    checks
}

/// Whether it is something else than a missing permission.
fn is_other(tried: &Tried<impl Sized>) -> Option<&StoreError> {
    tried.as_ref().and_then(|tried| tried.as_ref().err()).filter(|e| e.kind != StoreErrorKind::Denied)
}

fn is_denied(tried: &Tried<impl Sized>) -> bool {
    matches!(tried, Some(Err(e)) if e.kind == StoreErrorKind::Denied)
}

pub(super) fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

fn reachable(x: &Examined) -> Check {
    const NAME: &str = "reachable";
    match &x.first {
        None => Check::note(NAME, "not asked: interrupted"),
        Some(Ok(time)) => Check::good(NAME, format!("the first answer came after {} ms", ms(*time))),
        Some(Err(e)) if e.kind == StoreErrorKind::Denied => Check::good(NAME, "it answers"),
        Some(Err(e)) if e.kind == StoreErrorKind::NotFound && x.transport.is_none() => {
            Check::note(NAME, "there is no such folder")
                .advise("`holdfast init` makes it; if it should be there, is the disk mounted?")
        }
        Some(Err(e)) => Check::of(NAME, Grade::Bad, &e.lift()),
    }
}

/// Who can read on the way.
fn protection(x: &Examined) -> Option<Check> {
    const NAME: &str = "protection";
    let transport = x.transport.as_ref()?;
    let endpoint = &transport.endpoint;
    Some(match (transport.plain, transport.loopback) {
        (false, _) if x.knows_newer == Some(true) => Check::warning(
            NAME,
            format!("{endpoint}: TLS, and `tls=1.2` allows an old version although the store knows a newer one"),
        )
        .advise("leave `tls=1.2` out of the region's URL"),
        (false, _) if x.knows_newer.is_some() => {
            Check::note(NAME, format!("{endpoint}: TLS, at least version 1.2, as the region's URL allows"))
        }
        (false, _) => Check::good(NAME, format!("{endpoint}: TLS 1.3")),
        (true, true) => Check::note(NAME, format!("{endpoint}: http, on this machine")),
        (true, false) => Check::warning(
            NAME,
            format!(
                "{endpoint}: http; content is sealed, but who listens sees what is asked for, and can answer himself"
            ),
        )
        .advise("use https"),
    })
}

/// Where a folder is. `made`: an object was created there, which takes a hard link.
fn ground(ground: &Ground, made: bool) -> Vec<Check> {
    const NAME: &str = "file-system";
    let kind = &ground.kind;
    let file_system = match ground.lasting {
        _ if ground.read_only => {
            Check::warning(NAME, format!("{kind}, mounted read-only: nothing can be stored there"))
        }
        _ if !ground.links => {
            Check::bad(NAME, format!("{kind}: it has no hard links, by which objects are created only if absent"))
                .advise("use another file system")
        }
        Lasting::Disk => {
            let links = if made { " and with hard links" } else { "" };
            Check::good(NAME, format!("{kind}, reached through /proc{links}"))
        }
        Lasting::Network => Check::note(
            NAME,
            format!(
                "{kind}, on another machine or in another program: one that hangs, hangs every run that writes there"
            ),
        ),
        Lasting::Memory => Check::warning(NAME, format!("{kind}: gone when this machine is switched off"))
            .advise("put the region on a disk"),
        Lasting::Container => Check::warning(NAME, format!("{kind}: gone with the container, if this is one"))
            .advise("mount a volume there"),
    };
    let says = format!("{} of {} free", units::bytes(ground.free_bytes), units::bytes(ground.total_bytes));
    let low = ground.free_bytes < SPACE_LOW_BYTES || ground.free_bytes < ground.total_bytes / 20;
    let space = match low {
        true => Check::warning("space", says).advise("free or add space: a region that is full misses what comes next"),
        false => Check::good("space", says),
    };
    vec![file_system, space]
}

/// What the credentials may do.
fn rights(x: &Examined) -> Option<Check> {
    const NAME: &str = "credentials";
    x.first.as_ref()?;
    let least = "docs/regions.md has what each task needs";
    if is_denied(&x.first) {
        return Some(
            Check::bad(NAME, "they may not list, so a missing object would look like a forbidden one").advise(least),
        );
    }
    if is_denied(&x.read) {
        return Some(Check::bad(NAME, "they may not read, and everything that is written is read back").advise(least));
    }
    if let Some(e) = is_other(&x.create) {
        return Some(Check::of(NAME, Grade::Bad, &e.lift()));
    }
    if is_denied(&x.create) {
        let says = "they may list and read, but not create: enough for `restore` and `verify`, not for a backup";
        return Some(Check::warning(NAME, says).advise(least));
    }
    x.create.as_ref()?;
    Some(Check::good(NAME, "they may list, read and create"))
}

const CREATES: &str = "create-if-absent";

/// Of a weak region nobody expects that its store creates only if absent.
pub(super) fn weaken(check: &mut Check) {
    if check.name == CREATES && check.grade == Grade::Bad {
        *check = Check::note(CREATES, format!("a weak region: it holds copies and decides nothing ({})", check.says));
    }
}

fn creates(creates: &Creates) -> Check {
    const NAME: &str = CREATES;
    let advice = "use a store that honours `If-None-Match: *`; this one must not be a region";
    match creates {
        Creates { replaced: true, .. } => {
            Check::bad(NAME, "a second create of one object replaced the first: writers would undo each other's work")
                .advise(advice)
        }
        Creates { winners: 0, .. } => Check::bad(NAME, "of several creates at once each was refused").advise(advice),
        Creates { winners: 1, .. } => {
            Check::good(NAME, "of several creates at once one was taken, and none afterwards")
        }
        Creates { winners, .. } => Check::bad(
            NAME,
            format!(
                "{winners} creates of one object at once were all taken: two writers at once can undo each other's work"
            ),
        )
        .advise("it checks first and writes then: use another store, or never write with two machines at once"),
    }
}

/// What else a store must do.
fn contract(x: &Examined) -> Vec<Check> {
    let one = |name, tried: &Tried<bool>, good: &str, no: &str| {
        let check = match tried.as_ref()? {
            Ok(true) => Check::good(name, good),
            Ok(false) => Check::bad(name, no).advise("this store must not be a region"),
            Err(e) if e.kind == StoreErrorKind::Unfit || e.kind == StoreErrorKind::Short => {
                Check::bad(name, no).advise("this store must not be a region")
            }
            Err(e) => Check::of(name, Grade::Bad, &e.lift()),
        };
        Some(check)
    };
    // Where nothing could be created, reading is a question of rights.
    let read = if matches!(x.create, Some(Ok(_))) { &x.read } else { &None };
    let all = [
        one("read-after-write", read, "what was written is read at once", "other bytes are read than were written"),
        one(
            "ranges",
            &x.range,
            "parts of objects are read",
            "parts of objects cannot be read: every restore would read whole packs",
        ),
        one(
            "list-after-write",
            &x.listed,
            "what was written is listed at once",
            "what was written is not listed: a backup would take it for missing",
        ),
    ];
    all.into_iter().flatten().collect()
}

fn clock(x: &Examined) -> Option<Check> {
    const NAME: &str = "clock";
    let (low, high) = x.ahead_ms?;
    let (ahead, off) = super::offset(low, high);
    let words = units::duration_ms(off.unsigned_abs());
    let sync = "keep both clocks set, by NTP";
    Some(match ahead {
        _ if off < CLOCK_NOTE_MS => Check::good(NAME, "agrees with this machine's"),
        true if off < CLOCK_BAD_MS => Check::note(NAME, format!("{words} ahead of this machine's")).advise(sync),
        true => Check::warning(
            NAME,
            format!("{words} ahead of this machine's: from 15 minutes on, signed requests are refused"),
        )
        .advise(sync),
        false if off < CLOCK_BAD_MS => Check::note(NAME, format!("{words} behind this machine's")).advise(sync),
        false => Check::bad(
            NAME,
            format!(
                "{words} behind this machine's: snapshots seem to come from the future, so retention keeps them all"
            ),
        )
        .advise(sync),
    })
}

/// Whether a thief of the credentials could destroy the copy.
fn deletion(x: &Examined) -> Option<Check> {
    const NAME: &str = "delete";
    let bucket = x.transport.is_some();
    let for_good = x.delete_version.as_ref();
    let advice = "take the permission to delete from whoever only writes (docs/regions.md), or lock the bucket";
    Some(match (x.delete.as_ref()?, for_good) {
        (Err(e), None | Some(Err(_))) if e.kind == StoreErrorKind::Denied => {
            Check::good(NAME, "these credentials cannot delete, and neither can a thief of them")
        }
        (Err(e), _) => Check::of(NAME, Grade::Warning, &e.lift()),
        (Ok(Deletion::Stays), _) => {
            Check::warning(NAME, "a deleted object is still shown: what is pruned may come back")
        }
        (Ok(Deletion::Gone), Some(Err(_))) => Check::good(
            NAME,
            "these credentials hide objects only; the versions behind them stay, and come back: docs/regions.md",
        ),
        (Ok(Deletion::Gone), Some(Ok(()))) => {
            Check::warning(NAME, "these credentials can delete, also old versions: so can a thief of them")
                .advise(advice)
        }
        (Ok(Deletion::Gone), None) if bucket => {
            Check::warning(NAME, "these credentials can delete: so can a thief of them").advise(advice)
        }
        (Ok(Deletion::Gone), None) => Check::note(NAME, "who may write to the folder can delete what is in it"),
    })
}

/// Versions and locks.
fn kept(x: &Examined) -> Vec<Check> {
    let mut checks = Vec::new();
    if x.transport.is_some() && x.versioning.is_none() && x.create.is_some() {
        let says = "not asked: only S3 is, and this store tells it in other ways";
        return vec![Check::note("versions", says), Check::note("object-lock", says)];
    }
    let unknown = |e: &StoreError| match e.kind {
        StoreErrorKind::Denied => {
            "not known: these credentials may not ask (s3:GetBucketVersioning, s3:GetBucketObjectLockConfiguration)"
                .to_owned()
        }
        StoreErrorKind::Unfit => "the store has none".to_owned(),
        _ => format!("not known: {}", e.lift().what()),
    };
    checks.extend(x.versioning.as_ref().map(|said| match said {
        Ok(Versioning::On) => Check::good("versions", "on: what is replaced or deleted can be brought back"),
        Ok(Versioning::Off) => Check::note("versions", "off: what is deleted is gone"),
        Ok(Versioning::Suspended) => {
            Check::warning("versions", "suspended: what is deleted now is gone").advise("switch them on again")
        }
        Err(e) => Check::note("versions", unknown(e)),
    }));
    checks.extend(x.lock.as_ref().map(|said| {
        match said {
            Ok(Lock::Default { mode, days }) => lock(x, mode, *days),
            Ok(Lock::NoDefault) => {
                Check::note("object-lock", "possible, but no default retention is set: nothing is locked")
                    .advise("set a default retention in mode COMPLIANCE")
            }
            Ok(Lock::Off) => Check::note("object-lock", "off"),
            Err(e) => Check::note("object-lock", unknown(e)),
        }
    }));
    checks
}

fn lock(x: &Examined, mode: &str, days: u32) -> Check {
    const NAME: &str = "object-lock";
    if matches!(x.delete_version, Some(Ok(()))) {
        let says = format!("{mode}, {days} days, and yet a version was deleted that should be locked");
        return Check::bad(NAME, says)
            .advise("do not rely on it: these credentials may pass the lock over, or the store does not keep it");
    }
    let until = "what is older than that is not locked any more";
    match mode {
        "COMPLIANCE" => {
            Check::good(NAME, format!("COMPLIANCE, {days} days: nobody deletes an object within them; {until}"))
        }
        _ => Check::note(
            NAME,
            format!("{mode}, {days} days: only who may bypass it deletes an object within them; {until}"),
        ),
    }
}

/// The middle one.
pub(super) fn median(times: &[Duration]) -> Option<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

fn latency(x: &Examined) -> Option<Check> {
    const NAME: &str = "latency";
    let read = median(&x.reads)?;
    let put = median(&x.puts).map(|put| format!(", {} ms for a small put", ms(put))).unwrap_or_default();
    let says = format!("{} ms for a small read{put}", ms(read));
    Some(match read > SLOW {
        true => Check::warning(NAME, says)
            .advise("every verb asks at least ten times: a nearer store, or one more near by, helps restores"),
        false => Check::good(NAME, says),
    })
}

fn throughput(x: &Examined) -> Option<Check> {
    const NAME: &str = "throughput";
    let Some(put) = &x.put_rate else {
        // Where nothing was created there is nothing to say.
        let made = matches!(x.create, Some(Ok(_))) && !x.cut_short;
        return made.then(|| {
            Check::note(NAME, "not measured: what is written for it would stay")
                .advise("--throughput measures it all the same")
        });
    };
    let words = |rate: &Result<Option<Rate>, StoreError>| match rate {
        Ok(Some(rate)) => Ok(format!("{}/s", units::bytes(rate.per_second()))),
        Ok(None) => Err("too slow to be measured".to_owned()),
        Err(e) => Err(e.lift().what().to_owned()),
    };
    let get = x.get_rate.as_ref().map(&words);
    Some(match (words(put), get) {
        (Ok(put), Some(Ok(get))) => Check::good(NAME, format!("{put} written, {get} read, one request at a time")),
        (Ok(put), Some(Err(why))) => Check::warning(NAME, format!("{put} written; reading: {why}")),
        (Ok(put), None) => Check::note(NAME, format!("{put} written")),
        (Err(why), _) => Check::warning(NAME, format!("writing: {why}")),
    })
}

/// What stays behind of all this.
fn probes(x: &Examined) -> Vec<Check> {
    const NAME: &str = "probes";
    let mut checks = Vec::new();
    if x.cut_short {
        checks.push(Check::warning(NAME, "interrupted, or it took too long: not everything was tried"));
    }
    if !x.left.is_empty() {
        let says = format!("{} of this try cannot be removed: {}", x.left.len(), x.left.join(", "));
        checks.push(Check::note(NAME, says).advise("they are small, and in nobody's way"));
    } else if x.versions_left {
        checks.push(Check::note(
            NAME,
            "versions of this try stay until their lock ends; they are small, and in nobody's way",
        ));
    }
    if x.found > 0 {
        checks.push(Check::note(NAME, format!("{} of earlier tries are there, and in nobody's way", x.found)));
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Transport;

    fn grade(checks: &[Check], name: &str) -> Option<Grade> {
        checks.iter().find(|check| check.name == name).map(|check| check.grade)
    }

    /// A bucket without fault.
    fn bucket(plain: bool, loopback: bool) -> Examined {
        let transport = Transport { endpoint: "x://store.example".into(), plain, loopback };
        Examined {
            transport: Some(transport),
            first: Some(Ok(Duration::from_millis(3))),
            create: Some(Ok(Creates { winners: 1, replaced: false })),
            read: Some(Ok(true)),
            range: Some(Ok(true)),
            listed: Some(Ok(true)),
            delete: Some(Ok(Deletion::Gone)),
            ..Examined::default()
        }
    }

    #[test]
    fn who_listens_on_the_way_is_named() {
        let of = |plain, loopback, knows_newer| {
            grade(&judge(&Examined { knows_newer, ..bucket(plain, loopback) }), "protection").unwrap()
        };
        assert_eq!(of(true, false, None), Grade::Warning);
        assert_eq!(of(true, true, None), Grade::Note);
        assert_eq!(of(false, false, None), Grade::Good);
        assert_eq!(of(false, false, Some(true)), Grade::Warning);
        assert_eq!(of(false, false, Some(false)), Grade::Note);
    }

    #[test]
    fn a_store_that_checks_first_and_writes_then_is_bad() {
        let of = |winners, replaced| {
            grade(
                &judge(&Examined { create: Some(Ok(Creates { winners, replaced })), ..bucket(false, false) }),
                "create-if-absent",
            )
        };
        assert_eq!(of(1, false), Some(Grade::Good));
        [(2, false), (0, false), (1, true)]
            .into_iter()
            .for_each(|(w, r)| assert_eq!(of(w, r), Some(Grade::Bad), "{w} {r}"));
    }

    #[test]
    fn a_lock_that_does_not_hold_is_bad() {
        let lock = |mode: &str| Some(Ok(Lock::Default { mode: mode.into(), days: 7 }));
        let of = |mode: &str, delete_version| {
            let x = Examined {
                lock: lock(mode),
                delete_version,
                versioning: Some(Ok(Versioning::On)),
                ..bucket(false, false)
            };
            grade(&judge(&x), "object-lock")
        };
        assert_eq!(of("COMPLIANCE", None), Some(Grade::Good));
        assert_eq!(of("COMPLIANCE", Some(Ok(()))), Some(Grade::Bad));
        assert_eq!(of("GOVERNANCE", None), Some(Grade::Note));
        let suspended = Examined { versioning: Some(Ok(Versioning::Suspended)), ..bucket(false, false) };
        assert_eq!(grade(&judge(&suspended), "versions"), Some(Grade::Warning));
        assert_eq!(grade(&judge(&bucket(false, false)), "versions"), Some(Grade::Note));
    }

    #[test]
    fn clocks_by_what_follows() {
        let of =
            |ahead_ms| grade(&judge(&Examined { ahead_ms: Some(ahead_ms), ..bucket(false, false) }), "clock").unwrap();
        assert_eq!(of((-3000, 3000)), Grade::Good);
        assert_eq!(of((6000, 7000)), Grade::Note);
        assert_eq!(of((-90_000, -80_000)), Grade::Note);
        assert_eq!(of((400_000, 401_000)), Grade::Warning);
        assert_eq!(of((-401_000, -400_000)), Grade::Bad);
    }

    #[test]
    fn folders_that_do_not_last() {
        let of = |lasting, free_bytes| {
            let ground = Ground {
                kind: "x".into(),
                lasting,
                free_bytes,
                total_bytes: 1 << 40,
                read_only: false,
                links: true,
                device: 1,
            };
            let checks = judge(&Examined { ground: Some(ground), ..Examined::default() });
            (grade(&checks, "file-system").unwrap(), grade(&checks, "space").unwrap())
        };
        assert_eq!(of(Lasting::Disk, 1 << 39), (Grade::Good, Grade::Good));
        assert_eq!(of(Lasting::Network, 1 << 39), (Grade::Note, Grade::Good));
        assert_eq!(of(Lasting::Memory, 1 << 30), (Grade::Warning, Grade::Warning));
        assert_eq!(of(Lasting::Container, 0), (Grade::Warning, Grade::Warning));
    }
}
