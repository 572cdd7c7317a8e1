//! The model that a file of a snapshot belongs to: one in several files is one, and what lies beside a model is its own.

use super::stored::{LIST_SUFFIX, beside, file_at, last, look, names_with};
use crate::error::Result;
use crate::format::snapshot::Manifest;
use crate::format::tree::EntryType;
use crate::ops::browse;
use crate::repo::reader::Reader;
use std::collections::{BTreeSet, HashMap};

/// Ends of the names of files beside a model, behind that of the model.
const BESIDE_SUFFIXES: [&[u8]; 2] = [b".data", b"_data"];
/// Folders whose lists are kept, and lists of one folder that are looked at: either may have megabytes of names.
const FOLDERS_KEPT: usize = 16;
const LISTS_MAX: usize = 16;

/// A list of shards, and the files that it names.
type List = (Vec<u8>, BTreeSet<String>);

/// The models of a snapshot that have several files.
pub(super) struct Owners<'o> {
    reader: &'o Reader,
    manifest: &'o Manifest,
    /// Lists of shards by folder.
    lists: HashMap<Vec<u8>, Vec<List>>,
}

impl<'o> Owners<'o> {
    /// Those of this snapshot.
    pub(super) fn new(reader: &'o Reader, manifest: &'o Manifest) -> Owners<'o> {
        Owners { reader, manifest, lists: HashMap::new() }
    }

    /// The model beside a file that has tensors of it and nothing else: `model.onnx` of `model.onnx.data`.
    pub(super) fn owner_of(&self, path: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(owner) = BESIDE_SUFFIXES.iter().find_map(|suffix| path.strip_suffix(*suffix)) else { return Ok(None) };
        Ok(file_at(self.reader, self.manifest, owner)?.map(|_| owner.to_vec()))
    }

    /// The list of shards beside a file that names it.
    pub(super) fn list_of(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>> {
        let folder = beside(path, b"");
        if !self.lists.contains_key(&folder) {
            let found = self.lists_in(&folder)?;
            if self.lists.len() >= FOLDERS_KEPT {
                self.lists.clear();
            }
            self.lists.insert(folder.clone(), found);
        }
        let name = String::from_utf8_lossy(last(path));
        let mut lists = self.lists.get(&folder).into_iter().flatten();
        Ok(lists.find(|(_, files)| files.contains(&*name)).map(|(list, _)| list.clone()))
    }

    fn lists_in(&self, folder: &[u8]) -> Result<Vec<List>> {
        let dir = browse::find(self.reader, self.manifest, folder)?;
        let mut lists = Vec::new();
        if dir.kind != EntryType::Dir {
            return Ok(lists);
        }
        for name in names_with(self.reader, &dir, LIST_SUFFIX)?.into_iter().take(LISTS_MAX) {
            let path = [folder, &name].concat();
            let Some(entry) = file_at(self.reader, self.manifest, &path)? else { continue };
            if let Some(shards) = look(self.reader, &entry)?.shards {
                lists.push((path, shards.tensors.into_iter().map(|(_, file)| file).collect()));
            }
        }
        Ok(lists)
    }
}
