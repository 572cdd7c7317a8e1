//! Big files: several workers take turns at one. Blocks are read side by side and cut in their order, and what was
//! cut is stored side by side again.

use super::hand::{ATTEMPTS_MAX, Paced, READ_BYTES, Worker, attributes, failed};
use super::seen::Seen;
use super::step::{Done, Piece};
use crate::base::ChunkId;
use crate::chunk::{CUT_BYTES_MAX, Layout, PAGES_FRONT_BYTES, Pages};
use crate::error::{Error, Result};
use crate::format::tree::{Entry, EntryType, Item};
use crate::model::archive::examine;
use crate::model::format::{self, FRONT_BYTES as MODEL_FRONT_BYTES, Format, Found};
use crate::model::recorded::{Malformed, Recorded};
use crate::model::verdict::Hashing;
use crate::ops::verdicts::attribute;
use crate::region::lock;
use crate::source::any::{Dir, File};
use crate::source::files::{Extent, SourceError, Stamp};
use crossbeam_channel::Sender;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Room in front of a block that is read ahead: what the cuts of the block before leave over is read there.
const FRONT_BYTES: usize = CUT_BYTES_MAX;
/// A block that is read ahead.
const BLOCK_BYTES: usize = READ_BYTES - FRONT_BYTES;

/// Most chunks of a file that is judged: more than a TiB of them.
const ITEMS_MAX: usize = 1 << 21;

type Answer<T> = std::result::Result<T, SourceError>;

/// A big file on which several workers take turns.
pub(super) struct Big {
    dir: Dir,
    entry: Entry,
    open: Mutex<Token>,
    /// The turn went on, or there is none any more.
    turns: Condvar,
    pieces: Sender<Piece>,
}

/// What a file is made of, and so where it is cut.
enum MadeOf {
    Tensors(Layout),
    Pages(Pages),
    /// Bytes, though it begins like a model.
    Malformed(Malformed),
}

/// Who holds it cuts next.
#[derive(Default)]
struct Token {
    file: Option<Arc<File>>,
    expected: Option<Stamp>,
    /// Set for a file of which it is known what it is made of.
    made_of: Option<MadeOf>,
    /// Of what was cut, where files are judged.
    hashing: Option<Hashing>,
    /// What was stored, by the numbers of the turns, where files are judged.
    stored: BTreeMap<u64, Vec<Item>>,
    stored_items: usize,
    size: u64,
    /// Behind what was cut.
    pos: u64,
    data_end: u64,
    /// Blocks that workers have taken to read.
    claims: u64,
    seq: u64,
    busy: usize,
    attempt: u32,
    cut_all: bool,
    /// What an object that changed says to whoever still reads the version before.
    torn: Option<SourceError>,
    over: bool,
}

/// What one turn took: chunk lengths in the worker's buffer, and holes.
#[derive(Default)]
struct Cuts {
    /// Where the first chunk lies in the buffer.
    from: usize,
    list: Vec<Cut>,
}

enum Cut {
    Chunk(usize),
    Hole(u64),
}

/// A block that one worker has taken to read, in its turn.
#[derive(Clone, Copy)]
struct Claim {
    number: u64,
    start: u64,
    len: usize,
}

/// Ends the file for all hands, unless the one that holds this says that its part was done: others may be waiting for it.
struct Duty<'b> {
    big: &'b Big,
    done: bool,
}

impl Drop for Duty<'_> {
    fn drop(&mut self) {
        if !self.done {
            lock(&self.big.open).over = true;
            self.big.turns.notify_all();
        }
    }
}

/// What is left to do for a hand.
enum Turn {
    /// To store these.
    Store(u64, Cuts),
    /// Another turn: the file is read anew.
    Again,
    /// Nothing.
    Over,
}

impl Big {
    pub(super) fn new(dir: Dir, entry: Entry, pieces: Sender<Piece>) -> Big {
        Big { dir, entry, open: Mutex::default(), turns: Condvar::new(), pieces }
    }

