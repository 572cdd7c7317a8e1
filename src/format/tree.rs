//! Directory entries, tree pages and list pages (docs/format.md, section 6).
//!
//! Names are any bytes but `/` and NUL; whoever writes to a file system checks them with
//! [`Entry::name_is_safe`].

use super::{FormatError, cbor};
use crate::base::ChunkId;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

/// Longest page, in bytes.
pub const PAGE_BYTES_MAX: usize = 4 << 20;
/// Deepest B-tree of pages.
pub const PAGE_DEPTH_MAX: u8 = 8;
/// Deepest directory.
pub const DIR_DEPTH_MAX: usize = 4096;
/// Bytes of one item of a chunk list.
pub const ITEM_BYTES: usize = 40;
/// Longest chunk list that stands in its entry.
pub const ITEMS_INLINE_MAX: usize = 64;
/// Largest file whose content stands in its entry, in bytes.
pub const INLINE_BYTES_MAX: usize = 512;
/// Largest sum of attribute names and values that stands in its entry, in bytes.
pub const XATTR_INLINE_BYTES_MAX: usize = 8 << 10;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum EntryType {
    /// Regular file.
    #[n(0)]
    File,
    /// Directory.
    #[n(1)]
    Dir,
    /// Symbolic link.
    #[n(2)]
    Symlink,
    /// Named pipe.
    #[n(3)]
    Fifo,
    /// Unix socket.
    #[n(4)]
    Socket,
    /// Character device.
    #[n(5)]
    CharDevice,
    /// Block device.
    #[n(6)]
    BlockDevice,
}

/// A chunk list kept in pages of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ListRef {
    /// Page.
    #[n(0)]
    pub page: ChunkId,
    /// Its level; 0 holds chunks.
    #[n(1)]
    pub level: u8,
}

/// One extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub struct Xattr {
    /// Name with its namespace.
    #[n(0)]
    pub name: ByteVec,
    /// Value.
    #[n(1)]
    pub value: ByteVec,
}

/// One entry of a directory. Times are seconds since 1970 and nanoseconds below a second.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Entry {
    /// Name; empty for the root.
    #[n(0)]
    pub name: ByteVec,
    /// Type.
    #[n(1)]
    pub kind: EntryType,
    /// Permission bits, 12 of them.
    #[n(2)]
    pub mode: u32,
    /// Owner.
    #[n(3)]
    pub uid: u32,
    /// Group.
    #[n(4)]
    pub gid: u32,
    /// Modification time, seconds.
    #[n(5)]
    pub mtime_s: i64,
    /// Modification time, nanoseconds.
    #[n(6)]
    pub mtime_ns: u32,
    /// Change time, seconds.
    #[n(7)]
    pub ctime_s: i64,
    /// Change time, nanoseconds.
    #[n(8)]
    pub ctime_ns: u32,
    /// Inode number.
    #[n(9)]
    pub inode: u64,
    /// Link count, if a non-directory has more than one.
    #[n(10)]
    pub nlink: Option<u64>,
    /// Size of a file, in bytes.
    #[n(11)]
    pub size: Option<u64>,
    /// Content of a tiny file.
    #[n(12)]
    pub inline: Option<ByteVec>,
    /// Chunk list of a small file: items of [`ITEM_BYTES`].
    #[n(13)]
    pub chunks: Option<ByteVec>,
    /// Chunk list of a big file.
    #[n(14)]
    pub list: Option<ListRef>,
    /// Root page of a directory that is not empty.
    #[n(15)]
    pub tree: Option<ChunkId>,
    /// Target of a symbolic link.
    #[n(16)]
    pub target: Option<ByteVec>,
    /// Device number, major.
    #[n(17)]
    pub rdev_major: Option<u32>,
    /// Device number, minor.
    #[n(18)]
    pub rdev_minor: Option<u32>,
    /// Extended attributes, sorted by name.
    #[n(19)]
    pub xattrs: Option<Vec<Xattr>>,
    /// Device of the file system, beside a link count.
    #[n(20)]
    pub dev: Option<u64>,
    /// Bit 0: the file changed while it was read.
    #[n(21)]
    pub flags: Option<u32>,
    /// Extended attributes in a chunk of their own.
    #[n(22)]
    pub xattrs_ref: Option<ChunkId>,
}

/// Flag: the file changed while it was read.
pub const FLAG_CHANGED: u32 = 1;

/// As [`Entry::name_is_safe`].
pub fn is_safe_name(name: &[u8]) -> bool {
    let dots = name == b"." || name == b"..";
    !name.is_empty() && name.len() <= 255 && !dots && !name.iter().any(|b| matches!(b, b'/' | 0))
}

impl Entry {
    /// An entry with nothing but a name and a type.
    pub fn bare(name: &[u8], kind: EntryType) -> Self {
        Entry {
            name: name.to_vec().into(),
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime_s: 0,
            mtime_ns: 0,
            ctime_s: 0,
            ctime_ns: 0,
            inode: 0,
            nlink: None,
            size: None,
            inline: None,
            chunks: None,
            list: None,
            tree: None,
            target: None,
            rdev_major: None,
            rdev_minor: None,
            xattrs: None,
            dev: None,
            flags: None,
            xattrs_ref: None,
        }
    }

