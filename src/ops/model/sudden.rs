//! Whether a model is suddenly another one: compared with what stood at the same path in the snapshot before.
//!
//! What is compared is recorded already. A file of tensors is cut where they begin and end, so the ids of a tensor's chunks,
//! which are keyed hashes of its bytes, say whether it is what it was. Of either snapshot the headers and the lists of
//! chunks are read, and of the tensors themselves only small ones that share their chunks with others.

use super::alike::Alike;
use super::forms::{Form, Forms, Standing, forms};
use super::owners::Owners;
use super::stored::{LIST_SUFFIX, file_at, last};
use crate::base::{Cancel, units};
use crate::error::{Error, Kind, Result};
use crate::format::snapshot::Manifest;
use crate::format::tree::Entry;
use crate::ops::browse;
use crate::repo::reader::Reader;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Longest description of an architecture that is read, in bytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// How much of a value in one is shown, in characters.
const VALUE_CHARS_MAX: usize = 60;
/// How a model's architecture is called, beside its files.
const CONFIG: &[u8] = b"config.json";
/// Ends of names that files of models mostly have: what was one may have become something else.
const SUFFIXES: [&[u8]; 6] = [LIST_SUFFIX, b".safetensors", b".gguf", b".onnx", b".pt", b".pth"];
/// Arrays that are data as often as they are parts of models.
const DATA_SUFFIXES: [&[u8]; 2] = [b".npy", b".npz"];
/// What makes another model of the same weights: what stands there is not to change by itself.
const KEYS: [&str; 24] = [
    "architectures",
    "model_type",
    "auto_map",
    "hidden_size",
    "intermediate_size",
    "moe_intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "vocab_size",
    "num_experts",
    "num_local_experts",
    "num_experts_per_tok",
    "n_embd",
    "n_layer",
    "n_head",
    "d_model",
    "num_layers",
    "rope_scaling",
    "quantization_config",
    "text_config",
    "vision_config",
];

/// Whether a file that was read is to be compared: it holds tensors, or is called like one of a model.
pub fn is_of_a_model(name: &[u8], has_tensors: bool) -> bool {
    let ends = |suffixes: &[&[u8]]| suffixes.iter().any(|suffix| name.ends_with(suffix));
    name == CONFIG || ends(&SUFFIXES) || has_tensors && !ends(&DATA_SUFFIXES)
}

/// What came of all comparisons of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compared {
    /// Models, and descriptions of architectures, that are not what they were.
    pub models: u64,
    /// Of them, those that are suddenly other ones.
    pub sudden: Vec<Sudden>,
    /// Tensors of all models that were compared, by what was found.
    pub counts: Counts,
    /// What could not be compared, and why.
    pub unknown: Vec<String>,
    /// Files that were too many to be compared.
    pub left: u64,
}

/// Tensors by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// The same bytes.
    pub same: u64,
    /// Other bytes.
    pub changed: u64,
    /// Another type or shape.
    pub form: u64,
    /// Only there now.
    pub added: u64,
    /// Not there any more.
    pub removed: u64,
    /// Nobody can say: they share chunks with others, or were cut otherwise.
    pub unknown: u64,
    /// Bytes of those with the same and with other bytes.
    pub bytes: u64,
    /// Bytes of those with other bytes.
    pub bytes_changed: u64,
}

impl Counts {
    fn add(&mut self, more: &Counts) {
        let pairs = [
            (&mut self.same, more.same),
            (&mut self.changed, more.changed),
            (&mut self.form, more.form),
            (&mut self.added, more.added),
            (&mut self.removed, more.removed),
            (&mut self.unknown, more.unknown),
            (&mut self.bytes, more.bytes),
            (&mut self.bytes_changed, more.bytes_changed),
        ];
        pairs.into_iter().for_each(|(sum, one)| *sum = sum.saturating_add(one));
    }

    /// One of so many bytes, and whether it is the same, where that is known.
    fn compared_one(&mut self, same: Option<bool>, bytes: u64) {
        match same {
            Some(true) => self.same += 1,
            Some(false) => {
                self.changed += 1;
                self.bytes_changed = self.bytes_changed.saturating_add(bytes);
            }
            None => {
                self.unknown += 1;
                return;
            }
        }
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Those that were compared by their bytes.
    pub fn compared(&self) -> u64 {
        self.same.saturating_add(self.changed)
    }

    /// Whether most tensors, or most of their bytes, are others.
    fn is_most(&self) -> bool {
        self.changed > self.same || self.bytes_changed > self.bytes.saturating_sub(self.bytes_changed)
    }

    fn is_another_architecture(&self) -> bool {
        self.form > 0 || self.added > 0 || self.removed > 0
    }
}

/// A model that is suddenly another one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sudden {
    /// Its file, the list of its shards, or what describes its architecture.
    pub path: Vec<u8>,
    /// Its tensors.
    pub counts: Counts,
    /// What of the architecture is described otherwise: `hidden_size 4096 -> 8192`.
    pub config: Vec<String>,
    /// It holds no tensors any more.
    pub gone: bool,
}