    /// As [`Dir::gone`].
    pub(super) fn gone(&self) -> Option<Error> {
        self.dir.gone()
    }

    /// Waits until all blocks before were cut, or no more is to be cut.
    fn turn(&self, claim: Claim) -> MutexGuard<'_, Token> {
        let waits = |token: &mut Token| !token.over && !token.cut_all && token.seq != claim.number;
        self.turns.wait_while(lock(&self.open), waits).unwrap_or_else(PoisonError::into_inner)
    }

    /// It cannot be read.
    fn fail(&self, token: &mut Token, why: &SourceError) {
        if !std::mem::replace(&mut token.over, true) {
            let _ = self.pieces.send(Piece::End(Box::new(failed(why))));
        }
    }

    /// Everything was cut, stored and judged: did the file stay the same meanwhile?
    fn end(&self, token: &mut Token, recorded: Option<Recorded>) {
        let Some(file) = token.file.clone() else { return };
        let mut entry = self.entry.clone();
        // One look, both to compare and to keep: a change between two would pass for what was read.
        let torn = token.torn.take();
        let again = token.attempt < ATTEMPTS_MAX;
        let now = match &torn {
            Some(e) if !again => Err(e.clone()),
            Some(_) => file.renew().and_then(|()| file.stamp()),
            None => file.apply(&mut entry).map(|()| Stamp::of(&entry)),
        };
        let changed = now.as_ref().is_ok_and(|now| torn.is_some() || Some(now) != token.expected.as_ref());
        if changed && again && token.begin(&file).is_ok() {
            let _ = self.pieces.send(Piece::Restart);
            return;
        }
        // Of parts of two versions nothing is made.
        let now = now.and_then(|now| torn.map_or(Ok(now), Err));
        token.over = true;
        let model = matches!(token.made_of, Some(MadeOf::Tensors(_)));
        let done = match now {
            Err(e) => failed(&e),
            Ok(_) => {
                let (xattrs, misses) = attributes(&file);
                entry.xattrs = xattrs;
                if let Some(recorded) = recorded {
                    attribute::put(&mut entry, &if changed { recorded.changed() } else { recorded });
                }
                Done {
                    result: Ok(entry),
                    items: None,
                    read: true,
                    model,
                    misses,
                    changed: changed.then(|| file.path()),
                }
            }
        };
        let _ = self.pieces.send(Piece::End(Box::new(done)));
    }
}

impl Token {
    /// Begins, or begins anew.
    fn begin(&mut self, file: &Arc<File>) -> Answer<()> {
        let stamp = file.stamp()?;
        *self = Token {
            file: Some(Arc::clone(file)),
            size: stamp.size,
            expected: Some(stamp),
            attempt: self.attempt + 1,
            ..Token::default()
        };
        Ok(())
    }

    /// Whether its blocks may be read ahead of the cuts: it has neither holes nor tensors.
    fn is_plain(&self, file: &File) -> bool {
        !file.is_sparse() && !matches!(self.made_of, Some(MadeOf::Tensors(_))) && self.size > 0
    }

    /// What keeps it from being the model that it begins like.
    fn malformed(&self) -> Option<Malformed> {
        match &self.made_of {
            Some(MadeOf::Malformed(malformed)) => Some(malformed.clone()),
            _ => None,
        }
    }

    /// The next block to read; `None` if others have taken all of them.
    fn claim(&mut self) -> Option<Claim> {
        let start = self.claims.saturating_mul(BLOCK_BYTES as u64);
        let len = usize::try_from(self.size.saturating_sub(start)).unwrap_or(usize::MAX).min(BLOCK_BYTES);
        if len == 0 {
            return None;
        }
        let claim = Claim { number: self.claims, start, len };
        self.claims += 1;
        self.busy += 1;
        Some(claim)
    }

