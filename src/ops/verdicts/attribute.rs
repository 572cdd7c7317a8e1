//! The verdict that stands with a file's entry in the tree: an extended attribute that the source does not have.

use crate::format::tree::{Entry, Xattr};
use crate::model::recorded::{ATTRIBUTE, Recorded};

/// Whether an attribute is a verdict.
pub fn is_one(attribute: &Xattr) -> bool {
    attribute.name[..] == *ATTRIBUTE
}

/// Gives the entry of a file its verdict, in place of any other.
pub fn put(entry: &mut Entry, recorded: &Recorded) {
    place(entry, Xattr { name: ATTRIBUTE.to_vec().into(), value: recorded.value().into() });
}

/// Gives an entry the verdict that stands among the attributes of another one with the same content.
pub fn keep(entry: &mut Entry, other: Option<&[Xattr]>) {
    if let Some(attribute) = other.into_iter().flatten().find(|attribute| is_one(attribute)) {
        place(entry, attribute.clone());
    }
}

fn place(entry: &mut Entry, attribute: Xattr) {
    let all = entry.xattrs.get_or_insert_default();
    all.retain(|other| !is_one(other));
    let at = all.partition_point(|other| other.name < attribute.name);
    all.insert(at, attribute);
}

/// The verdict of an entry whose attributes stand in it; `None` without one that is understood.
pub fn of(entry: &Entry) -> Option<Recorded> {
    let found = entry.xattrs.iter().flatten().find(|attribute| is_one(attribute))?;
    Recorded::read(&found.value)
}

/// The same, and takes it off: the source did not have it.
pub fn take(entry: &mut Entry) -> Option<Recorded> {
    let found = of(entry);
    if let Some(all) = &mut entry.xattrs {
        all.retain(|attribute| !is_one(attribute));
        entry.xattrs = entry.xattrs.take().filter(|all| !all.is_empty());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tree::EntryType;

    #[test]
    fn a_verdict_stands_in_order_once_and_comes_off_again() {
        let xattr = |name: &[u8]| Xattr { name: name.to_vec().into(), value: b"v".to_vec().into() };
        let mut entry = Entry::bare(b"f", EntryType::File);
        entry.xattrs = Some(vec![xattr(b"user.a"), xattr(b"user.z")]);
        let plain = entry.clone();
        put(&mut entry, &Recorded::of(b"old"));
        put(&mut entry, &Recorded::of(b"new"));
        let names: Vec<&[u8]> = entry.xattrs.iter().flatten().map(|x| &x.name[..]).collect();
        assert_eq!(names, [&b"user.a"[..], ATTRIBUTE, b"user.z"]);
        let mut other = Entry::bare(b"f", EntryType::File);
        keep(&mut other, entry.xattrs.as_deref());
        assert_eq!(of(&other), Some(Recorded::of(b"new")));
        assert_eq!((take(&mut other), other.xattrs), (Some(Recorded::of(b"new")), None));
        assert_eq!((take(&mut entry).is_some(), entry), (true, plain));
    }
}
