//! Files written here are read here; damaged ones are refused, and never more than that.

use super::*;
use crate::error::Result;
use std::collections::BTreeMap;
use std::fs::File;

type Buckets = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

fn write(buckets: &Buckets) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut builder = Builder::new(file.reopen().unwrap(), 4096).unwrap();
    for (name, pairs) in buckets {
        builder.bucket(name).unwrap();
        pairs.iter().for_each(|(key, value)| builder.put(key, value).unwrap());
    }
    builder.finish().unwrap();
    std::fs::read(file.path()).unwrap()
}

fn read(bytes: &[u8]) -> Result<Buckets> {
    let bolt = Bolt::open(bytes.to_vec())?;
    let mut used = bolt.used()?;
    let mut found = Buckets::new();
    for (name, tree) in bolt.buckets()? {
        let mut pairs = BTreeMap::new();
        let mut cursor = bolt.marking(&tree, &mut used);
        while let Some(element) = cursor.next()? {
            pairs.insert(element.key.to_vec(), element.value.to_vec());
        }
        found.insert(name, pairs);
    }
    Ok(found)
}

fn many(count: u32) -> Buckets {
    let pairs = (0..count).map(|n| (n.to_be_bytes().to_vec(), vec![n as u8; (n % 97) as usize])).collect();
    let long = (0u8..9).map(|n| (vec![b'k'; usize::from(n) + 1], vec![n; usize::from(n) * 3000])).collect();
    Buckets::from([(b"empty".to_vec(), BTreeMap::new()), (b"key".to_vec(), pairs), (b"long".to_vec(), long)])
}

#[test]
fn what_was_written_is_read_and_found_by_key() {
    for count in [0, 1, 2, 50, 51, 5_000, 60_000] {
        let (wanted, bytes) = (many(count), write(&many(count)));
        assert_eq!(bytes.len() % 4096, 0);
        assert!(read(&bytes).unwrap() == wanted, "{count} keys");
        let bolt = Bolt::open(bytes).unwrap();
        let tree = bolt.bucket(b"key").unwrap().unwrap();
        for n in (0..count).step_by(61) {
            assert_eq!(
                bolt.get(&tree, &n.to_be_bytes()).unwrap().as_ref(),
                Some(&wanted[&b"key"[..]][&n.to_be_bytes()[..]])
            );
        }
        assert_eq!(bolt.get(&tree, &count.to_be_bytes()).unwrap(), None);
        assert_eq!(bolt.get(&tree, b"").unwrap(), None);
    }
}

#[test]
fn every_page_of_a_written_file_is_in_use() {
    let bytes = write(&many(5_000));
    let bolt = Bolt::open(bytes).unwrap();
    let mut used = bolt.used().unwrap();
    for (_, tree) in bolt.buckets().unwrap() {
        let mut cursor = bolt.marking(&tree, &mut used);
        while cursor.next().unwrap().is_some() {}
    }
    assert_eq!(used.count(), bolt.page_count());
    assert!(used.has(0) && !used.has(bolt.page_count()));
}

#[test]
fn keys_out_of_order_are_not_written() {
    let file = || tempfile::tempfile().unwrap();
    let mut builder = Builder::new(file(), 4096).unwrap();
    assert!(builder.put(b"a", b"").is_err());
    builder.bucket(b"b").unwrap();
    builder.put(b"b", b"").unwrap();
    assert!(builder.put(b"b", b"").is_err() && builder.put(b"a", b"").is_err());
    assert!(builder.bucket(b"a").is_err());
}

#[test]
fn the_other_meta_page_stands_in_for_a_damaged_one() {
    let wanted = many(100);
    for page in [0, 1] {
        let mut bytes = write(&wanted);
        bytes[page * 4096 + 40] ^= 1;
        assert!(read(&bytes).unwrap() == wanted);
        bytes[(1 - page) * 4096 + 40] ^= 1;
        assert!(read(&bytes).is_err());
    }
}

#[test]
fn a_file_cut_short_is_refused() {
    let bytes = write(&many(300));
    for len in (0..bytes.len()).step_by(509) {
        assert!(Bolt::open(bytes[..len].to_vec()).is_err(), "{len}");
    }
}

/// Puts a valid checksum on both meta pages, so that what they say is believed.
fn seal(bytes: &mut [u8]) {
    for page in [0, 4096] {
        let sum = checksum(&bytes[page + 16..page + 72]);
        bytes[page + 72..page + 80].copy_from_slice(&sum.to_le_bytes());
    }
}

