//! Validly signed snapshots of trees that no walk would find.

use crate::damage::fixture::run;
use crate::harness::{Bench, files};
use crate::inside::Inside;
use holdfast::base::{ChunkId, Generation, Progress, SegmentName, SessionId};
use holdfast::chunk::Compression;
use holdfast::crypto::Secret;
use holdfast::format::cbor;
use holdfast::format::envelope::{Class, Kind as ObjectKind};
use holdfast::format::index::{Place, Segment, encode_packs, encode_places};
use holdfast::format::snapshot::{Counts, Manifest, content_digest};
use holdfast::format::tree::{Child, Entry, EntryType, Item, ListPage, Page, push_item};
use holdfast::repo::index::{Index, Reusable, Reuse};
use holdfast::repo::init::NewSecret;
use holdfast::repo::keys;
use holdfast::repo::session::{Errand, Session};
use holdfast::repo::view::View;
use holdfast::repo::writer::{Packer, Writer};
use holdfast::store::Key;
use holdfast::unlock::Unlock;
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A repository whose writer means harm, a target, and what lies beside the target and must not change.
pub struct Villain {
    pub bench: Bench,
    inside: Inside,
    base: Manifest,
}

/// Puts pages and chunks into a snapshot that is being made.
pub struct Craft<'w, 'r> {
    data: Packer<'w, 'r>,
    tree: Packer<'w, 'r>,
}

impl Craft<'_, '_> {
    pub fn chunk(&mut self, bytes: &[u8]) -> ChunkId {
        self.data.chunk(bytes).expect("stored")
    }

    /// Any bytes as a page.
    pub fn raw(&mut self, bytes: &[u8]) -> ChunkId {
        self.tree.chunk(bytes).expect("stored")
    }

    pub fn page(&mut self, entries: Vec<Entry>) -> ChunkId {
        self.raw(&cbor::encode(&Page { level: 0, entries: Some(entries), children: None }))
    }

    /// A page over others, each with the first name that it is said to have.
    pub fn above(&mut self, level: u8, children: &[(&str, ChunkId)]) -> ChunkId {
        let child = |(first, page): &(&str, ChunkId)| Child {
            page: *page,
            first: first.as_bytes().to_vec().into(),
            entries: 1,
        };
        let children = Some(children.iter().map(child).collect());
        self.raw(&cbor::encode(&Page { level, entries: None, children }))
    }

    pub fn list(&mut self, level: u8, items: &[Item]) -> ChunkId {
        self.raw(&cbor::encode(&ListPage { level, items: list(items).into() }))
    }

    pub fn dir(&mut self, name: &[u8], entries: Vec<Entry>) -> Entry {
        let mut dir = named(name, EntryType::Dir, 0o755);
        dir.tree = (!entries.is_empty()).then(|| self.page(entries));
        dir
    }
}

pub fn list(items: &[Item]) -> Vec<u8> {
    let mut out = Vec::new();
    items.iter().for_each(|item| push_item(&mut out, *item));
    out
}

pub fn named(name: &[u8], kind: EntryType, mode: u32) -> Entry {
    Entry { mode, ..Entry::bare(name, kind) }
}

pub fn file(name: &[u8], content: &[u8]) -> Entry {
    let mut file = named(name, EntryType::File, 0o644);
    (file.size, file.inline) = (Some(content.len() as u64), Some(content.to_vec().into()));
    file
}

pub fn symlink(name: &[u8], target: &Path) -> Entry {
    let mut link = named(name, EntryType::Symlink, 0o777);
    link.target = Some(target.as_os_str().as_encoded_bytes().to_vec().into());
    link
}

impl Villain {
    pub fn new() -> Villain {
        let bench = Bench::new(&["a", "b"]);
        std::fs::write(bench.path("key"), [7; 32]).expect("key file");
        {
            let secret = Unlock::Passphrase(crate::harness::PASSPHRASE.to_owned().into());
            let seed = NewSecret::KeyFile(Secret::from_bytes([7; 32]));
            keys::add(&Inside::open(&bench, &secret).repo, "key", &seed).expect("a slot");
        }
        std::fs::create_dir(bench.path("source")).expect("directory");
        std::fs::write(bench.path("source/file"), b"good").expect("file");
        let source = bench.path("source").display().to_string();
        let (code, done) = run(bench.dir.path(), &bench.path("key"), &["backup", "--name", "base", &source]);
        assert_eq!(code, 0, "{done:#}");
        let inside = Inside::with_key(&bench, [7; 32]);
        let base = View::load(&inside.repo).expect("view").snapshots.into_values().next().expect("a snapshot").manifest;
        let outside = bench.path("outside");
        std::fs::create_dir(&outside).expect("directory");
        std::fs::write(outside.join("canary"), b"alive").expect("canary");
        Villain { bench, inside, base }
    }

    pub fn id_of(&self, bytes: &[u8]) -> ChunkId {
        self.inside.repo.id_key().id(bytes)
    }

