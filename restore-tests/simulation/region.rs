//! A region in memory: what was acknowledged there, and what it shows of that.

use bytes::Bytes;
use holdfast::store::StoreErrorKind;
use holdfast::store::testing::{Answer, Line};
use std::collections::{BTreeMap, BTreeSet};

/// An object.
#[derive(Debug, Clone)]
pub struct Object {
    /// What was acknowledged.
    pub told: Bytes,
    /// What is there; `None`: it was lost.
    pub shown: Option<Bytes>,
    pub modified: i64,
}

/// What happened to an object before it was changed, to go back to.
#[derive(Debug, Clone)]
struct Before {
    step: u64,
    path: String,
    object: Option<Object>,
}

#[derive(Debug, Default)]
pub struct Region {
    /// Whether there is such a place at all.
    pub exists: bool,
    /// Nobody answers before this step.
    pub down_until: u64,
    /// Nothing can be stored before this step.
    pub full_until: u64,
    pub objects: BTreeMap<String, Object>,
    log: Vec<Before>,
}

impl Region {
    fn note(&mut self, step: u64, path: &str) {
        self.log.push(Before { step, path: path.to_owned(), object: self.objects.get(path).cloned() });
    }

    /// Whether it created the object.
    pub fn create(&mut self, (step, now): (u64, i64), path: &str, bytes: &Bytes) -> bool {
        if self.objects.get(path).is_some_and(|object| object.shown.is_some()) {
            return false;
        }
        self.note(step, path);
        let object = Object { told: bytes.clone(), shown: Some(bytes.clone()), modified: now };
        self.objects.insert(path.to_owned(), object);
        true
    }

    pub fn replace(&mut self, (step, now): (u64, i64), path: &str, bytes: &Bytes) {
        self.note(step, path);
        let object = Object { told: bytes.clone(), shown: Some(bytes.clone()), modified: now };
        self.objects.insert(path.to_owned(), object);
    }

    /// Everything is gone, and an empty place is there instead, or none.
    pub fn empty(&mut self, exists: bool) {
        self.objects.clear();
        self.log.clear();
        self.exists = exists;
    }

    /// Whether there was one.
    pub fn delete(&mut self, step: u64, path: &str) -> bool {
        self.note(step, path);
        self.objects.remove(path).is_some()
    }

    /// What is there now, whatever was acknowledged.
    pub fn spoil(&mut self, step: u64, path: &str, shown: Option<Bytes>) {
        self.note(step, path);
        if let Some(object) = self.objects.get_mut(path) {
            object.shown = shown;
        }
    }

    pub fn get(&self, path: &str) -> Answer<Bytes> {
        self.objects.get(path).and_then(|object| object.shown.clone()).ok_or(StoreErrorKind::NotFound)
    }

    pub fn list(&self, folder: &str) -> Vec<Line> {
        let below = format!("{folder}/");
        let shown = self.objects.range(below.clone()..).take_while(|(path, _)| path.starts_with(&below));
        let line = |(path, object): (&String, &Object)| {
            let size = object.shown.as_ref()?.len() as u64;
            Some(Line { path: path.clone(), size, modified: object.modified })
        };
        shown.filter_map(line).collect()
    }

    /// It shows what it had at an earlier step, and knows nothing of what came after, but for what is to be kept.
    pub fn roll_back(&mut self, to: u64, kept: &BTreeSet<String>) {
        while self.log.last().is_some_and(|before| before.step > to) {
            let Some(Before { path, object, .. }) = self.log.pop() else { return };
            if kept.contains(&path) {
                continue;
            }
            // What was acknowledged since is lost, and what was removed is back.
            match (object, self.objects.get_mut(&path)) {
                (Some(before), _) => drop(self.objects.insert(path, before)),
                (None, Some(now)) => now.shown = None,
                (None, None) => {}
            }
        }
    }
}