impl fmt::Display for Sudden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sudden { path, counts: c, config, gone } = self;
        write!(f, "/{}: ", String::from_utf8_lossy(path).escape_debug())?;
        let mut said: Vec<String> = Vec::new();
        if *gone {
            said.push("is no model any more".into());
        }
        if c.changed > 0 {
            let percent = c.bytes_changed as f64 * 100.0 / (c.bytes.max(1)) as f64;
            let (part, all) = (units::count(c.changed), units::count(c.compared()));
            said.push(format!("{part} of {all} tensors have other bytes ({percent:.1}% of {})", units::bytes(c.bytes)));
        }
        for (number, what) in [(c.form, "of another type or shape"), (c.added, "new"), (c.removed, "gone")] {
            if number > 0 {
                said.push(format!("{} {what}", units::count(number)));
            }
        }
        said.extend(config.iter().map(|line| line.escape_debug().to_string()));
        f.write_str(&said.join(", "))
    }
}

impl Compared {
    /// Whether there is anything to say.
    pub fn is_empty(&self) -> bool {
        self.models == 0 && self.unknown.is_empty() && self.left == 0
    }

    /// What is to be said of it, a line each.
    pub fn lines(&self) -> Vec<String> {
        let sudden = self.sudden.iter().map(|sudden| format!("WARNING: a model is suddenly another one: {sudden}"));
        let unknown = self.unknown.iter().map(|what| format!("WARNING: not compared with what it was: {what}"));
        let left = (self.left > 0).then(|| format!("WARNING: {} files of models were not compared", self.left));
        sudden.chain(unknown).chain(left).collect()
    }

    /// Figures for the record of the run.
    pub fn figures(&self) -> Vec<(&'static str, u64)> {
        if self.is_empty() {
            return Vec::new();
        }
        let c = &self.counts;
        vec![
            ("models.bytes", c.bytes),
            ("models.bytes_changed", c.bytes_changed),
            ("models.compared", self.models),
            ("models.left", self.left),
            ("models.sudden_total", self.sudden.len() as u64),
            ("models.tensors_added", c.added),
            ("models.tensors_changed", c.changed),
            ("models.tensors_form", c.form),
            ("models.tensors_removed", c.removed),
            ("models.tensors_same", c.same),
            ("models.tensors_unknown", c.unknown),
            ("models.unknown_total", self.unknown.len() as u64),
        ]
    }
}

/// Compares what was read into the new snapshot with what stood there in the old one. Nothing that goes wrong is an error:
/// the snapshot is there.
pub fn sudden(
    reader: &Reader,
    (old, new): (&Manifest, &Manifest),
    paths: &[Vec<u8>],
    left: u64,
    cancel: &Cancel,
) -> Compared {
    let mut compared = Compared { left, ..Compared::default() };
    let mut both = Both { reader, old, new, cancel, owners: Owners::new(reader, new), done: BTreeSet::new() };
    for path in paths {
        match cancel.check().and_then(|()| both.one(path)) {
            Ok(None) => {}
            Ok(Some(found)) => {
                compared.models += 1;
                compared.counts.add(&found.counts);
                let most = found.gone || found.counts.is_most() || found.counts.is_another_architecture();
                if most || !found.config.is_empty() {
                    compared.sudden.push(found);
                }
            }
            Err(e) => compared.unknown.push(format!("/{}: {e}", String::from_utf8_lossy(path).escape_debug())),
        }
    }
    compared
}

/// The two snapshots.
struct Both<'b> {
    reader: &'b Reader,
    old: &'b Manifest,
    new: &'b Manifest,
    cancel: &'b Cancel,
    /// Of the new one.
    owners: Owners<'b>,
    /// Models that were compared.
    done: BTreeSet<Vec<u8>>,
}

