//! When space is given back, and what one run may take.

use super::duration;
use super::name::quoted;
use super::rate;
use super::sheet::Sheet;
use super::types::PruneSpec;
use crate::error::{Error, Kind, Result};

/// When a prune is due is in the calendar; this is how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prune {
    /// Packs are written anew of which more than this is needed by nobody, percent; 100: none.
    pub repack_above: u8,
    /// At most so many bytes of packs are written anew in one run.
    pub repack_max: u64,
    /// Nothing new is begun after so long, milliseconds.
    pub stop_after_ms: Option<i64>,
    /// At most so many objects are removed from each region in one run.
    pub removals_max: Option<u32>,
}

impl Default for Prune {
    fn default() -> Prune {
        Prune { repack_above: 50, repack_max: 4 << 30, stop_after_ms: None, removals_max: None }
    }
}

impl Prune {
    /// The same, written with nothing left out.
    pub(super) fn effective(&self, schedule: &str) -> PruneSpec {
        PruneSpec {
            schedule: schedule.into(),
            repack_above: Some(format!("{}%", self.repack_above)),
            repack_max: Some(rate::size_text(self.repack_max)),
            stop_after: self.stop_after_ms.map(duration::text),
            removals_max: self.removals_max,
        }
    }

    /// In words, for a schedule.
    pub(super) fn sentence(&self, schedule: &str) -> String {
        let mut text = format!("gives back what no snapshot needs: `{schedule}`");
        match self.repack_above {
            100 => text.push_str("; writes no pack anew"),
            percent => {
                let max = rate::size_text(self.repack_max);
                text.push_str(&format!("; writes packs anew that are over {percent}% unneeded, at most {max} a run"));
            }
        }
        if let Some(ms) = self.stop_after_ms {
            text.push_str(&format!(", stops after {}", duration::text(ms)));
        }
        if let Some(count) = self.removals_max {
            text.push_str(&format!(", removes at most {count} objects of each region a run"));
        }
        text
    }
}

fn percent(text: &str) -> Result<u8> {
    let digits = text.strip_suffix('%').filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()));
    digits
        .and_then(|d| d.parse().ok())
        .filter(|percent| (1..=100).contains(percent))
        .ok_or_else(|| Error::new(Kind::Config, format!("{} is not a share", quoted(text))).advise("write 1% to 100%"))
}

pub(super) fn judge(sheet: &mut Sheet<'_>, spec: &PruneSpec) -> Prune {
    let usual = Prune::default();
    let above = spec.repack_above.as_deref().and_then(|text| sheet.take("spec.prune.repackAbove", percent(text)));
    let max = spec.repack_max.as_deref().and_then(|text| sheet.take("spec.prune.repackMax", rate::size(text)));
    let stop_after = spec.stop_after.as_deref();
    let stop_after_ms = stop_after.and_then(|text| sheet.take("spec.prune.stopAfter", duration::parse(text)));
    if stop_after_ms == Some(0) {
        sheet.refuse("spec.prune.stopAfter", "the duration is zero", "use a longer one, or leave the field out");
    }
    Prune {
        repack_above: above.unwrap_or(usual.repack_above),
        repack_max: max.unwrap_or(usual.repack_max),
        stop_after_ms,
        removals_max: spec.removals_max,
    }
}
