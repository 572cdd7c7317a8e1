//! The machine of a pickle, with symbols for values: what would be named and called, and nothing is.
//!
//! It follows the opcodes more willingly than Python does: an argument that Python refuses is passed over where that is
//! possible, so that what another reader would still see is seen.

mod calls;

use super::bytes::{Bytes, Stop};
use super::names::Shape;
use super::opcodes as op;
use super::value::{Listed, Memo, Name, Tuple, VALUES_MAX, Value, has_class, is_name, keep_in};
use crate::model::verdict::{Finding, Grade};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// Most opcodes of one pickle.
const STEPS_MAX: u64 = 200_000_000;
/// Longest text that can be a name.
const NAME_MAX: usize = 256;
/// Longest line that can be a name.
const LINE_MAX: usize = 1 << 20;
/// Longest line that can be the number of a memo slot.
const NUMBER_MAX: usize = 5000;
/// Bytes of text that are held at once; looked at again when so much came since.
const TEXT_MAX: usize = 24 << 20;
/// Different globals that are remembered, so that each is told once.
const GLOBALS_MAX: usize = 4096;
/// Why the state of a `numpy.dtype` is not believed.
const FORGED_DTYPE: &str =
    "a numpy.dtype has parts, or says of itself what it is not: bytes might pass for addresses of objects";
/// Why a class of NumPy elsewhere than NumPy writes it is not believed.
const CLASS_KEPT: &str =
    "a class of NumPy is called, or given on, as NumPy does not: bytes might pass for addresses of objects";

/// How the pickle ended.
pub enum End {
    /// At its STOP.
    Whole,
    /// Elsewhere.
    Stopped(Stop),
}

/// The state of one pickle.
pub struct Machine<'m> {
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: Memo,
    /// The memo of a reader that keeps it from one pickle to the next; none in the first one, where it is the same.
    kept: Option<Memo>,
    text_bytes: usize,
    /// The opcode that is followed.
    at: u64,
    frame_end: u64,
    told: HashSet<String>,
    place: &'m str,
    torch: bool,
    /// The storages that were asked for: the bytes of a number in each, by their keys.
    pub storages: HashMap<Rc<String>, u8>,
    /// What was put into the list that such a pickle is to be, where one is expected.
    pub listed: Option<Listed>,
    /// It would load a module of any name, whatever comes behind.
    pub loads: bool,
    /// What was found.
    pub findings: Vec<Finding>,
    /// The worst of all that was found, kept or not.
    pub worst: Grade,
    /// Whether it did anything but build plain data.
    pub acted: bool,
}

impl<'m> Machine<'m> {
    /// For a pickle at `place`; `torch`: where persistent ids are storages; `kept`: the memo of those before it, if there are.
    pub fn new(place: &'m str, torch: bool, kept: Option<Memo>) -> Self {
        Machine {
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Memo::new(),
            kept,
            text_bytes: 0,
            at: 0,
            frame_end: 0,
            told: HashSet::new(),
            place,
            torch,
            storages: HashMap::new(),
            listed: None,
            loads: false,
            findings: Vec::new(),
            worst: Grade::Safe,
            acted: false,
        }
    }

    /// The memo that a reader may keep.
    pub fn into_memo(self) -> Memo {
        self.kept.unwrap_or(self.memo)
    }

    /// Walks one pickle.
    pub fn run(&mut self, bytes: &mut Bytes<'_>) -> End {
        let end = self.steps(bytes);
        // What was loaded and not used may be used by what was not seen.
        let left = std::mem::take(&mut self.stack);
        self.leave(&left);
        end
    }

    fn steps(&mut self, bytes: &mut Bytes<'_>) -> End {
        for _ in 0..STEPS_MAX {
            match self.step(bytes) {
                Ok(false) => {}
                Ok(true) => return End::Whole,
                Err(stop) => return End::Stopped(stop),
            }
        }
        End::Stopped(Stop::Beyond("it has too many opcodes".into()))
    }

