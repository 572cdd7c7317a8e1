//! `holdfast model ls`.

use super::args::ModelLs;
use super::common::Context;
use super::output::{Outcome, one_line, path_text, plain, remark};
use crate::base::units;
use crate::error::{Error, Exit, Kind, Result};
use crate::model::format::{Found, Model, Place, Shards, Tensor};
use crate::ops::model::{Holding, files, look};
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What was seen in all.
#[derive(Default)]
pub struct Sums {
    models: u64,
    tensors: u64,
    bytes: u64,
    others: u64,
    pub malformed: u64,
    pub unread: u64,
}

pub fn run(context: &Context, args: &ModelLs) -> Result<Outcome> {
    let json = context.global.json;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let closed = |_| Error::new(Kind::Cancelled, "the output was closed");
    let mut sums = Sums::default();
    for path in &args.path {
        let all = files(path, &context.cancel)?;
        // A file that was named itself is spoken of, whatever it is.
        let named = all.first() == Some(path);
        for path in &all {
            context.cancel.check()?;
            let holding = match look(path) {
                Ok(holding) => holding,
                Err(e) if named => return Err(e),
                Err(e) => {
                    sums.unread += 1;
                    remark(&plain(&format!("holdfast: {e}")));
                    continue;
                }
            };
            sums.take(&holding);
            if named || !is_other(&holding) {
                let text = match json {
                    true => format!("{}\n", one_line(&json_of(&holding))),
                    false => text_of(&shown(&holding.path), &holding),
                };
                out.write_all(text.as_bytes()).map_err(closed)?;
            }
        }
    }
    out.flush().map_err(closed)?;
    drop(out);
    let exit = if sums.malformed + sums.unread > 0 { Exit::Partial } else { Exit::Done };
    let mut value = sums.json();
    value["verb"] = json!("model ls");
    Ok(Outcome::new(exit, sums.text(), value))
}

impl Sums {
    pub fn take(&mut self, holding: &Holding) {
        match &holding.found {
            Found::Model(_) => self.models += 1,
            Found::Malformed(..) => self.malformed += 1,
            Found::Other => self.others += 1,
        }
        for tensor in holding.tensors() {
            self.tensors += 1;
            self.bytes = self.bytes.saturating_add(tensor.bytes().unwrap_or(0));
        }
    }

    pub fn text(&self) -> String {
        let mut text = format!(
            "{} tensors ({}) in {} files",
            units::count(self.tensors),
            units::bytes(self.bytes),
            units::count(self.models)
        );
        for (number, what) in [
            (self.others, "other files"),
            (self.malformed, "that begin like models and are none"),
            (self.unread, "that could not be read"),
        ] {
            if number > 0 {
                text.push_str(&format!(", {} {what}", units::count(number)));
            }
        }
        text
    }

    pub fn json(&self) -> Value {
        json!({
            "models": self.models, "tensors": self.tensors, "bytes": self.bytes,
            "others": self.others, "malformed": self.malformed, "unread": self.unread,
        })
    }
}

/// Whether it is nothing that is known here.
pub fn is_other(holding: &Holding) -> bool {
    matches!(holding.found, Found::Other) && holding.shards.is_none()
}

pub fn shown(path: &Path) -> String {
    path_text(path.as_os_str().as_bytes())
}

/// `F32 [2, 3]`.
pub fn form(dtype: &str, shape: Option<&[u64]>) -> String {
    let sizes = |shape: &[u64]| shape.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    shape.map_or_else(|| plain(dtype), |shape| format!("{} [{}]", plain(dtype), sizes(shape)))
}

/// What a file holds, in lines behind what it is called.
pub fn text_of(path: &str, holding: &Holding) -> String {
    match (&holding.found, &holding.shards) {
        (Found::Model(model), _) => text_of_model(path, holding, model),
        (Found::Malformed(format, what), _) => format!("{path}: no {}: {what}\n", format.name()),
        (Found::Other, Some(shards)) => text_of_shards(path, shards),
        (Found::Other, None) => format!("{path}: no model\n"),
    }
}

fn text_of_model(path: &str, holding: &Holding, model: &Model) -> String {
    let version = model.version.map_or(String::new(), |version| format!(" {version}"));
    let mut text = format!(
        "{path}: {}{version}, {} tensors, {}\n",
        model.format.name(),
        units::count(model.tensors.len() as u64),
        units::bytes(holding.bytes)
    );
    for tensor in &model.tensors {
        let name = plain(&holding.name_of(tensor));
        let size = tensor.bytes().map_or("-".to_owned(), |bytes| format!("{bytes} B"));
        let place = match &tensor.place {
            Place::Here(begin, _) => format!("at {begin}"),
            Place::Beside(other) => format!("at {} of {}", other.offset, plain(&other.file)),
            Place::Written => "within the header".to_owned(),
        };
        text.push_str(&format!("  {name}  {}  {size}  {place}\n", form(&tensor.dtype, tensor.shape.as_deref())));
    }
    if model.packed > 0 {
        text.push_str(&format!("  {} packed entries, not looked into\n", units::count(model.packed)));
    }
    text
}

fn text_of_shards(path: &str, shards: &Shards) -> String {
    let mut text = format!("{path}: list of {} tensors in several files\n", units::count(shards.tensors.len() as u64));
    for (name, file) in &shards.tensors {
        text.push_str(&format!("  {}  in {}\n", plain(name), plain(file)));
    }
    text
}

pub fn json_of(holding: &Holding) -> Value {
    let mut value = json!({"path": shown(&holding.path), "size": holding.bytes});
    match (&holding.found, &holding.shards) {
        (Found::Model(model), _) => {
            let one = |tensor: &Tensor| json_of_tensor(&holding.name_of(tensor), tensor);
            value["format"] = json!(model.format.name());
            value["version"] = json!(model.version);
            value["header"] = json!([model.header.0, model.header.1]);
            value["tensors"] = model.tensors.iter().map(one).collect();
            value["packed"] = json!(model.packed);
        }
        (Found::Malformed(format, what), _) => {
            value["format"] = json!(format.name());
            value["malformed"] = json!({"at": what.at, "what": what.what});
        }
        (Found::Other, Some(shards)) => {
            value["format"] = json!("shards");
            value["shards"] = shards.tensors.iter().map(|(name, file)| json!({"name": name, "file": file})).collect();
        }
        (Found::Other, None) => value["format"] = Value::Null,
    }
    value
}

fn json_of_tensor(name: &str, tensor: &Tensor) -> Value {
    let (file, offset) = match &tensor.place {
        Place::Here(begin, _) => (None, Some(*begin)),
        Place::Beside(other) => (Some(other.file.as_str()), Some(other.offset)),
        Place::Written => (None, None),
    };
    json!({
        "name": name, "dtype": tensor.dtype, "shape": tensor.shape, "bytes": tensor.bytes(), "offset": offset, "file": file,
    })
}
