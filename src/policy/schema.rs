//! The schema of the language, made of its types, and documents held against it: every mistake is found, not
//! only the first.

use super::name::quoted;
use super::types::{BackupPolicySpec, Document, RepositorySpec};
use super::yaml::{Entry, Node, Value, suggestion};
use super::{API_VERSION, DocumentKind};
use crate::error::{Error, Kind};
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value as Json, json};
use std::sync::LazyLock;

/// The schema of each kind.
static REPOSITORY: LazyLock<Json> = LazyLock::new(|| schema_of::<Document<RepositorySpec>>(DocumentKind::Repository));
static POLICY: LazyLock<Json> = LazyLock::new(|| schema_of::<Document<BackupPolicySpec>>(DocumentKind::BackupPolicy));

/// A JSON Schema for the documents of this language.
pub fn schema() -> Json {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Holdfast configuration",
        "oneOf": [*REPOSITORY, *POLICY],
    })
}

fn of(kind: DocumentKind) -> &'static Json {
    match kind {
        DocumentKind::Repository => &REPOSITORY,
        DocumentKind::BackupPolicy => &POLICY,
    }
}

/// Without references, as cluster resources need it.
fn schema_of<T: JsonSchema>(kind: DocumentKind) -> Json {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    Present.transform(&mut schema);
    let mut json = Json::from(schema);
    json["title"] = kind.name().into();
    json["properties"]["kind"]["const"] = kind.name().into();
    json["properties"]["apiVersion"]["const"] = API_VERSION.into();
    json
}

/// A field that may be absent, but not empty: an empty pin would be no pin.
struct Present;

impl Transform for Present {
    fn transform(&mut self, schema: &mut Schema) {
        if let Some(Json::Array(types)) = schema.get_mut("type") {
            types.retain(|t| t != "null");
            if let [one] = types.as_slice() {
                let one = one.clone();
                schema.insert("type".into(), one);
            }
        }
        let inner = schema.get("anyOf").and_then(Json::as_array).and_then(|of| of.first()).and_then(Json::as_object);
        if let Some(inner) = inner.cloned() {
            schema.remove("anyOf");
            for (name, value) in inner {
                // What is said of the field goes before what is said of its type.
                if schema.get(&name).is_none() {
                    schema.insert(name, value);
                }
            }
        }
        schema.remove("default");
        transform_subschemas(self, schema);
    }
}

/// Holds a document against the schema of its kind: the document as JSON, and what is wrong with it, each
/// with its place.
pub(super) fn check(file_name: &str, kind: DocumentKind, document: &Node) -> (Json, Vec<Error>) {
    let mut walk = Walk { file_name, path: String::new(), found: Vec::new() };
    let json = walk.value(document, of(kind));
    (json, walk.found)
}

struct Walk<'a> {
    file_name: &'a str,
    path: String,
    found: Vec<Error>,
}

/// The name of one value among several that the schema lists.
fn names(schema: &Json) -> Vec<&str> {
    let listed = schema["enum"].as_array().into_iter().flatten().filter_map(Json::as_str);
    let described = schema["oneOf"].as_array().into_iter().flatten().filter_map(|s| s["const"].as_str());
    listed.chain(described).collect()
}

/// The type that a value is to have; of several the one that it may have been meant for.
fn wanted<'s>(types: &'s Json, value: &Value) -> &'s str {
    let Some(several) = types.as_array() else { return types.as_str().unwrap_or("string") };
    let mapping = matches!(value, Value::Map(_));
    several.iter().filter_map(Json::as_str).find(|name| (*name == "object") == mapping).unwrap_or("string")
}

