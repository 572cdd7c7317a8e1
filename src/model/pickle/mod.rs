//! Pickles: opcodes walked, never executed.
//!
//! A pickle is a program. This walks it with symbols for values, lists what it would load and call, and judges by the
//! names: harmless, unsafe, or unknown. Nothing depends on a file's name. Several pickles may stand in a row; what
//! follows the last one is a finding.
//!
//! A walk holds at most some 100 MB whatever it is fed, reads its input once, and ends.

mod bytes;
mod machine;
mod names;
mod numpy;
mod opcodes;
mod text;
mod value;

use super::verdict::{Grade, Report};
use bytes::{Bytes, Stop};
use machine::{End, Machine};
pub use names::judge;
use std::collections::HashMap;
use std::io::Read;
use std::rc::Rc;
use text::Text;
use value::{Listed, Memo, Value};

/// Protocols up to this one are taken for what is yet to come.
const PROTOCOL_SOON: u8 = 8;
/// Most pickles in a row.
const PICKLES_MAX: u64 = 100_000;
/// How `torch.save` began its files before they were zips: a pickle of its magic number.
const TORCH_BEGIN: [u8; 15] =
    [0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e];
/// And how many pickles such a file has before the tensors' bytes.
const TORCH_PICKLES: u64 = 5;

/// Where bytes come from that may be pickles.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// For the findings.
    pub place: &'a str,
    /// They are the `data.pkl` of a PyTorch checkpoint, whose persistent ids are its storages.
    pub torch: bool,
    /// Whether they are loaded as a pickle.
    pub loaded: Loaded,
}

/// What is known of bytes before they are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loaded {
    /// They are loaded as a pickle, whatever they look like.
    Surely,
    /// They may be, if they look like one.
    Perhaps,
    /// They are numbers of a tensor, of which two may look like the mark of a pickle by chance.
    Hardly,
}

/// What a walk came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walked {
    /// There was a pickle, or the beginning of one.
    pub any: bool,
}

/// Walks all pickles of `input` and adds what they would do to `report`. Bytes that are no pickle add nothing, unless it
/// is certain that they are loaded as one.
pub fn walk(input: &mut dyn Read, origin: Origin<'_>, report: &mut Report) -> Walked {
    let mut head = [0; TORCH_BEGIN.len()];
    let got = fill(input, &mut head);
    let head = head.get(..got).unwrap_or_default();
    let legacy = head == TORCH_BEGIN;
    let torch = origin.torch || legacy;
    let mark = matches!(head, [opcodes::PROTO, version, ..] if *version <= PROTOCOL_SOON);
    let expected = origin.loaded == Loaded::Surely || (mark && origin.loaded == Loaded::Perhaps);
    let mut whole = Text::new(head.chain(input));
    let mut bytes = Bytes::new(&mut whole);
    let mut row = Row {
        origin,
        torch,
        legacy: legacy.then_some(0),
        expected,
        done: 0,
        memo: None,
        storages: HashMap::new(),
        listed: Listed::default(),
    };
    let mut loads = false;
    loop {
        match bytes.peek() {
            Ok(None) if row.done > 0 || origin.loaded != Loaded::Surely => break,
            Ok(_) if row.done >= PICKLES_MAX => {
                report.add(Grade::Unknown, origin.place, bytes.offset(), "there are too many pickles in a row");
                break;
            }
            _ => {}
        }
        let goes_on = row.one(&mut bytes, report, &mut loads);
        if !goes_on || (row.in_legacy() == Some(TORCH_PICKLES) && !row.numbers(&mut bytes, report)) {
            break;
        }
    }
    drop(bytes);
    // A list of words may begin like this, and nothing else does by chance.
    if loads && origin.loaded == Loaded::Perhaps && !whole.ends_as_text() {
        let what = "it begins like a pickle that loads a module, and is broken behind that";
        report.add(Grade::Unknown, origin.place, 0, what);
        return Walked { any: true };
    }
    Walked { any: row.done > 0 }
}

/// Pickles in a row.
struct Row<'a> {
    origin: Origin<'a>,
    torch: bool,
    /// As `torch.save` wrote before its files were zips: how many pickles were done when it began.
    legacy: Option<u64>,
    /// It is no surprise that a pickle is here.
    expected: bool,
    done: u64,
    /// What those before left to a reader that keeps it.
    memo: Option<Memo>,
    /// Bytes of a number in each storage that the pickles of a legacy file asked for.
    storages: HashMap<Rc<String>, u8>,
    /// The storages that stand behind the pickles of a legacy file, in their order.
    listed: Listed,
}

