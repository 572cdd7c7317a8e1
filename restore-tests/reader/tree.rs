//! A tree in which every form that the format knows occurs.

use crate::harness::{noise, small_tree};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, makedev};
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::Path;

/// Everything but wide directories.
pub fn build(root: &Path) {
    small_tree(root);
    contents(root);
    sparse(root);
    names(root);
    links_and_nodes(root);
    attributes(root);
    owners_and_modes(root);
    times(root);
}

/// Files that the program stores in each of its codecs.
fn contents(root: &Path) {
    let floats = root.join("floats");
    fs::create_dir(&floats).unwrap();
    let weights = weights(1, 300_000);
    let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_le_bytes()).collect();
    fs::write(floats.join("f32"), &bytes).unwrap();
    fs::write(floats.join("f32-odd"), [b"xyz", &bytes[..200_001]].concat()).unwrap();
    let halves: Vec<u8> = weights.iter().flat_map(|w| half(*w).to_le_bytes()).collect();
    fs::write(floats.join("f16"), halves).unwrap();
    let brains: Vec<u8> = weights.iter().flat_map(|w| ((w.to_bits() >> 16) as u16).to_le_bytes()).collect();
    fs::write(floats.join("bf16"), &brains).unwrap();
    fs::write(floats.join("bf16-odd"), [b"x", &brains[..150_000]].concat()).unwrap();
    fs::write(root.join("text-long"), "a line like all others\n".repeat(100_000)).unwrap();
    for len in [1usize, 511, 512, 513, 4096, 256 << 10, (256 << 10) + 1] {
        fs::write(root.join(format!("size-{len}")), noise(len as u64, len)).unwrap();
    }
}

/// About normal around zero, as weights are: sums of four words of noise.
fn weights(seed: u64, count: usize) -> Vec<f32> {
    let word = |four: &[u8]| f64::from(u32::from_le_bytes(four.try_into().unwrap())) / f64::from(u32::MAX);
    let sum = |words: &[u8]| words.chunks_exact(4).map(word).sum::<f64>() - 2.0;
    noise(seed, count * 16).chunks_exact(16).map(|words| (sum(words) * 0.1) as f32).collect()
}

/// The half precision number below; what is too small becomes zero.
fn half(x: f32) -> u16 {
    let bits = x.to_bits();
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
    let sign = (bits >> 16 & 0x8000) as u16;
    if exponent <= 0 { sign } else { sign | (exponent as u16) << 10 | (bits >> 13 & 0x3ff) as u16 }
}

/// Holes: one only, a few, and so many that the chunk list has pages on two levels.
fn sparse(root: &Path) {
    let file = |name: &str, size: u64| {
        let file = File::create(root.join(name)).unwrap();
        file.set_len(size).unwrap();
        file
    };
    file("hole-only", 5_000_000);
    file("hole-in-front", 9_000_000).write_all_at(&noise(7, 70_000), 8_388_608).unwrap();
    for (name, extents) in [("holes-few", 40), ("holes-many", 300)] {
        let file = file(name, extents * 131_072);
        for n in 0..extents {
            file.write_all_at(&noise(n, 8192), n * 131_072).unwrap();
        }
    }
}

fn names(root: &Path) {
    let dir = root.join("names");
    fs::create_dir(&dir).unwrap();
    let odd: [&[u8]; 9] =
        [b"\xff\xfe\x80", b" ", b"\n", b"-rf", b"\"quoted\"", b"a\tb\\c", "b\u{e4}r".as_bytes(), b"...", b"*"];
    for name in odd {
        fs::write(dir.join(OsStr::from_bytes(name)), name).unwrap();
    }
    fs::write(dir.join(OsString::from_vec(vec![0xe9; 255])), b"long").unwrap();
    fs::create_dir_all(dir.join("d".repeat(255)).join("e".repeat(200)).join("empty")).unwrap();
}

fn links_and_nodes(root: &Path) {
    fs::create_dir_all(root.join("links/far")).unwrap();
    fs::hard_link(root.join("cut"), root.join("links/cut-again")).unwrap();
    fs::hard_link(root.join("cut"), root.join("links/far/cut-once-more")).unwrap();
    fs::hard_link(root.join("tiny"), root.join("links/tiny-again")).unwrap();
    symlink(OsStr::from_bytes(b"to nowhere \xff"), root.join("links/dangling")).unwrap();
    symlink("x".repeat(4000), root.join("links/long")).unwrap();
    fs::hard_link(root.join("links/dangling"), root.join("links/dangling-again")).unwrap();
    let node = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, root.join(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
    };
    node("fifo", FileType::Fifo, 0);
    node("socket", FileType::Socket, 0);
    node("character", FileType::CharacterDevice, makedev(1, 3));
    node("block", FileType::BlockDevice, makedev(259, 70_000));
    fs::hard_link(root.join("fifo"), root.join("links/fifo-again")).unwrap();
}

/// Sets an extended attribute, of a link itself too.
pub fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    rustix::fs::lsetxattr(&path, name, value, XattrFlags::empty()).unwrap();
}

fn attributes(root: &Path) {
    set_xattr(&root.join("tiny"), "user.one", b"1");
    set_xattr(&root.join("whole"), "user.empty", b"");
    set_xattr(&root.join("docs"), "user.of-a-directory", &noise(3, 900));
    set_xattr(&root.join("link"), "trusted.of-a-link", b"\0\xff");
    set_xattr(&root.join("fifo"), "trusted.of-a-pipe", b"p");
    for n in 0..20 {
        set_xattr(&root.join("cut"), &format!("user.number-{n}"), &noise(n, 20));
    }
    let acl = [2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 232, 3, 0, 0]
        .into_iter()
        .chain([4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255]);
    set_xattr(&root.join("docs/note-1"), "system.posix_acl_access", &acl.collect::<Vec<u8>>());
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set_xattr(&root.join("docs/note-2"), "security.capability", &capability);
}

fn owners_and_modes(root: &Path) {
    lchown(root.join("docs/note-3"), Some(12), Some(34)).unwrap();
    lchown(root.join("link"), Some(4_000_000_000), Some(7)).unwrap();
    lchown(root.join("socket"), Some(5), Some(6)).unwrap();
    lchown(root.join("docs/deep"), Some(1), Some(2)).unwrap();
    for (name, mode) in
        [("docs/note-4", 0o0), ("docs/note-5", 0o4755), ("docs/note-6", 0o2711), ("docs", 0o3777), ("links/far", 0o500)]
    {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// Last, from the deepest to the root, so that nothing changes them again.
fn times(root: &Path) {
    let all = [
        ("docs/note-7", -2_000_000_000, 1),
        ("docs/note-8", -1, 999_999_999),
        ("docs/note-9", 0, 0),
        ("docs/note-10", 4_102_444_800, 123_456_789),
        ("link", -77, 5),
        ("fifo", 1, 2),
        ("docs/deep", 9_000_000_000, 7),
        ("docs", 1_000_000_000, 1),
        ("", 1_234_567_890, 987_654_321),
    ];
    for (name, tv_sec, tv_nsec) in all {
        let path = if name.is_empty() { root.to_path_buf() } else { root.join(name) };
        let time = Timespec { tv_sec, tv_nsec };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}