    /// Takes note of what was stored. What is left out of that is not judged, and unknown.
    fn keep(&mut self, seq: u64, items: Vec<Item>) {
        if self.stored_items.saturating_add(items.len()) <= ITEMS_MAX {
            self.stored_items = self.stored_items.saturating_add(items.len());
            self.stored.insert(seq, items);
        }
    }

    /// Takes note of what was cut.
    fn cut(&mut self, bytes: usize) {
        self.pos += bytes as u64;
        self.seq += 1;
    }
}

impl Worker<'_, '_> {
    /// Takes turns at a big file until it is done.
    pub(super) fn big(&mut self, big: &Big) -> Result<()> {
        loop {
            self.cancel.check()?;
            // Whoever leaves this loop by an error, or in a panic, leaves something undone.
            let mut duty = Duty { big, done: false };
            let turn = self.turn(big);
            if let Turn::Store(seq, cuts) = &turn {
                let items = self.store(cuts)?;
                let kept = self.judges.then(|| items.clone());
                if big.pieces.send(Piece::Items { seq: *seq, items }).is_err() {
                    // The builder is gone: the run was given up, and nobody wants the rest.
                    return Ok(());
                }
                let mut token = lock(&big.open);
                kept.into_iter().for_each(|items| token.keep(*seq, items));
                self.leave(big, token);
            }
            duty.done = true;
            if matches!(turn, Turn::Over) {
                return Ok(());
            }
        }
    }

    /// One hand less; the last one judges the file if that is asked for, and ends it or begins it anew.
    fn leave(&self, big: &Big, mut token: MutexGuard<'_, Token>) {
        token.busy -= 1;
        if !token.cut_all || token.busy > 0 || token.over {
            return;
        }
        let judged = self.judges && token.torn.is_none();
        let Some(file) = token.file.clone().filter(|_| judged) else { return big.end(&mut token, None) };
        let (hashing, stored) = (token.hashing.take().unwrap_or_default(), std::mem::take(&mut token.stored));
        let size = token.pos;
        // Nobody cuts any more, and others need not wait for this.
        drop(token);
        let (file, id) = (Paced { file: &file, pace: self.pace }, |bytes: &[u8]| self.packer.id(bytes));
        let read = |offset: u64, buf: &mut [u8]| format::ReadAt::read_at(&file, offset, buf);
        let seen = Seen::new(size, stored.into_values().flatten(), &read, &id, self.cancel);
        let recorded = Recorded::new(hashing.finish(), examine(&seen));
        let (other, unread) = (seen.is_other(), seen.is_unread());
        let mut token = lock(&big.open);
        if !token.over {
            let mut recorded = if unread { recorded.unread() } else { recorded };
            recorded.malformed = token.malformed();
            let recorded = if other { recorded.changed() } else { recorded };
            big.end(&mut token, Some(recorded));
        }
    }

    /// The next few chunks, if some are left.
    fn turn(&mut self, big: &Big) -> Turn {
        let mut token = lock(&big.open);
        if token.cut_all || token.over {
            return Turn::Over;
        }
        let file = match self.opened(big, &mut token) {
            Ok(file) => file,
            Err(e) => {
                big.fail(&mut token, &e);
                return Turn::Over;
            }
        };
        let cut = if token.is_plain(&file) {
            let Some(claim) = token.claim() else { return Turn::Over };
            drop(token);
            self.make_room(READ_BYTES);
            let read = self.read_to(FRONT_BYTES, &file, claim.start, claim.len);
            token = big.turn(claim);
            if token.over {
                return Turn::Over;
            }
            if token.cut_all {
                // It ended before this block. The last one to find that may have begun it anew, and be the only one left.
                self.leave(big, token);
                return Turn::Again;
            }
            read.and_then(|got| self.cut_block(&file, &mut token, claim, got))
        } else {
            token.busy += 1;
            self.cut_in_order(&file, &mut token)
        };
        let turn = match cut {
            Ok(cuts) => Turn::Store(token.seq - 1, cuts),
            Err(e) if file.is_passing(&e) => {
                (token.torn, token.cut_all) = (Some(e), true);
                self.leave(big, token);
                Turn::Again
            }
            Err(e) => {
                big.fail(&mut token, &e);
                Turn::Over
            }
        };
        big.turns.notify_all();
        turn
    }