    /// One opcode; true at the end.
    fn step(&mut self, bytes: &mut Bytes<'_>) -> Result<bool, Stop> {
        let start = bytes.offset();
        self.at = start;
        let code = bytes.next()?.ok_or(Stop::End)?;
        self.lists(code);
        let done = match code {
            op::STOP => {
                let made = self.pop()?;
                if let Some(listed) = &mut self.listed {
                    listed.strange |= made != Value::List || listed.lists != 1;
                }
                true
            }
            op::FRAME => return self.frame(bytes, start).map(|()| false),
            _ => {
                let taken = self.data(code, bytes)? || self.memory(code, bytes, start)? || self.shape(code, start)?;
                if !taken && !self.names(code, bytes, start)? {
                    return Err(Stop::Broken(format!("0x{code:02x} is no opcode")));
                }
                false
            }
        };
        self.within_frame(start, bytes.offset(), done);
        Ok(done)
    }

    /// Whatever a list needs not to be built might make another one of it.
    fn lists(&mut self, code: u8) {
        let Some(listed) = &mut self.listed else { return };
        match code {
            op::EMPTY_LIST => listed.lists = listed.lists.saturating_add(1),
            op::PROTO | op::FRAME | op::PUT | op::BINPUT | op::LONG_BINPUT | op::MEMOIZE | op::MARK => {}
            op::STRING | op::UNICODE | op::SHORT_BINSTRING | op::SHORT_BINUNICODE => {}
            op::BINSTRING | op::BINUNICODE | op::BINUNICODE8 | op::APPEND | op::APPENDS | op::STOP => {}
            _ => listed.strange = true,
        }
    }

    fn frame(&mut self, bytes: &mut Bytes<'_>, start: u64) -> Result<(), Stop> {
        let length = u64::from_le_bytes(bytes.array()?);
        if start < self.frame_end {
            self.find(Grade::Unknown, start, "a frame begins within another one");
        }
        self.frame_end = bytes.offset().saturating_add(length);
        Ok(())
    }

    /// A frame that does not end between two opcodes is read differently by different readers.
    fn within_frame(&mut self, start: u64, end: u64, stopped: bool) {
        let lies = (start < self.frame_end && self.frame_end < end) || (stopped && self.frame_end > end);
        if lies {
            self.frame_end = 0;
            self.find(Grade::Unknown, start, "a frame lies about its length");
        }
    }

    /// Opcodes that bring data.
    fn data(&mut self, code: u8, bytes: &mut Bytes<'_>) -> Result<bool, Stop> {
        match code {
            op::PROTO => {
                let version = bytes.array::<1>()?[0];
                if version > op::PROTOCOL_MAX {
                    return Err(Stop::Broken(format!("protocol {version} is not known")));
                }
                return Ok(true);
            }
            op::NONE | op::NEWTRUE | op::NEWFALSE | op::EMPTY_TUPLE | op::EMPTY_SET | op::NEXT_BUFFER => {}
            op::INT | op::LONG => {
                let line = bytes.line(NAME_MAX)?;
                return self
                    .push(line.and_then(|line| op::flags(&line)).map_or(Value::Plain, Value::Number))
                    .map(|()| true);
            }
            op::BININT1 => {
                let value = bytes.array::<1>()?[0];
                return self.push(Value::Number(value)).map(|()| true);
            }
            op::BININT => {
                let value = i32::from_le_bytes(bytes.array()?);
                let byte = i8::try_from(value).map(i8::cast_unsigned).or_else(|_| u8::try_from(value));
                return self.push(byte.map_or(Value::Plain, Value::Number)).map(|()| true);
            }
            op::FLOAT => drop(bytes.line(NAME_MAX)?),
            op::BININT2 => bytes.skip(2)?,
            op::BINFLOAT => bytes.skip(8)?,
            op::LONG1 | op::SHORT_BINBYTES => skip_counted(bytes, 1)?,
            op::LONG4 | op::BINBYTES => skip_counted(bytes, 4)?,
            op::BINBYTES8 | op::BYTEARRAY8 => skip_counted(bytes, 8)?,
            op::READONLY_BUFFER => {
                self.pop()?;
            }
            op::STRING | op::UNICODE => {
                let line = bytes.line(4 * NAME_MAX)?;
                let text = line.and_then(|line| op::unescape(&line, code == op::STRING));
                return self.push_text(text).map(|()| true);
            }
            op::SHORT_BINSTRING | op::SHORT_BINUNICODE => return self.counted_text(bytes, 1),
            op::BINSTRING | op::BINUNICODE => return self.counted_text(bytes, 4),
            op::BINUNICODE8 => return self.counted_text(bytes, 8),
            _ => return Ok(false),
        }
        self.push(Value::Plain).map(|()| true)
    }

