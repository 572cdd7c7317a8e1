//! YAML to types, with limits, and its errors with a place and a guess.

use super::name::{guess, one_line, quoted};
use crate::error::{Error, Kind, Result};
use serde::Deserialize;
use serde_saphyr::{Location, MergeKeyPolicy, MessageFormatter, Options, Spanned, UserMessageFormatter};

/// Longest text of one file, in bytes.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting.
const DEPTH_MAX: usize = 16;
/// Most values and keys of one file.
const NODES_MAX: usize = 20_000;
/// Most documents of one file.
const DOCUMENTS_MAX: usize = 64;

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_documents: DOCUMENTS_MAX,
            max_nodes: NODES_MAX,
            max_events: 4 * NODES_MAX,
            max_total_scalar_bytes: TEXT_BYTES_MAX,
            max_anchors: 0,
            max_aliases: 0,
            max_inclusion_depth: 0,
        },
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

/// All documents of `text`, of one type. Empty documents are left out.
pub(super) fn documents<'a, T: Deserialize<'a>>(file_name: &str, text: &'a str) -> Result<Vec<T>> {
    if text.len() > TEXT_BYTES_MAX {
        let what = format!("the file has more than {TEXT_BYTES_MAX} bytes");
        return Err(Error::new(Kind::Config, what).at(file_name));
    }
    let read: std::result::Result<Vec<T>, _> = serde_saphyr::from_multiple_with_options(text, options());
    read.map_err(|e| translate(file_name, &e))
}

/// `file:line:column`, or the file alone where the place is not known.
pub(super) fn place(file_name: &str, location: Location) -> String {
    if location == Location::UNKNOWN {
        return file_name.to_owned();
    }
    format!("{file_name}:{}:{}", location.line(), location.column())
}

/// A mistake in the value `at`.
pub(super) fn mistake<T>(file_name: &str, at: &Spanned<T>, what: impl Into<String>) -> Error {
    Error::new(Kind::Config, what).at(place(file_name, at.referenced))
}

/// A field that may be absent, but not empty: an empty pin would be no pin.
pub(super) fn present<'de, D, T>(from: D) -> std::result::Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(from).map(Some)
}

/// What to do about a word that is none of `known`.
pub(super) fn suggestion(word: &str, known: &[&str]) -> String {
    match guess(word, known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("known here: {}", known.join(", ")),
    }
}

fn translate(file_name: &str, error: &serde_saphyr::Error) -> Error {
    use serde_saphyr::Error as Yaml;
    let error = error.without_snippet();
    let new = |what: String| Error::new(Kind::Config, what);
    let translated = match error {
        Yaml::SerdeUnknownField { field, expected, .. } => {
            new(format!("unknown field {}", quoted(field))).advise(suggestion(field, expected))
        }
        Yaml::SerdeMissingField { field, .. } => new(format!("the field `{field}` is missing")),
        Yaml::DuplicateMappingKey { key: Some(key), .. } => {
            new(format!("the field {} is given twice", quoted(key))).advise("remove one of them")
        }
        Yaml::Budget { breach, .. } => over_budget(breach),
        Yaml::UnknownAnchor { .. } => no_anchors(),
        Yaml::MergeKeyNotAllowed { .. } => new("merge keys (`<<`) are not supported".into()),
        Yaml::Unexpected { expected: "mapping start", .. } => new("a mapping is needed here: `field: value`".into()),
        Yaml::Unexpected { expected: "sequence start", .. } => new("a list is needed here: `- value`".into()),
        Yaml::Unexpected { expected: "string scalar", .. } => new("a text is needed here".into()),
        Yaml::NullIntoString { .. } => new("the field has no value".into()),
        Yaml::InvalidScalar { .. } => new("a whole number is needed here".into()),
        other => new(one_line(&UserMessageFormatter.format_message(other))),
    };
    translated.at(place(file_name, error.location().unwrap_or(Location::UNKNOWN)))
}

fn no_anchors() -> Error {
    Error::new(Kind::Config, "anchors and aliases (`&`, `*`) are not supported")
        .advise("write the value out, or quote it")
}

fn over_budget(breach: &serde_saphyr::budget::BudgetBreach) -> Error {
    use serde_saphyr::budget::BudgetBreach as Breach;
    let limit = match breach {
        Breach::Anchors { .. } | Breach::Aliases { .. } => return no_anchors(),
        Breach::Depth { .. } => format!("nested deeper than {DEPTH_MAX}"),
        Breach::Documents { .. } => format!("more than {DOCUMENTS_MAX} documents"),
        _ => format!("more than {NODES_MAX} values"),
    };
    Error::new(Kind::Config, format!("the file is no configuration: {limit}"))
}
