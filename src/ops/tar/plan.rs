//! Walks the tree: members in their order, with the chunks that they need.

use super::header::{self, Member, padding};
use super::write::{Piece, Step};
use super::{TarReport, TarRequest};
use crate::base::{Cancel, ChunkId};
use crate::chunk::Coder;
use crate::error::{Error, Kind, Result};
use crate::format::tree::{Entry, EntryType, Item, Xattr};
use crate::ops::ahead::Asker;
use crate::ops::verdicts::attribute;
use crate::repo::reader::Reader;
use crate::repo::tree::{DirReader, ListReader, check_depth, read_xattrs};
use crossbeam_channel::Sender;
use std::collections::HashMap;

/// A file with more pieces of data between holes is written with zeros: the map of them is held in memory.
const EXTENTS_MAX: u64 = 1 << 20;
/// Pieces of one step, holes among them.
const STEP_PIECES_MAX: usize = 64;
/// Bytes that one step asks for: a file that needs no more is read to its end before its header is written, wherever its
/// chunks were cut.
const STEP_BYTES_MAX: u64 = 8 << 20;

/// A directory that is being walked.
struct Open<'r> {
    entry: Entry,
    reader: DirReader<'r>,
    path_len: usize,
    /// Whether everything below is wanted.
    included: bool,
    /// Whether its own header was sent.
    announced: bool,
}

/// The first name of an inode with several.
struct FirstLink {
    path: Vec<u8>,
    left: u64,
}

/// The data of a file between its holes.
#[derive(Default)]
struct Extents {
    count: u64,
    /// Bytes of the lines that name them.
    lines_bytes: u64,
    data_bytes: u64,
    size: u64,
    /// Where the one that is being gathered begins.
    open: Option<u64>,
}

pub(super) struct Planner<'p> {
    reader: &'p Reader,
    request: &'p TarRequest,
    asker: &'p Asker<Vec<u8>>,
    steps: &'p Sender<Step>,
    cancel: &'p Cancel,
    coder: Coder,
    stack: Vec<Open<'p>>,
    path: Vec<u8>,
    links: HashMap<(u64, u64), FirstLink>,
    /// Entries still allowed: directories that share pages could make any number of few.
    entries_left: u64,
    report: TarReport,
    models: bool,
}

fn is_hole(item: &Item) -> bool {
    item.id == ChunkId::HOLE
}

/// The writer is gone: it has an error of its own to tell.
fn gone() -> Error {
    Error::new(Kind::Cancelled, "the output ended")
}

impl<'p> Planner<'p> {
    pub(super) fn new(
        reader: &'p Reader,
        request: &'p TarRequest,
        asker: &'p Asker<Vec<u8>>,
        steps: &'p Sender<Step>,
        cancel: &'p Cancel,
        entries_left: u64,
    ) -> Self {
        let (stack, path, links) = (Vec::new(), Vec::new(), HashMap::new());
        let (coder, report, models) = (Coder::default(), TarReport::default(), false);
        Planner { reader, request, asker, steps, cancel, coder, stack, path, links, entries_left, report, models }
    }

    /// Of a snapshot whose files have verdicts, which their source did not have.
    pub(super) fn of_models(self, models: bool) -> Self {
        Planner { models, ..self }
    }

    /// Everything below `root`, or the one entry that it is.
    pub(super) fn run(mut self, root: &Entry) -> Result<TarReport> {
        if root.kind == EntryType::Dir {
            self.enter(root.clone(), !self.request.only_included)?;
            while let Some(open) = self.stack.last_mut() {
                self.cancel.check()?;
                match open.reader.next(&mut self.coder) {
                    Ok(Some(entry)) => self.entry(entry)?,
                    Ok(None) => _ = self.stack.pop(),
                    // The rest of this directory is lost; everything else is not.
                    Err(e) => {
                        let len = open.path_len.min(self.path.len());
                        self.report.lost(&self.path[..len], &e);
                        self.stack.pop();
                    }
                }
            }
        } else {
            self.path = root.name.to_vec();
            self.member(root)?;
        }
        self.send(Step::End)?;
        Ok(self.report)
    }

    /// The content of a file, without a header.
    pub(super) fn content(mut self, entry: &Entry) -> Result<()> {
        self.file(entry, Vec::new(), &Extents::default())?;
        self.send(Step::End)
    }

    fn send(&self, step: Step) -> Result<()> {
        self.steps.send(step).map_err(|_| gone())
    }

