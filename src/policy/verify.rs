//! How the repository is checked by schedule: how deep, how much a run, and within which time everything.

use super::calendar::{Calendar, Task};
use super::duration;
use super::name::quoted;
use super::rate::{self, Rate};
use super::sheet::Sheet;
use super::types::{Level, VerifySpec};
use crate::error::{Error, Kind, Result};

/// Within this everything is read, where nothing is said: 30 days.
const PERIOD_MS: i64 = 30 * 86_400_000;

/// When the repository is checked is in the calendar; this is how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verify {
    /// How deep to look.
    pub level: Level,
    /// Within this every pack is to be read once, milliseconds.
    pub period_ms: i64,
    /// At most this share of a region's bytes is read by one run, percent.
    pub share: Option<u8>,
    /// At most so many bytes of a region are read by one run.
    pub bytes_max: Option<u64>,
    /// At most so many packs of a region are read by one run.
    pub packs_max: Option<u64>,
    /// Packs are read no faster than so many bytes a second.
    pub rate: Option<u64>,
    /// Whether damage in one region is mended from another.
    pub repair: bool,
}

impl Verify {
    /// Whether a run reads packs at all.
    pub fn reads(&self) -> bool {
        self.level != Level::Presence
    }

    /// What the schedule and the share leave, where the period cannot be kept: the share of everything that is read in it,
    /// percent.
    pub(super) fn falls_short(&self, calendar: &Calendar) -> Option<u64> {
        let share = u64::from(self.share?);
        let gap = calendar.largest_gap_of(Task::Verify)?;
        let runs = u64::try_from(self.period_ms / gap.max(1)).unwrap_or(0);
        Some(runs.saturating_mul(share)).filter(|percent| *percent < 100)
    }

    /// The same, written with nothing left out.
    pub(super) fn effective(&self, schedule: &str) -> VerifySpec {
        VerifySpec {
            schedule: schedule.into(),
            level: Some(self.level),
            period: self.reads().then(|| duration::text(self.period_ms)),
            share: self.share.map(|percent| format!("{percent}%")),
            bytes_max: self.bytes_max.map(rate::size_text),
            packs_max: self.packs_max,
            rate: self.rate.map(|bytes| format!("{}/s", rate::size_text(bytes))),
            repair: Some(self.repair),
        }
    }

    /// In words, for a schedule.
    pub(super) fn sentence(&self, schedule: &str) -> String {
        let what = match self.level {
            Level::Presence => "that everything is there",
            Level::Ciphertext => "that stored bytes fit their hashes",
            Level::Content => "that every chunk decrypts to what it was",
        };
        let mut text = format!("checks {what}: `{schedule}`");
        if let Some(percent) = self.share {
            text.push_str(&format!(", at most {percent}% a run, what waited longest first"));
        }
        if let Some(bytes) = self.bytes_max {
            text.push_str(&format!(", at most {} of each region a run", rate::size_text(bytes)));
        }
        if let Some(packs) = self.packs_max {
            text.push_str(&format!(", at most {packs} packs of each region a run"));
        }
        if let Some(bytes) = self.rate {
            text.push_str(&format!(", no faster than {}/s", rate::size_text(bytes)));
        }
        if self.reads() {
            text.push_str(&format!("; everything within {}", duration::text(self.period_ms)));
        }
        text.push_str(if self.repair {
            "; puts back from another region what is damaged or missing in one"
        } else {
            "; mends nothing"
        });
        text
    }
}

/// What is allowed and probably not meant.
pub(super) fn warning(verify: &Verify, calendar: &Calendar) -> Option<Error> {
    let percent = verify.falls_short(calendar)?;
    let period = duration::text(verify.period_ms);
    let what = format!("the schedule and the share read {percent}% within {period}, not everything");
    Some(Error::new(Kind::Config, what).advise("check more often, or use a larger share or a longer period"))
}

fn share(text: &str) -> Result<u8> {
    let digits = text.strip_suffix('%').filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()));
    digits
        .and_then(|d| d.parse().ok())
        .filter(|percent| (1..=100).contains(percent))
        .ok_or_else(|| Error::new(Kind::Config, format!("{} is not a share", quoted(text))).advise("write 1% to 100%"))
}

pub(super) fn judge(sheet: &mut Sheet<'_>, spec: &VerifySpec) -> Verify {
    let level = spec.level.unwrap_or_default();
    let period = spec.period.as_deref().and_then(|text| sheet.take("spec.verify.period", duration::parse(text)));
    if period == Some(0) {
        sheet.refuse("spec.verify.period", "the duration is zero", "use a longer one, or leave the field out");
    }
    let share = spec.share.as_deref().and_then(|text| sheet.take("spec.verify.share", share(text)));
    let bytes_max = spec.bytes_max.as_deref().and_then(|text| sheet.take("spec.verify.bytesMax", rate::size(text)));
    let rate = spec.rate.as_deref().and_then(|text| sheet.take("spec.verify.rate", Rate::parse(text)));
    let rate = rate.map(|rate| rate.bytes());
    let packs_max = spec.packs_max;
    if packs_max == Some(0) {
        sheet.refuse("spec.verify.packsMax", "no pack at all", "use a larger number, or `level: presence`");
    }
    // Regions heal themselves unless somebody wants to look first.
    let repair = spec.repair.unwrap_or(true);
    let verify = Verify { level, period_ms: period.unwrap_or(PERIOD_MS), share, bytes_max, packs_max, rate, repair };
    if !verify.reads() {
        let bounds = [
            ("share", spec.share.is_some()),
            ("bytesMax", spec.bytes_max.is_some()),
            ("packsMax", spec.packs_max.is_some()),
            ("rate", spec.rate.is_some()),
            ("period", spec.period.is_some()),
        ];
        for (field, given) in bounds {
            if given {
                let what = "a check of presence reads nothing, and is always of everything";
                sheet.refuse(
                    &format!("spec.verify.{field}"),
                    what,
                    "use `level: ciphertext` or `content`, or leave it out",
                );
            }
        }
    }
    verify
}