#[test]
fn trees_that_run_in_circles_are_refused() {
    let good = write(&many(60_000));
    let bolt = Bolt::open(good.clone()).unwrap();
    let Some(Tree::Root(root)) = bolt.bucket(b"key").unwrap() else { panic!("a large bucket has a page") };
    // The first child of the root is the root itself; then the second child is the first.
    let element = root as usize * 4096 + PAGE_HEAD + 8;
    for (at, page) in [(element, root), (element + ELEMENT, 3)] {
        let mut bytes = good.clone();
        let first: [u8; 8] = good[element..element + 8].try_into().unwrap();
        let page = if page == 3 { u64::from_le_bytes(first) } else { page };
        bytes[at..at + 8].copy_from_slice(&page.to_le_bytes());
        let bolt = Bolt::open(bytes).unwrap();
        let tree = Tree::Root(root);
        let mut cursor = bolt.cursor(&tree);
        assert!(std::iter::from_fn(|| cursor.next().map(|e| e.map(|_| ())).transpose()).any(|e| e.is_err()));
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config {
        cases: 256, failure_persistence: None, ..proptest::test_runner::Config::default()
    })]

    #[test]
    fn damage_anywhere_is_no_more_than_an_error(
        changes in proptest::collection::vec((0..1_000_000usize, 0..=255u8), 1..8), sealed: bool,
    ) {
        let wanted = many(700);
        let mut bytes = write(&wanted);
        for (at, byte) in changes {
            // Heads and elements stand at the front of a page.
            let at = (at / 200 * 4096 + at % 200) % bytes.len();
            bytes[at] = byte;
        }
        if sealed {
            seal(&mut bytes);
        }
        // Whatever comes of it, it comes.
        let _ = read(&bytes);
        if let Ok(bolt) = Bolt::open(bytes) && let Ok(Some(tree)) = bolt.bucket(b"key") {
            for n in 0..20u32 {
                let _ = bolt.get(&tree, &(n * 35).to_be_bytes());
            }
        }
    }

    #[test]
    fn any_pairs_come_back(
        pairs in proptest::collection::btree_map(proptest::collection::vec(0..=255u8, 1..40), proptest::collection::vec(0..=255u8, 0..5000), 0..200),
    ) {
        let wanted = Buckets::from([(b"b".to_vec(), pairs)]);
        assert!(read(&write(&wanted)).unwrap() == wanted);
    }
}

#[test]
fn a_file_is_read_as_bytes_are() {
    let wanted = many(50);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), write(&wanted)).unwrap();
    let bolt = Bolt::open(File::open(file.path()).unwrap()).unwrap();
    let tree = bolt.bucket(b"key").unwrap().unwrap();
    assert_eq!(bolt.get(&tree, &7u32.to_be_bytes()).unwrap(), Some(vec![7; 7]));
}

/// How few children a branch has, below this page.
fn fewest(bolt: &Bolt<Vec<u8>>, id: u64) -> usize {
    let page = bolt.page(id).unwrap().0;
    if page.is_leaf() {
        return usize::MAX;
    }
    let below = (0..page.count()).map(|at| fewest(bolt, page.child(at).unwrap()));
    below.min().unwrap_or(0).min(page.count())
}

#[test]
fn a_branch_has_two_children_at_least() {
    // Leaves of one pair each, and so few to a branch that every number of them comes; the last with keys of many sizes.
    for (key_bytes, counts) in [(1900, 1..60), (300, 1..90), (8, 120..400)] {
        for count in counts {
            let key = |n: u32| [&n.to_be_bytes()[..], &vec![b'k'; key_bytes]].concat();
            let pairs = (0..count).map(|n| (key(n), vec![0; 3000])).collect();
            let bytes = write(&Buckets::from([(b"key".to_vec(), pairs)]));
            let bolt = Bolt::open(bytes).unwrap();
            let Tree::Root(root) = bolt.bucket(b"key").unwrap().unwrap() else { panic!("no tree") };
            assert!(fewest(&bolt, root) >= 2, "{count} leaves, keys of {key_bytes}");
            assert_eq!(
                bolt.get(&bolt.bucket(b"key").unwrap().unwrap(), &key(count - 1)).unwrap().map(|v| v.len()),
                Some(3000)
            );
        }
    }
}

#[test]
fn what_is_held_of_a_tree_is_bounded() {
    let mut bytes = write(&many(1));
    let first = bytes.len() as u64 / 4096;
    // Two branches, one below the other, each of which may be as long by itself.
    let spans = [PAGE_BYTES_MAX / 4096, (16 << 20) / 4096];
    let ids = [first, first + spans[0]];
    bytes.resize((first + spans.iter().sum::<u64>()) as usize * 4096, 0);
    for (id, span) in ids.into_iter().zip(spans) {
        let head = page::Head { id, flags: BRANCH, count: 1, overflow: span as u32 - 1 };
        let at = id as usize * 4096;
        bytes[at..at + PAGE_HEAD].copy_from_slice(&head.encode());
        let element = [&(ELEMENT as u32).to_le_bytes()[..], &1u32.to_le_bytes(), &ids[1].to_le_bytes()].concat();
        bytes[at + PAGE_HEAD..at + PAGE_HEAD + ELEMENT].copy_from_slice(&element);
    }
    let pages = bytes.len() as u64 / 4096;
    for meta in [0, 4096] {
        bytes[meta + PAGE_HEAD + 40..meta + PAGE_HEAD + 48].copy_from_slice(&pages.to_le_bytes());
    }
    seal(&mut bytes);
    let bolt = Bolt::open(bytes).unwrap();
    let mut cursor = bolt.cursor(&Tree::Root(first));
    let error = cursor.next().unwrap_err();
    assert!(error.what().contains("on the way to a leaf are too large"), "{error}");
}

#[test]
fn more_buckets_than_etcd_has_are_refused() {
    let named = |count: usize, len: usize| {
        let name = |n: usize| {
            let number = n.to_string();
            ["0".repeat(len - number.len()), number].concat().into_bytes()
        };
        let bucket = |n: usize| (name(n), BTreeMap::new());
        Bolt::open(write(&(0..count).map(bucket).collect())).unwrap().buckets().map(|found| found.len())
    };
    assert_eq!(named(BUCKETS_MAX, 8).unwrap(), BUCKETS_MAX);
    assert!(named(BUCKETS_MAX + 1, 8).unwrap_err().what().contains("too many buckets"));
    assert_eq!(named(2, BUCKET_BYTES_MAX).unwrap(), 2);
    assert!(named(2, BUCKET_BYTES_MAX + 1).unwrap_err().what().contains("too large for its place"));
}