    fn entry(&mut self, entry: Entry) -> Result<()> {
        self.entries_left = self.entries_left.checked_sub(1).ok_or_else(|| {
            Error::new(Kind::Damage, "the snapshot has more entries than its manifest says")
                .advise("what was written so far is in the archive")
        })?;
        let Some(open) = self.stack.last() else { return Ok(()) };
        let (path_len, inherited) = (open.path_len, open.included);
        self.path.truncate(path_len);
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(&entry.name);
        if !entry.name_is_safe() {
            self.report.miss(&self.path, "refused", "the snapshot has a name that no directory can hold");
            return Ok(());
        }
        let is_dir = entry.kind == EntryType::Dir;
        if self.request.exclude.excludes(&self.path, is_dir) {
            return Ok(());
        }
        let included = inherited || self.request.include.excludes(&self.path, is_dir);
        if is_dir {
            return self.enter(entry, included);
        }
        if !included {
            return Ok(());
        }
        self.announce()?;
        self.member(&entry)
    }

    fn enter(&mut self, entry: Entry, included: bool) -> Result<()> {
        if let Err(e) = check_depth(self.stack.len()) {
            self.report.miss(&self.path, "refused", e.what());
            return Ok(());
        }
        let (reader, path_len) = (DirReader::new(self.reader, entry.tree), self.path.len());
        self.stack.push(Open { entry, reader, path_len, included, announced: false });
        if included { self.announce() } else { Ok(()) }
    }

    /// Sends the headers of the directories down to the current one.
    fn announce(&mut self) -> Result<()> {
        for depth in 0..self.stack.len() {
            let open = &mut self.stack[depth];
            if std::mem::replace(&mut open.announced, true) {
                continue;
            }
            let (entry, path) = (open.entry.clone(), self.path[..open.path_len].to_vec());
            let path = if path.is_empty() { b".".to_vec() } else { path };
            let xattrs = self.xattrs(&entry, &path);
            let head = self.head(&path, &entry, &xattrs, 0, false);
            if let Some(head) = head {
                self.send(Step::Plain { head, entry: Box::new(entry) })?;
            }
        }
        Ok(())
    }

    /// Attributes that cannot be read are named, and their entry goes without.
    fn xattrs(&mut self, entry: &Entry, path: &[u8]) -> Vec<Xattr> {
        let mut found = match entry.xattrs_ref {
            None => entry.xattrs.clone().unwrap_or_default(),
            Some(id) => read_xattrs(self.reader, &id, &mut self.coder).unwrap_or_else(|e| {
                self.report.lost(path, &e);
                Vec::new()
            }),
        };
        found.retain(|xattr| !(self.models && attribute::is_one(xattr)));
        found
    }

    fn head(&mut self, path: &[u8], entry: &Entry, xattrs: &[Xattr], stored: u64, sparse: bool) -> Option<Vec<u8>> {
        let member = Member { path, entry, xattrs, link: None, stored_bytes: stored, sparse };
        let head = header::encode(&member);
        head.map_err(|why| self.report.miss(path, "unsupported", why)).ok()
    }

    fn member(&mut self, entry: &Entry) -> Result<()> {
        let path = self.path.clone();
        if let Some(first) = self.first_link(entry, &path) {
            let member = Member { path: &path, entry, xattrs: &[], link: Some(&first), stored_bytes: 0, sparse: false };
            return match header::encode(&member) {
                Ok(head) => self.send(Step::Link { path, first, head, entry: Box::new(entry.clone()) }),
                Err(why) => {
                    self.report.miss(&path, "unsupported", why);
                    Ok(())
                }
            };
        }
        let extents = match self.extents(entry) {
            Ok(extents) => extents,
            Err(e) => {
                self.report.lost(&path, &e);
                return self.send(Step::Failed { path });
            }
        };
        let xattrs = self.xattrs(entry, &path);
        let (sparse, stored) = (extents.has_holes(), extents.stored());
        let Some(head) = self.head(&path, entry, &xattrs, stored, sparse) else {
            return self.send(Step::Failed { path });
        };
        if entry.kind != EntryType::File {
            return self.send(Step::Plain { head, entry: Box::new(entry.clone()) });
        }
        self.file(entry, head, &extents)
    }

    /// The first name of an inode of which another was sent before.
    fn first_link(&mut self, entry: &Entry, path: &[u8]) -> Option<Vec<u8>> {
        // A socket is in no archive, under no name.
        let group = entry.link_group().filter(|_| entry.kind != EntryType::Socket)?;
        let known = self.links.contains_key(&group);
        let left = entry.nlink.unwrap_or(1);
        let first = self.links.entry(group).or_insert_with(|| FirstLink { path: path.to_vec(), left });
        first.left = first.left.saturating_sub(1);
        let (found, last) = (first.path.clone(), first.left == 0);
        if last {
            self.links.remove(&group);
        }
        known.then_some(found)
    }

