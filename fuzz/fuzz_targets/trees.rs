//! Pages of directories and of chunk lists. Both ways of reading a page take the same and say the same.
#![no_main]

use holdfast::base::ChunkId;
use holdfast::format::cbor;
use holdfast::format::leaf::Leaf;
use holdfast::format::tree::{Entry, ListPage, Page, is_safe_name, items};
use libfuzzer_sys::fuzz_target;

fn scanned(bytes: &[u8]) -> Option<Vec<Entry>> {
    let leaf = Leaf::new(ChunkId([0; 32]), bytes.to_vec()).ok()?.ok()?;
    let (mut scan, mut all) = (leaf.scan().ok()?, Vec::new());
    while let Some(raw) = leaf.next(&mut scan).ok()? {
        let entry = leaf.entry(&raw).ok()?;
        assert!(entry.name[..] == *leaf.part(&raw.name) && entry.kind == raw.kind);
        all.push(entry);
    }
    Some(all)
}

fuzz_target!(|data: &[u8]| {
    let page = Page::decode(data);
    if let Ok(page) = &page {
        assert!(cbor::encode(page) == data, "another writing of the same was taken");
    }
    if let Some(all) = scanned(data) {
        let Ok(page) = &page else { panic!("one reader takes what the other refuses") };
        assert!(page.entries.as_ref().is_some_and(|entries| *entries == all));
    }
    for entry in page.iter().flat_map(|page| page.entries.iter().flatten()) {
        assert!(!entry.name_is_safe() || is_safe_name(&entry.name));
        let _ = (entry.size(), entry.link_group());
    }
    let _ = ListPage::decode(data);
    if let Ok(all) = items(data) {
        assert!(all.count() * 36 <= data.len());
    }
});