    fn counted_text(&mut self, bytes: &mut Bytes<'_>, width: u8) -> Result<bool, Stop> {
        let count = counted(bytes, width)?;
        let text = bytes.text(count, NAME_MAX)?;
        self.push_text(text.and_then(|text| String::from_utf8(text).ok())).map(|()| true)
    }

    /// Only what could be the name of something is kept.
    fn push_text(&mut self, text: Option<String>) -> Result<(), Stop> {
        let Some(text) = text.filter(|text| text.len() <= NAME_MAX && is_name(text)) else {
            return self.push(Value::Plain);
        };
        self.hold(text.len())?;
        self.push(Value::Text(Rc::new(text)))
    }

    /// Makes room for so many bytes of text.
    fn hold(&mut self, bytes: usize) -> Result<(), Stop> {
        self.text_bytes = self.text_bytes.saturating_add(bytes).saturating_add(64);
        if self.text_bytes > TEXT_MAX {
            self.text_bytes = self.held();
            if self.text_bytes > TEXT_MAX / 2 {
                return Err(Stop::Beyond("it holds too much text".into()));
            }
        }
        Ok(())
    }

    /// Bytes of text that are held now; one that is held twice counts twice.
    fn held(&self) -> usize {
        let of = |text: &Rc<String>| text.len().saturating_add(64);
        let size = |value: &Value| match value {
            Value::Text(text) | Value::Storage(_, text) => of(text),
            Value::Global(_, Some(name)) | Value::Attribute(name) => name.len().saturating_add(64),
            _ => 0,
        };
        let kept = self.kept.iter().flat_map(Memo::values);
        let listed = self.listed.iter().flat_map(|listed| &listed.items);
        let values = self.stack.iter().chain(self.memo.values()).chain(kept).chain(listed).map(size);
        values.chain(self.storages.keys().map(of)).fold(0, usize::saturating_add)
    }