    /// The file; opened by the first one that comes.
    fn opened(&mut self, big: &Big, token: &mut Token) -> Answer<Arc<File>> {
        let file = match &token.file {
            Some(file) => Arc::clone(file),
            None => {
                let file = Arc::new(big.dir.open(&big.entry)?);
                file.advise_sequential();
                token.begin(&file)?;
                file
            }
        };
        while token.claims == 0 && token.seq == 0 {
            match self.made_of(big, &file, token.size) {
                Ok(made_of) => {
                    token.made_of = made_of;
                    break;
                }
                Err(e) if file.is_passing(&e) && token.attempt < ATTEMPTS_MAX => {
                    file.renew()?;
                    token.begin(&file)?;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(file)
    }

    /// Cuts a block that lies in the buffer, together with what the one before left over.
    fn cut_block(
        &mut self,
        file: &File,
        token: &mut Token,
        Claim { start, len, .. }: Claim,
        got: usize,
    ) -> Answer<Cuts> {
        let front = usize::try_from(start.saturating_sub(token.pos)).unwrap_or(usize::MAX).min(FRONT_BYTES);
        let from = FRONT_BYTES - front;
        let there = self.read_to(from, file, token.pos, front)?;
        // Shorter than it was: what there was is all there is.
        let end = if there < front { from + there } else { FRONT_BYTES + got };
        token.cut_all = there < front || got < len || start + got as u64 >= token.size;
        let data = &self.buf[from..end];
        let mut cuts = Cuts { from, list: Vec::new() };
        let mut done = 0;
        while let Some(len) = match &token.made_of {
            Some(MadeOf::Pages(pages)) => pages.next(token.pos + done as u64, data.len() - done, token.cut_all),
            _ => self.cutter.next(&data[done..], token.cut_all),
        } {
            cuts.list.push(Cut::Chunk(len));
            done += len;
        }
        self.hash(token, from, done);
        self.count(done);
        token.cut(done);
        Ok(cuts)
    }

    /// Takes note of bytes in the buffer that were cut.
    fn hash(&self, token: &mut Token, from: usize, len: usize) {
        if self.judges {
            token.hashing.get_or_insert_default().update(&self.buf[from..from + len]);
        }
    }

    /// Reads and cuts the next few chunks of a file; `cut_all` once its end is reached.
    fn cut_in_order(&mut self, file: &File, token: &mut Token) -> Answer<Cuts> {
        let mut cuts = Cuts::default();
        while token.pos >= token.data_end {
            let next = if token.pos >= token.size {
                Extent::End
            } else if file.is_sparse() {
                file.extent(token.pos)?
            } else {
                Extent::Data { start: token.pos, end: token.size }
            };
            match next {
                Extent::End => {
                    token.cut_all = true;
                    token.cut(0);
                    return Ok(cuts);
                }
                Extent::Hole { end, .. } => {
                    let end = end.min(token.size);
                    cuts.list.push(Cut::Hole(end - token.pos));
                    if self.judges {
                        token.hashing.get_or_insert_default().zeros(end - token.pos);
                    }
                    token.pos = end;
                    token.data_end = end;
                }
                Extent::Data { end, .. } => token.data_end = end.min(token.size),
            }
        }
        let most = match &token.made_of {
            Some(MadeOf::Tensors(layout)) => layout.ahead(token.pos),
            _ => READ_BYTES,
        };
        let want = usize::try_from(token.data_end - token.pos).unwrap_or(usize::MAX).min(most);
        self.make_room(want);
        let got = self.read_to(0, file, token.pos, want)?;
        // Shorter than it was: what there was is all there is.
        token.cut_all = got < want;
        if got == 0 {
            token.cut(0);
            return Ok(cuts);
        }
        let at_end = got < want || token.pos + got as u64 >= token.data_end;
        let mut done = 0;
        while let Some(len) = match &token.made_of {
            Some(MadeOf::Tensors(layout)) => layout.next(token.pos + done as u64, got - done, at_end),
            Some(MadeOf::Pages(pages)) => pages.next(token.pos + done as u64, got - done, at_end),
            Some(MadeOf::Malformed(_)) | None => self.cutter.next(&self.buf[done..got], at_end),
        } {
            cuts.list.push(Cut::Chunk(len));
            done += len;
        }
        debug_assert!(done > 0 || got < CUT_BYTES_MAX);
        self.hash(token, 0, done);
        self.count(done);
        token.cut(done);
        Ok(cuts)
    }

    fn count(&self, bytes: usize) {
        self.progress.bytes_read.add(bytes as u64);
        self.progress.bytes_done.add(bytes as u64);
    }

    /// What a file is made of, if it begins like something that is known.
    fn made_of(&mut self, big: &Big, file: &File, size: u64) -> Answer<Option<MadeOf>> {
        self.make_room(MODEL_FRONT_BYTES);
        let got = self.read_to(0, file, 0, MODEL_FRONT_BYTES)?;
        if Pages::may_be(&self.buf[..got]) {
            self.make_room(PAGES_FRONT_BYTES);
            let got = self.read_to(0, file, 0, PAGES_FRONT_BYTES)?;
            if let Some(pages) = Pages::of(&self.buf[..got], size) {
                return Ok(Some(MadeOf::Pages(pages)));
            }
        }
        Ok(self.tensors(big, file, size, got))
    }

    /// Where the tensors of a file lie, if it begins like a model and is one; its begin lies in the buffer.
    fn tensors(&self, big: &Big, file: &File, size: u64, got: usize) -> Option<MadeOf> {
        let Some(kind) = Format::probe(&self.buf[..got]) else {
            return self.layout_beside(big, size).map(MadeOf::Tensors);
        };
        // What cannot be read of it is no reason to give up here: the file is read as a whole afterwards.
        match format::read_as(kind, &Paced { file, pace: self.pace }, size).ok()? {
            Found::Model(model) => Layout::of(&model.sections(), size).map(MadeOf::Tensors),
            found => Malformed::of(&found).map(MadeOf::Malformed),
        }
    }

    /// Where tensors lie in a file that has nothing else, told by the model beside it: `model.onnx` of
    /// `model.onnx.data`, say. Only the name leads there, and what is said there is a hint.
    fn layout_beside(&self, big: &Big, size: u64) -> Option<Layout> {
        let name = std::str::from_utf8(&big.entry.name).ok()?;
        let owner = name.strip_suffix(".data").or_else(|| name.strip_suffix("_data"))?;
        let owner = big.dir.open(&Entry::bare(owner.as_bytes(), EntryType::File)).ok()?;
        let len = owner.stamp().ok()?.size;
        match format::read(&Paced { file: &owner, pace: self.pace }, len).ok()? {
            Found::Model(model) => Layout::of(&model.sections_beside(name), size),
            Found::Malformed(..) | Found::Other => None,
        }
    }

    fn store(&mut self, cuts: &Cuts) -> Result<Vec<Item>> {
        let mut at = cuts.from;
        let mut items = Vec::with_capacity(cuts.list.len());
        for cut in &cuts.list {
            items.push(match cut {
                Cut::Hole(len) => Item { id: ChunkId::HOLE, len: *len },
                Cut::Chunk(len) => {
                    self.cancel.check()?;
                    let id = self.packer.chunk(&self.buf[at..at + len])?;
                    at += len;
                    Item { id, len: *len as u64 }
                }
            });
        }
        Ok(items)
    }
}