    /// Looks through a file's list: where its data is, and whether it adds up to the size that the header will say.
    fn extents(&mut self, entry: &Entry) -> Result<Extents> {
        let mut found = Extents::default();
        if entry.kind != EntryType::File {
            return Ok(found);
        }
        let mut list = ListReader::new(self.reader, entry)?;
        while let Some(item) = list.next(&mut self.coder)? {
            found.add(item.len, is_hole(&item) && !self.request.no_sparse);
        }
        found.add(entry.inline.as_ref().map_or(0, |inline| inline.len() as u64), false);
        found.end();
        if found.count > EXTENTS_MAX {
            found = Extents { data_bytes: found.size, size: found.size, ..Extents::default() };
        }
        if found.size != entry.size() {
            return Err(Error::new(Kind::Damage, "the file's chunks do not add up to its size"));
        }
        Ok(found)
    }

    /// The map of a file with holes: how many extents, then offset and length of each, filled up to whole blocks.
    fn map(&mut self, entry: &Entry, extents: &Extents) -> Result<Vec<Vec<u8>>> {
        let (mut parts, mut part) = (Vec::new(), format!("{}\n", extents.count).into_bytes());
        let mut list = ListReader::new(self.reader, entry)?;
        let mut at = Extents::default();
        loop {
            let item = list.next(&mut self.coder)?;
            let line = match &item {
                Some(item) => at.add(item.len, is_hole(item)),
                None => at.end(),
            };
            line.iter().for_each(|line| part.extend_from_slice(line.as_bytes()));
            if item.is_none() {
                break;
            }
            if part.len() >= 1 << 20 {
                parts.push(std::mem::take(&mut part));
            }
        }
        part.resize(part.len() + padding(extents.map_bytes()), 0);
        parts.push(part);
        Ok(parts)
    }

    /// Sends a file in groups of pieces. What cannot be planned any more is an error: its header may be written.
    fn file(&mut self, entry: &Entry, head: Vec<u8>, extents: &Extents) -> Result<()> {
        let path = self.path.clone();
        let mut pieces: Vec<Piece> = Vec::new();
        let mut group = Group { path, head: Some(head), entry: Some(Box::new(entry.clone())), bytes: 0 };
        if extents.has_holes() {
            pieces.extend(self.map(entry, extents)?.into_iter().map(Piece::Here));
        }
        pieces.extend(entry.inline.as_ref().map(|inline| Piece::Here(inline.to_vec())));
        let mut list = ListReader::new(self.reader, entry)?;
        while let Some(item) = list.next(&mut self.coder)? {
            self.cancel.check()?;
            if is_hole(&item) && extents.has_holes() {
                continue;
            }
            let bytes = if is_hole(&item) { 0 } else { item.len };
            let full = group.bytes > 0 && group.bytes.saturating_add(bytes) > STEP_BYTES_MAX;
            if full || pieces.len() >= STEP_PIECES_MAX {
                self.send(group.step(std::mem::take(&mut pieces), false))?;
            }
            if is_hole(&item) {
                pieces.push(Piece::Zeros(item.len));
            } else {
                group.bytes = group.bytes.saturating_add(bytes);
                pieces.push(Piece::Chunk(self.asker.ask(item)));
            }
        }
        self.send(group.step(pieces, true))
    }
}

/// What of a file goes into the next step.
struct Group {
    path: Vec<u8>,
    head: Option<Vec<u8>>,
    entry: Option<Box<Entry>>,
    bytes: u64,
}

impl Group {
    fn step(&mut self, pieces: Vec<Piece>, last: bool) -> Step {
        self.bytes = 0;
        let path = if last { std::mem::take(&mut self.path) } else { self.path.clone() };
        Step::Content { path, head: self.head.take(), entry: self.entry.take(), pieces, last }
    }
}

impl Extents {
    fn has_holes(&self) -> bool {
        self.size != self.data_bytes
    }

    fn map_bytes(&self) -> u64 {
        self.lines_bytes + self.count.to_string().len() as u64 + 1
    }

    /// Bytes that follow the header.
    fn stored(&self) -> u64 {
        let map = if self.has_holes() { self.map_bytes() } else { 0 };
        map.saturating_add(padding(map) as u64).saturating_add(self.data_bytes)
    }

    /// Takes the next item; returns the line of the extent that it ends.
    fn add(&mut self, len: u64, hole: bool) -> Option<String> {
        let line = if hole { self.close() } else { None };
        if !hole && len > 0 {
            self.open.get_or_insert(self.size);
            self.data_bytes = self.data_bytes.saturating_add(len);
        }
        self.size = self.size.saturating_add(len);
        line
    }

    /// The end of the file. Where it ends with a hole, an extent of no length says how long it is.
    fn end(&mut self) -> Option<String> {
        if self.open.is_none() && self.has_holes() {
            self.open = Some(self.size);
        }
        self.close()
    }

    fn close(&mut self) -> Option<String> {
        let start = self.open.take()?;
        let line = format!("{start}\n{}\n", self.size.saturating_sub(start));
        self.count += 1;
        self.lines_bytes += line.len() as u64;
        Some(line)
    }
}