    /// An index segment by which the bytes `said`, of the same length, are where `real` is.
    pub fn mislead(&self, real: &[u8], said: &[u8]) {
        let repo = &self.inside.repo;
        let index = Index::load(repo).expect("index");
        let at = index.locate(&self.id_of(real)).next().expect("it is stored");
        let place = Place { id: self.id_of(said), pack: 0, ..at.place };
        let segment = Segment {
            fresh: repo.fresh(),
            sid: SessionId([9; 16]),
            generation: Generation(1),
            domain: repo.domain(),
            packs: encode_packs(&[at.pack]).into(),
            entries: encode_places(&mut [place]).into(),
        };
        let bytes = repo.seal(ObjectKind::Index, "", &segment).expect("sealed");
        self.inside.put(Key::Index(SegmentName(*blake3::hash(&bytes).as_bytes())), bytes);
    }

    /// A directory that must never change.
    pub fn outside(&self) -> PathBuf {
        self.bench.path("outside")
    }

    /// A snapshot of the tree that `make` builds; returns its id.
    pub fn snapshot(&self, make: impl FnOnce(&mut Craft<'_, '_>) -> Entry) -> String {
        let counts = Counts { files: 1000, dirs: 6000, ..Counts::default() };
        self.counted(counts, make)
    }

    pub fn counted(&self, counts: Counts, make: impl FnOnce(&mut Craft<'_, '_>) -> Entry) -> String {
        self.of_kind("files", counts, make)
    }

    /// A snapshot of models: one directory with these entries.
    pub fn models(&self, entries: Vec<Entry>) -> String {
        let counts = Counts { files: entries.len() as u64, dirs: 1, ..Counts::default() };
        self.of_kind("model", counts, |craft| craft.dir(b"", entries))
    }

    /// A snapshot of a source of this kind.
    pub fn of_kind(&self, kind: &str, counts: Counts, make: impl FnOnce(&mut Craft<'_, '_>) -> Entry) -> String {
        let repo = &self.inside.repo;
        let errand = Errand { host: "h".into(), source: "hostile".into(), generation: Generation(1) };
        let session = Session::announce(repo, errand, None).expect("announced");
        let index = std::sync::Arc::new(Index::load(repo).expect("index"));
        let rules = Reuse { regions: repo.usable(), bad: [].into(), generation: Generation(1), present: None };
        let progress = Progress::default();
        let writer = Writer::new(repo, &session, Reusable::new(index, rules), (Compression::Default, 1), &progress);
        let mut craft = Craft { data: writer.packer(Class::Data), tree: writer.packer(Class::Tree) };
        let root = make(&mut craft);
        craft.data.flush().expect("flushed");
        craft.tree.flush().expect("flushed");
        writer.finish().expect("stored");
        let sid: SessionId = session.sid;
        let mut manifest = Manifest { sid, content: content_digest(&root), root, counts, ..self.base.clone() };
        manifest.source.kind = kind.into();
        let key = Key::Snapshot(sid);
        self.inside.put(key, repo.seal(ObjectKind::Manifest, &key.canonical(), &manifest).expect("sealed"));
        sid.hex()
    }

    /// A snapshot of one directory with these entries.
    pub fn of(&self, entries: Vec<Entry>) -> String {
        self.snapshot(|craft| craft.dir(b"", entries))
    }

    pub fn run(&self, args: &[&str]) -> (i32, Value) {
        run(self.bench.dir.path(), &self.bench.path("key"), args)
    }

    /// An empty target.
    pub fn target(&self) -> PathBuf {
        let target = self.bench.path("place/target");
        let _ = std::fs::remove_dir_all(self.bench.path("place"));
        std::fs::create_dir_all(&target).expect("target");
        std::fs::write(self.bench.path("place/canary"), b"alive").expect("canary");
        target
    }

    /// Restores into the target as it is; nothing outside it may change.
    pub fn restore(&self, sid: &str, more: &[&str]) -> (i32, Value) {
        let before = self.beside();
        let target = self.bench.path("place/target").display().to_string();
        let done = self.run(&[&["restore", sid, "--target", &target], more].concat());
        assert_eq!(before, self.beside(), "something outside the target was changed: {:#}", done.1);
        done
    }

    /// Everything beside the target: names, types, modes, owners, times of change and content.
    fn beside(&self) -> BTreeMap<PathBuf, String> {
        let (outside, place) = (self.outside(), self.bench.path("place"));
        let mut all = vec![outside.clone(), place.join("canary")];
        all.extend(files(&outside));
        let parents = std::fs::read_dir(self.bench.dir.path())
            .expect("directory")
            .chain(std::fs::read_dir(place).expect("directory"));
        all.extend(parents.map(|e| e.expect("entry").path()));
        let state = |path: &PathBuf| {
            let meta = std::fs::symlink_metadata(path).expect("it is there");
            let content = if meta.is_file() { std::fs::read(path).expect("readable") } else { Vec::new() };
            // The target itself takes the root's metadata.
            let inner = if path.ends_with("target") || path.ends_with("place") {
                String::new()
            } else {
                format!("{:o} {} {} {}", meta.mode(), meta.uid(), meta.gid(), meta.ctime_nsec())
            };
            format!("{:?} {inner} {content:?}", meta.file_type())
        };
        all.iter()
            .filter(|path| !path.to_string_lossy().contains("region-") && !path.ends_with("state"))
            .map(|path| (path.clone(), state(path)))
            .collect()
    }
}