impl Row<'_> {
    /// How many pickles of a legacy file are done.
    fn in_legacy(&self) -> Option<u64> {
        self.legacy.map(|begin| self.done.saturating_sub(begin))
    }

    /// Passes over the numbers behind the pickles of a legacy file, of each storage their count and themselves: what comes
    /// then is read by whoever loads from the file once more. False when that cannot be.
    fn numbers(&mut self, bytes: &mut Bytes<'_>, report: &mut Report) -> bool {
        let Listed { items, strange, .. } = std::mem::take(&mut self.listed);
        let mut pass = |storage: &Value| {
            let Value::Text(key) = storage else { return Err(Stop::End) };
            let size = self.storages.get(key).copied().filter(|size| *size > 0).ok_or(Stop::End)?;
            let count = u64::from_le_bytes(bytes.array()?);
            bytes.skip(count.checked_mul(u64::from(size)).ok_or(Stop::End)?)
        };
        let passed = !strange && items.iter().all(|storage| pass(storage).is_ok());
        if !passed {
            let what = "the tensors' numbers behind it are not as it says, so what stands behind them is not known";
            report.add(Grade::Unknown, self.origin.place, bytes.offset(), what);
        }
        // Several may be saved into one file, one after the other.
        self.legacy = bytes.starts_with(&TORCH_BEGIN).then_some(self.done);
        passed
    }

    /// The next one; false when there is no further. `loads` is set where one that counts for none began by loading a module.
    fn one(&mut self, bytes: &mut Bytes<'_>, report: &mut Report, loads: &mut bool) -> bool {
        let start = bytes.offset();
        let mut machine = Machine::new(self.origin.place, self.torch, self.memo.take());
        // The last but one of a legacy file is the model, the last one lists its storages.
        let place = self.in_legacy().map(|done| TORCH_PICKLES.saturating_sub(done));
        machine.listed = (place == Some(1)).then(Listed::default);
        let end = machine.run(bytes);
        self.listed = machine.listed.take().unwrap_or_default();
        if place == Some(2) {
            self.storages = std::mem::take(&mut machine.storages);
        }
        let whole = matches!(end, End::Whole);
        if self.done == 0 && !self.expected && !machine.acted {
            // Bytes that are a pickle by chance do nothing and break soon, or something else follows at once. What does
            // something may still come.
            let chance = match end {
                End::Whole => {
                    let plain = machine.worst == Grade::Safe || self.origin.loaded == Loaded::Hardly;
                    plain && !(start == 0 && bytes.peek() == Ok(None))
                }
                End::Stopped(Stop::Beyond(_)) => self.origin.loaded == Loaded::Hardly,
                End::Stopped(_) => true,
            };
            if chance {
                *loads |= machine.loads;
                self.memo = Some(machine.into_memo());
                return whole;
            }
        }
        report.at_least(machine.worst);
        let acted = machine.acted;
        std::mem::take(&mut machine.findings).into_iter().for_each(|finding| report.push(finding));
        self.memo = Some(machine.into_memo());
        let follows = self.done > 0 && !acted;
        self.done = self.done.saturating_add(1);
        let what = match end {
            End::Whole => {
                report.pickles = report.pickles.saturating_add(1);
                return true;
            }
            End::Stopped(_) if follows => "bytes follow the last pickle that are none".to_owned(),
            End::Stopped(Stop::End) => "the pickle has no end".to_owned(),
            End::Stopped(Stop::Broken(why)) => format!("the pickle is broken: {why}"),
            End::Stopped(Stop::Beyond(why)) => format!("the pickle was not walked to its end: {why}"),
        };
        let at = if follows { start } else { bytes.offset() };
        report.add(Grade::Unknown, self.origin.place, at, what);
        false
    }
}

/// Reads until `buffer` is full or the input ends; errors come again when the walk reads on.
pub fn fill(input: &mut dyn Read, buffer: &mut [u8]) -> usize {
    let mut have = 0;
    while let Some(rest) = buffer.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(got) if got > 0 => have = have.saturating_add(got),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    have
}

/// Reads until `buffer` is full or the input ends.
///
/// # Errors
/// It could not be read.
pub fn fill_or_fail(input: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut have = 0;
    while let Some(rest) = buffer.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(got) => have = have.saturating_add(got),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(have)
}