impl Both<'_> {
    /// What became of the model that a file belongs to; `None` if there is nothing to compare, or it is what it was.
    fn one(&mut self, path: &[u8]) -> Result<Option<Sudden>> {
        let Some(now) = file_at(self.reader, self.new, path)? else { return Ok(None) };
        if last(path) == CONFIG {
            let Some(before) = file_at(self.reader, self.old, path)?.filter(|before| differ(before, &now)) else {
                return Ok(None);
            };
            let config = config(self.reader, &before, &now)?;
            return Ok((!config.is_empty()).then(|| Sudden { path: path.to_vec(), config, ..Sudden::default() }));
        }
        // What lies beside a model is its own; and a model in several files is one.
        let owner = self.owners.owner_of(path)?;
        let path = owner.as_deref().unwrap_or(path);
        let list = if path.ends_with(LIST_SUFFIX) { Some(path.to_vec()) } else { self.owners.list_of(path)? };
        let unit = list.clone().unwrap_or_else(|| path.to_vec());
        let Some(before) = file_at(self.reader, self.old, &unit)? else { return Ok(None) };
        let alone = list.is_none() && owner.is_none();
        if alone && !differ(&before, &now) || !self.done.insert(unit.clone()) {
            return Ok(None);
        }
        let Some(before) = self.forms(self.old, &unit)? else { return Ok(None) };
        let Some(after) = self.forms(self.new, &unit)? else {
            return Ok(Some(Sudden { path: unit, gone: true, ..Sudden::default() }));
        };
        let mut alike = Alike::new(self.reader, [&before.files, &after.files], self.cancel);
        let counts = compare(&before.forms, after.forms, &mut |old, new| alike.are(old.lies, new.lies))?;
        let all_same = !counts.is_another_architecture() && counts.changed == 0 && counts.unknown == 0;
        Ok((!all_same).then(|| Sudden { path: unit, counts, ..Sudden::default() }))
    }

    /// All tensors of a model; `None` if there is none.
    fn forms(&self, manifest: &Manifest, path: &[u8]) -> Result<Option<Forms>> {
        match forms(self.reader, manifest, path, self.cancel) {
            Ok(forms) => Ok(Some(forms)),
            Err(e) if matches!(e.kind(), Kind::Config | Kind::Source | Kind::NotFound) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

fn differ(old: &Entry, new: &Entry) -> bool {
    (&old.inline, &old.chunks, old.list, old.size) != (&new.inline, &new.chunks, new.list, new.size)
}

/// Tells whether two tensors have the same bytes, if it can.
type Look<'l> = &'l mut dyn FnMut(&Form, &Form) -> Result<Option<bool>>;

/// What became of all tensors. What chunks do not tell, a look at the bytes of both may, in the order of their places.
fn compare(old: &BTreeMap<String, Form>, mut new: BTreeMap<String, Form>, look: Look<'_>) -> Result<Counts> {
    let (mut c, mut unsure) = (Counts::default(), Vec::new());
    for (name, before) in old {
        let Some(after) = new.remove(name) else {
            c.removed += 1;
            continue;
        };
        match before.beside(&after) {
            Standing::Form => c.form += 1,
            Standing::Same => c.compared_one(Some(true), after.bytes),
            Standing::Other => c.compared_one(Some(false), after.bytes),
            Standing::Unsure => unsure.push((before, after)),
        }
    }
    unsure.sort_by_key(|(_, after)| after.lies);
    for (before, after) in unsure {
        c.compared_one(look(before, &after)?, after.bytes);
    }
    c.added = new.len() as u64;
    Ok(c)
}

/// What two descriptions of an architecture say otherwise, if they are such.
fn config(reader: &Reader, old: &Entry, new: &Entry) -> Result<Vec<String>> {
    if old.size() > CONFIG_BYTES_MAX || new.size() > CONFIG_BYTES_MAX {
        return Ok(Vec::new());
    }
    let read = |entry: &Entry| {
        let mut bytes = Vec::new();
        browse::cat(reader, entry, &mut bytes, &Cancel::default())?;
        Ok::<_, Error>(serde_json::from_slice::<serde_json::Value>(&bytes).ok())
    };
    Ok(match (read(old)?, read(new)?) {
        (Some(old), Some(new)) => configs(&old, &new),
        // What cannot be understood any more describes nothing.
        (Some(old), None) if is_config(&old) => vec!["describes no architecture any more".into()],
        _ => Vec::new(),
    })
}

fn is_config(value: &serde_json::Value) -> bool {
    value.get("model_type").is_some() || value.get("architectures").is_some()
}

fn configs(old: &serde_json::Value, new: &serde_json::Value) -> Vec<String> {
    if !is_config(old) {
        return Vec::new();
    }
    let shown = |value: Option<&serde_json::Value>| {
        let text = value.map_or_else(|| "none".to_owned(), serde_json::Value::to_string);
        let short: String = text.chars().take(VALUE_CHARS_MAX).collect();
        if short.len() < text.len() { format!("{short}…") } else { short }
    };
    let changed = KEYS.iter().filter(|key| old.get(key) != new.get(key));
    changed.map(|key| format!("{key} {} -> {}", shown(old.get(key)), shown(new.get(key)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::model::forms::Identity;
    use serde_json::json;

    fn model(tensors: &[(&str, u64, Identity)]) -> BTreeMap<String, Form> {
        let form = |(name, bytes, identity): &(&str, u64, Identity)| {
            let identity = match identity {
                Identity::Own(digest) => Identity::Own(*digest),
                Identity::Shared(digest) => Identity::Shared(*digest),
                Identity::Unknown => Identity::Unknown,
            };
            let shape = Some(vec![*bytes / 4]);
            ((*name).to_owned(), Form { dtype: "F32".into(), shape, bytes: *bytes, identity, lies: None })
        };
        tensors.iter().map(form).collect()
    }

    #[test]
    fn most_tensors_or_most_bytes_are_sudden_and_so_is_another_form() {
        use Identity::{Own, Shared, Unknown};
        let old = model(&[("a", 4000, Own([1; 32])), ("b", 4000, Own([2; 32])), ("c", 40, Shared([3; 32]))]);
        let of = |tensors: &[(&str, u64, Identity)]| compare(&old, model(tensors), &mut |_, _| Ok(None)).unwrap();
        let half = of(&[("a", 4000, Own([9; 32])), ("b", 4000, Own([2; 32])), ("c", 40, Shared([4; 32]))]);
        let wanted = Counts { same: 1, changed: 1, unknown: 1, bytes: 8000, bytes_changed: 4000, ..Counts::default() };
        assert_eq!(half, wanted);
        assert!(!half.is_most() && !half.is_another_architecture());
        let other = model(&[("a", 4000, Own([1; 32])), ("b", 4000, Own([2; 32])), ("c", 40, Shared([4; 32]))]);
        let looked = compare(&old, other, &mut |old, _| Ok(Some(old.bytes != 40))).unwrap();
        assert_eq!((looked.same, looked.changed, looked.unknown, looked.bytes_changed), (2, 1, 0, 40));
        let most = of(&[("a", 4000, Own([9; 32])), ("b", 4000, Own([9; 32])), ("c", 40, Shared([3; 32]))]);
        assert!(most.is_most() && !most.is_another_architecture());
        let form = of(&[("a", 8000, Own([1; 32])), ("b", 4000, Unknown), ("d", 40, Shared([3; 32]))]);
        assert_eq!((form.form, form.unknown, form.added, form.removed), (1, 1, 1, 1));
        assert!(!form.is_most() && form.is_another_architecture());
        let said = Sudden { path: b"m\x1b/x".to_vec(), counts: most, ..Sudden::default() }.to_string();
        assert_eq!(said, "/m\\u{1b}/x: 2 of 3 tensors have other bytes (99.5% of 7.9 KiB)");
        let said = Sudden { path: b"x".to_vec(), counts: form, gone: true, ..Sudden::default() }.to_string();
        assert_eq!(said, "/x: is no model any more, 1 of another type or shape, 1 new, 1 gone");
    }

    #[test]
    fn architectures_are_compared_by_what_makes_them() {
        let old = json!({"model_type": "llama", "hidden_size": 64, "use_cache": true, "transformers_version": "4.1"});
        let tuned =
            json!({"model_type": "llama", "hidden_size": 64, "use_cache": false, "transformers_version": "4.2"});
        assert_eq!(configs(&old, &tuned), [""; 0]);
        let other = json!({"model_type": "llama", "hidden_size": 65, "auto_map": {"AutoModel": "x".repeat(90)}});
        let said = configs(&old, &other);
        assert_eq!(said[1], "hidden_size 64 -> 65");
        assert!(said[0].starts_with("auto_map none -> {\"AutoModel\":\"xxx") && said[0].ends_with("xxx…"), "{said:?}");
        assert_eq!(configs(&json!({"hidden_size": 1}), &json!({"hidden_size": 2})), [""; 0]);
        assert_eq!(configs(&json!([1]), &json!([2])), [""; 0]);
    }

    #[test]
    fn files_of_models_are_known_by_name_or_by_what_they_hold() {
        for (name, has, is) in [
            ("config.json", false, true),
            ("my.config.json", false, false),
            ("model.safetensors", false, true),
            ("pytorch_model.bin", true, true),
            ("pytorch_model.bin", false, false),
            ("model.safetensors.index.json", false, true),
            ("samples.npy", true, false),
            ("notes.txt", false, false),
        ] {
            assert_eq!(is_of_a_model(name.as_bytes(), has), is, "{name}");
        }
    }
}