    /// Whether the name can be created inside a directory: not empty, not `.` or `..`,
    /// no `/`, no NUL, at most 255 bytes.
    pub fn name_is_safe(&self) -> bool {
        is_safe_name(&self.name)
    }

    /// Whether content stands in it, or is referred to.
    pub fn has_content(&self) -> bool {
        self.inline.is_some() || self.chunks.is_some() || self.list.is_some()
    }

    /// Size of a file's content, in bytes; 0 for other types.
    pub fn size(&self) -> u64 {
        self.size.unwrap_or(0)
    }

    /// The group of hard links that it belongs to: device and inode.
    pub fn link_group(&self) -> Option<(u64, u64)> {
        match (self.nlink, self.dev) {
            (Some(n), Some(dev)) if n > 1 => Some((dev, self.inode)),
            _ => None,
        }
    }

    /// Copies what describes the content (not the metadata) from `other`.
    pub fn take_content(&mut self, other: &Entry) {
        self.inline = other.inline.clone();
        self.chunks = other.chunks.clone();
        self.list = other.list;
    }
}

/// One piece of a file: a chunk, or a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// The chunk; [`ChunkId::HOLE`] for a hole.
    pub id: ChunkId,
    /// Length in bytes.
    pub len: u64,
}

/// Appends an item to an encoded list.
pub fn push_item(list: &mut Vec<u8>, item: Item) {
    list.extend_from_slice(item.id.bytes());
    list.extend_from_slice(&item.len.to_le_bytes());
}

/// Decodes a chunk list.
///
/// # Errors
/// The length is no multiple of [`ITEM_BYTES`].
pub fn items(list: &[u8]) -> Result<impl Iterator<Item = Item> + '_, FormatError> {
    if !list.len().is_multiple_of(ITEM_BYTES) {
        return Err(FormatError::Malformed("chunk list", "length"));
    }
    Ok(list.chunks_exact(ITEM_BYTES).map(|c| {
        let (mut id, mut len) = ([0; 32], [0; 8]);
        id.copy_from_slice(&c[..32]);
        len.copy_from_slice(&c[32..]);
        Item { id: ChunkId(id), len: u64::from_le_bytes(len) }
    }))
}

/// One page of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Page {
    /// 0: entries; above: children of the level below.
    #[n(0)]
    pub level: u8,
    /// Sorted entries.
    #[n(1)]
    pub entries: Option<Vec<Entry>>,
    /// Children.
    #[n(2)]
    pub children: Option<Vec<Child>>,
}

/// One child of a page.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Child {
    /// Page.
    #[n(0)]
    pub page: ChunkId,
    /// Its first name.
    #[n(1)]
    pub first: ByteVec,
    /// Entries below.
    #[n(2)]
    pub entries: u64,
}

impl Page {
    /// The page of `count` sorted entries that are encoded already, one after the other: the same bytes as those of the
    /// whole page, without encoding anything twice.
    pub fn of_encoded(count: u64, entries: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(entries.len() + 16);
        let mut e = minicbor::Encoder::new(&mut out);
        // Writing into a Vec cannot fail.
        let done = e.map(2).and_then(|e| e.u8(0)?.u8(0)?.u8(1)?.array(count));
        debug_assert!(done.is_ok());
        out.extend_from_slice(entries);
        out
    }

    /// Decodes and checks order and level.
    ///
    /// # Errors
    /// Anything that a writer would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Page, FormatError> {
        if bytes.len() > PAGE_BYTES_MAX {
            return Err(FormatError::Limit("tree page"));
        }
        let page: Page = cbor::decode("tree page", bytes)?;
        let fits = match (&page.entries, &page.children) {
            (Some(e), None) => page.level == 0 && e.windows(2).all(|w| w[0].name < w[1].name),
            (None, Some(c)) => {
                page.level > 0 && page.level <= PAGE_DEPTH_MAX && c.windows(2).all(|w| w[0].first < w[1].first)
            }
            _ => false,
        };
        if fits { Ok(page) } else { Err(FormatError::Malformed("tree page", "order or level")) }
    }
}

/// One page of a long chunk list.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ListPage {
    /// 0: chunks; above: pages of the level below.
    #[n(0)]
    pub level: u8,
    /// Items of [`ITEM_BYTES`].
    #[n(1)]
    pub items: ByteVec,
}

impl ListPage {
    /// Decodes.
    ///
    /// # Errors
    /// Anything that a writer would not have written.
    pub fn decode(bytes: &[u8]) -> Result<ListPage, FormatError> {
        if bytes.len() > PAGE_BYTES_MAX {
            return Err(FormatError::Limit("list page"));
        }
        let page: ListPage = cbor::decode("list page", bytes)?;
        if page.level > PAGE_DEPTH_MAX {
            return Err(FormatError::Malformed("list page", "level"));
        }
        items(&page.items).map(drop)?;
        Ok(page)
    }
}