    /// The memo, and what turns the stack around.
    fn memory(&mut self, code: u8, bytes: &mut Bytes<'_>, start: u64) -> Result<bool, Stop> {
        match code {
            op::PUT => {
                self.top()?;
                self.put(number(bytes)?)?;
            }
            op::BINPUT => self.put(counted(bytes, 1)?)?,
            op::LONG_BINPUT => self.put(counted(bytes, 4)?)?,
            op::MEMOIZE => self.memoize()?,
            op::GET => self.get(number(bytes)?, start)?,
            op::BINGET => self.get(counted(bytes, 1)?, start)?,
            op::LONG_BINGET => self.get(counted(bytes, 4)?, start)?,
            op::MARK => {
                if self.marks.len() >= VALUES_MAX {
                    return Err(Stop::Beyond("it has too many marks".into()));
                }
                self.marks.push(self.stack.len());
            }
            op::POP if self.marks.last() == Some(&self.stack.len()) => drop(self.marks.pop()),
            op::POP => drop(self.pop()?),
            op::POP_MARK => drop(self.above_mark()?),
            op::DUP => {
                let top = self.top()?.clone();
                self.push(top)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Opcodes that put values into each other.
    fn shape(&mut self, code: u8, start: u64) -> Result<bool, Stop> {
        let made = match code {
            op::EMPTY_DICT => Value::Map,
            op::EMPTY_LIST => Value::List,
            op::DICT => self.gathered(start).map(|_| Value::Map)?,
            op::LIST => self.gathered(start).map(|_| Value::List)?,
            op::FROZENSET => self.gathered(start).map(|_| Value::Plain)?,
            op::TUPLE => {
                let items = self.above_mark()?;
                self.tuple(&items, start)?
            }
            op::TUPLE1 => self.tuple_of(1, start)?,
            op::TUPLE2 => self.tuple_of(2, start)?,
            op::TUPLE3 => self.tuple_of(3, start)?,
            op::APPEND => {
                let items = self.some(1)?;
                self.keeps_classes(&items, start);
                self.list(&items)?;
                return self.filled(code, start);
            }
            op::APPENDS => {
                let items = self.gathered(start)?;
                self.list(&items)?;
                return self.filled(code, start);
            }
            op::SETITEM => {
                let items = self.some(2)?;
                self.keeps_classes(&items, start);
                return self.filled(code, start);
            }
            op::SETITEMS | op::ADDITEMS => return self.gathered(start).and_then(|_| self.filled(code, start)),
            _ => return Ok(false),
        };
        self.push(made).map(|()| true)
    }

    /// Takes all down to the last mark, where a class of NumPy has no place.
    fn gathered(&mut self, start: u64) -> Result<Vec<Value>, Stop> {
        let items = self.above_mark()?;
        self.keeps_classes(&items, start);
        Ok(items)
    }

    /// What classes of NumPy are put into may give them to whatever takes it.
    fn keeps_classes(&mut self, items: &[Value], start: u64) {
        if items.iter().any(has_class) {
            self.find_once(Grade::Unknown, start, CLASS_KEPT);
        }
    }

    /// A tuple of these, which may be a persistent id of PyTorch, or name an attribute.
    fn tuple(&mut self, items: &[Value], start: u64) -> Result<Value, Stop> {
        Ok(match items {
            [Value::Text(storage), Value::Global(Shape::Storage(bytes), _), Value::Text(key), ..]
                if self.torch && **storage == "storage" =>
            {
                Value::Storage(*bytes, Rc::clone(key))
            }
            // One of another one, and so on, grows with each.
            [of @ Value::Global(_, Some(whole)), Value::Text(name)]
                if !has_class(of) && whole.len().saturating_add(name.len()) < NAME_MAX =>
            {
                self.hold(whole.len().saturating_add(name.len()))?;
                let (module, name) = (whole.module.clone(), format!("{}.{name}", whole.name));
                Value::Attribute(Rc::new(Name { module, name }))
            }
            items => {
                // Nobody writes a class into a tuple of a tuple.
                let nested = items.iter().any(|item| matches!(item, Value::Tuple(tuple) if tuple.has_class));
                if nested {
                    self.find_once(Grade::Unknown, start, CLASS_KEPT);
                }
                Value::Tuple(Tuple::of(items))
            }
        })
    }

    fn tuple_of(&mut self, count: usize, start: u64) -> Result<Value, Stop> {
        let items = self.some(count)?;
        self.tuple(&items, start)
    }

    fn list(&mut self, items: &[Value]) -> Result<(), Stop> {
        let Some(listed) = &mut self.listed else { return Ok(()) };
        if listed.items.len().saturating_add(items.len()) > VALUES_MAX {
            return Err(Stop::Beyond("it lists too many storages".into()));
        }
        listed.items.extend_from_slice(items);
        Ok(())
    }

    /// Filling calls a method of what is filled.
    fn filled(&mut self, code: u8, start: u64) -> Result<bool, Stop> {
        let top = self.top()?;
        let fits = match code {
            op::APPEND | op::APPENDS => matches!(top, Value::List | Value::Made(Shape::List)),
            op::SETITEM | op::SETITEMS => matches!(top, Value::Map | Value::Made(Shape::Map)),
            _ => matches!(top, Value::Plain),
        };
        if !fits {
            let name = if code == op::ADDITEMS { "a set" } else { "a list or a dictionary" };
            self.find_once(Grade::Unknown, start, &format!("it fills something that is not known to be {name}"));
        }
        Ok(true)
    }

    fn find(&mut self, grade: Grade, offset: u64, what: &str) {
        let (place, what) = (self.place.to_owned(), what.to_owned());
        self.keep(Finding { grade, place, offset, global: None, what });
    }

    fn keep(&mut self, finding: Finding) {
        self.worst = self.worst.max(finding.grade);
        // Of a flood of names that are unknown the unsafe ones are kept.
        if self.findings.len() < GLOBALS_MAX {
            self.findings.push(finding);
        } else if finding.grade == Grade::Unsafe
            && let Some(last) = self.findings.last_mut()
        {
            *last = finding;
        }
    }

    fn find_once(&mut self, grade: Grade, offset: u64, what: &str) {
        if self.first_time(what) {
            self.find(grade, offset, what);
        }
    }

    /// Whether this was not told yet, as far as that is remembered.
    fn first_time(&mut self, what: &str) -> bool {
        if self.told.len() >= GLOBALS_MAX { !self.told.contains(what) } else { self.told.insert(what.to_owned()) }
    }

    fn fence(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn push(&mut self, value: Value) -> Result<(), Stop> {
        if self.stack.len() >= VALUES_MAX {
            return Err(Stop::Beyond("its stack is too deep".into()));
        }
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value, Stop> {
        let value = self.pop_to_call()?;
        self.leave(std::slice::from_ref(&value));
        Ok(value)
    }

    /// What is called at once, and goes nowhere else.
    fn pop_to_call(&mut self) -> Result<Value, Stop> {
        let empty = self.stack.len() <= self.fence();
        self.stack.pop().filter(|_| !empty).ok_or_else(|| Stop::Broken("its stack is empty".into()))
    }

    /// Takes so many.
    fn some(&mut self, count: usize) -> Result<Vec<Value>, Stop> {
        let from = self.stack.len().checked_sub(count).filter(|from| *from >= self.fence());
        let items = self.stack.split_off(from.ok_or_else(|| Stop::Broken("its stack is empty".into()))?);
        self.leave(&items);
        Ok(items)
    }

    fn top(&self) -> Result<&Value, Stop> {
        let fence = self.fence();
        self.stack.get(fence..).and_then(<[Value]>::last).ok_or_else(|| Stop::Broken("its stack is empty".into()))
    }

    /// Takes all down to the last mark.
    fn above_mark(&mut self) -> Result<Vec<Value>, Stop> {
        let mark = self.marks.pop().ok_or_else(|| Stop::Broken("a mark is missing".into()))?;
        let items = self.stack.split_off(mark.min(self.stack.len()));
        self.leave(&items);
        Ok(items)
    }

    fn put(&mut self, slot: u64) -> Result<(), Stop> {
        let value = self.top()?.clone();
        if let Some(kept) = &mut self.kept {
            keep_in(kept, slot, value.clone())?;
        }
        keep_in(&mut self.memo, slot, value)
    }

    /// Into the next slot, which is another one if a reader kept its memo.
    fn memoize(&mut self) -> Result<(), Stop> {
        let value = self.top()?.clone();
        if let Some(kept) = &mut self.kept {
            let slot = kept.len() as u64;
            keep_in(kept, slot, value.clone())?;
        }
        let slot = self.memo.len() as u64;
        keep_in(&mut self.memo, slot, value)
    }

    fn get(&mut self, slot: u64, start: u64) -> Result<(), Stop> {
        let own = self.memo.get(&slot);
        let kept = self.kept.as_ref().map_or(own, |kept| kept.get(&slot));
        let differs = match (own, kept) {
            (Some(own), Some(kept)) => !own.is_like(kept),
            (own, kept) => own.is_some() || kept.is_some(),
        };
        // A reader may keep the memo of some pickles, and not of others.
        let stop = if self.kept.is_some() { Stop::Beyond } else { Stop::Broken };
        let value = own.or(kept).cloned().ok_or_else(|| stop(format!("memo slot {slot} is empty")))?;
        if differs {
            self.acted = true;
            let what = "it takes from the memo what is another thing if a reader keeps the memo of the pickle before";
            self.find_once(Grade::Unknown, start, what);
        }
        self.push(value)
    }
}

/// A length before what is counted by it, of 1, 2, 4 or 8 bytes.
fn counted(bytes: &mut Bytes<'_>, width: u8) -> Result<u64, Stop> {
    Ok(match width {
        1 => u64::from(bytes.array::<1>()?[0]),
        2 => u64::from(u16::from_le_bytes(bytes.array()?)),
        4 => u64::from(u32::from_le_bytes(bytes.array()?)),
        _ => u64::from_le_bytes(bytes.array()?),
    })
}

fn skip_counted(bytes: &mut Bytes<'_>, width: u8) -> Result<(), Stop> {
    let count = counted(bytes, width)?;
    bytes.skip(count)
}

/// The number of a memo slot on a line.
fn number(bytes: &mut Bytes<'_>) -> Result<u64, Stop> {
    // Longer numbers are refused by Python today, and were not always.
    let line = bytes.number(NUMBER_MAX)?;
    let value = op::number(&line).ok_or_else(|| Stop::Broken("a memo slot is no number".into()))?;
    value.ok_or_else(|| Stop::Beyond("a memo slot is out of range".into()))
}