impl Walk<'_> {
    fn note(&mut self, at: &impl std::fmt::Display, what: impl Into<String>, advice: &str) {
        let mut e = Error::new(Kind::Config, what);
        if !self.path.is_empty() {
            e = e.at(&self.path);
        }
        e = e.at(format!("{}:{at}", self.file_name));
        self.found.push(if advice.is_empty() { e } else { e.advise(advice) });
    }

    /// Does something one step further down.
    fn below<T>(&mut self, step: &str, what: impl FnOnce(&mut Self) -> T) -> T {
        let len = self.path.len();
        if len > 0 && !step.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(step);
        let done = what(self);
        self.path.truncate(len);
        done
    }

    fn value(&mut self, node: &Node, schema: &Json) -> Json {
        let wanted = wanted(&schema["type"], &node.value);
        match (wanted, &node.value) {
            ("object", Value::Map(entries)) => self.map(node, entries, schema),
            ("array", Value::List(items)) => self.list(items, &schema["items"]),
            (_, Value::Scalar { .. }) if node.is_null() => {
                self.note(&node.at, "the field has no value", "give it one, or leave the field out");
                Json::Null
            }
            ("string", Value::Scalar { text, .. }) => self.text(node, text, schema),
            ("integer", Value::Scalar { text, plain }) => self.number(node, text, *plain, schema),
            ("boolean", Value::Scalar { text, plain: true }) if text == "true" || text == "false" => {
                Json::Bool(text == "true")
            }
            ("boolean", _) if schema["properties"].is_object() => {
                let what = "`true`, `false` or a mapping is needed here";
                self.note(&node.at, what, "write it without quotes, or `field: value`");
                Json::Null
            }
            (wanted, _) => self.wrong_type(node, wanted),
        }
    }

    fn wrong_type(&mut self, node: &Node, wanted: &str) -> Json {
        let what = match wanted {
            "object" => "a mapping is needed here: `field: value`",
            "array" => "a list is needed here: `- value`",
            "integer" => "a whole number is needed here",
            "boolean" => "`true` or `false` is needed here, without quotes",
            _ => "a text is needed here",
        };
        self.note(&node.at, what, "");
        Json::Null
    }

    fn text(&mut self, node: &Node, text: &str, schema: &Json) -> Json {
        let known = names(schema);
        if !known.is_empty() && !known.contains(&text) {
            self.note(&node.at, format!("{} is not known here", quoted(text)), &suggestion(text, &known));
        }
        text.into()
    }

    fn number(&mut self, node: &Node, text: &str, plain: bool, schema: &Json) -> Json {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let octal = digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
        if plain && octal {
            let what =
                format!("{} is one number to some and another to others: a leading zero may mean base 8", quoted(text));
            self.note(&node.at, what, "write it without the zero");
            return Json::Null;
        }
        let number = text.parse::<i64>().ok().filter(|_| plain && !text.starts_with('+'));
        let Some(number) = number else { return self.wrong_type(node, "integer") };
        let min = schema["minimum"].as_i64().unwrap_or(i64::from(i32::MIN));
        let max = schema["maximum"].as_i64().unwrap_or(i64::from(i32::MAX));
        if !(min..=max).contains(&number) {
            self.note(
                &node.at,
                format!("{number} is out of range"),
                &format!("use a whole number from {min} to {max}"),
            );
        }
        number.into()
    }

    fn list(&mut self, items: &[Node], schema: &Json) -> Json {
        let mut out = Vec::with_capacity(items.len());
        for (n, item) in items.iter().enumerate() {
            out.push(self.below(&format!("[{n}]"), |walk| walk.value(item, schema)));
        }
        Json::Array(out)
    }

    fn map(&mut self, node: &Node, entries: &[Entry], schema: &Json) -> Json {
        let none = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&none);
        let known: Vec<&str> = properties.keys().map(String::as_str).collect();
        let (mut out, mut meant) = (Map::new(), Vec::new());
        for entry in entries {
            let Some(schema) = properties.get(&entry.key) else {
                meant.extend(super::name::guess(&entry.key, &known));
                let what = format!("unknown field {}", quoted(&entry.key));
                self.note(&entry.at, what, &suggestion(&entry.key, &known));
                continue;
            };
            let value = self.below(&entry.key, |walk| walk.value(&entry.value, schema));
            out.insert(entry.key.clone(), value);
        }
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str);
        for name in required.filter(|name| !out.contains_key(*name) && !meant.contains(name)) {
            let says = properties.get(name).and_then(|s| s["description"].as_str()).unwrap_or_default();
            let advice = if says.is_empty() { String::new() } else { format!("{name}: {says}") };
            self.note(&node.at, format!("the field `{name}` is missing"), &advice);
        }
        Json::Object(out)
    }
}
