//! YAML to trees whose every value has its place, with limits.
//!
//! Reading goes on after a mistake that leaves the rest of the text understandable, so that all of them are
//! reported at once; only broken syntax and exceeded limits end it.

use super::name::{guess, one_line, quoted};
use crate::error::{Error, Kind};
use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span};
use std::fmt;

/// Longest text of one file, in bytes.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting.
const DEPTH_MAX: usize = 16;
/// Most values and keys of one file.
const NODES_MAX: usize = 20_000;
/// Most documents of one file.
const DOCUMENTS_MAX: usize = 64;

/// Line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    line: usize,
    column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    pub at: Place,
    pub value: Value,
}

/// What a value is, as far as YAML says so: what a scalar means depends on what is wanted there.
#[derive(Debug)]
pub(super) enum Value {
    /// A scalar as it was written, and whether without quotes.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A field of a mapping.
#[derive(Debug)]
pub(super) struct Entry {
    pub key: String,
    pub at: Place,
    pub value: Node,
}

impl Node {
    /// Whether there is nothing.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The field of a mapping.
    pub fn field(&self, name: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == name).map(|e| &e.value),
            _ => None,
        }
    }

    /// The value at a path like `spec.sources[1].name`, or the nearest one around it.
    pub fn nearest(&self, path: &str) -> &Node {
        let parts = path.split(['.', '[', ']']).filter(|part| !part.is_empty());
        let mut at = self;
        for part in parts {
            let next = match &at.value {
                Value::List(items) => part.parse::<usize>().ok().and_then(|n| items.get(n)),
                _ => at.field(part),
            };
            match next {
                Some(next) => at = next,
                None => break,
            }
        }
        at
    }
}

/// What to do about a word that is none of `known`.
pub(super) fn suggestion(word: &str, known: &[&str]) -> String {
    match guess(word, known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// The documents of `text` as far as they can be read, and what is wrong with it. Empty ones are left out.
pub(super) fn read(file_name: &str, text: &str) -> (Vec<Node>, Vec<Error>) {
    let mut reader = Reader::new(file_name, text);
    let mut documents = Vec::new();
    if text.len() > TEXT_BYTES_MAX {
        let what = format!("the file has more than {TEXT_BYTES_MAX} bytes");
        return (documents, vec![Error::new(Kind::Config, what).at(file_name)]);
    }
    // Broken syntax was noted where it was met; what stood complete before it is still judged.
    let _ = reader.documents(&mut documents);
    (documents, reader.found)
}

/// The rest of the text cannot be read; why is noted.
struct Unreadable;

type Read<T> = Result<T, Unreadable>;

struct Reader<'t> {
    file_name: &'t str,
    parser: Parser<'t, granit_parser::StrInput<'t>>,
    nodes: usize,
    /// Whether nothing was written for the last event.
    empty: bool,
    found: Vec<Error>,
}

impl<'t> Reader<'t> {
    fn new(file_name: &'t str, text: &'t str) -> Self {
        let mut options = Options::default();
        options.emit_unresolved_aliases = true;
        options.flow_nesting_limit = DEPTH_MAX;
        options.block_nesting_limit = 2 * DEPTH_MAX;
        let parser = Parser::new_from_str_with_options(text, options);
        Reader { file_name, parser, nodes: 0, empty: false, found: Vec::new() }
    }

    fn note(&mut self, at: Place, what: &str, advice: &str) {
        let e = Error::new(Kind::Config, what).at(format!("{}:{at}", self.file_name));
        self.found.push(if advice.is_empty() { e } else { e.advise(advice) });
    }

    fn end<T>(&mut self, at: Place, what: &str) -> Read<T> {
        self.note(at, what, "");
        Err(Unreadable)
    }

    fn over<T>(&mut self, at: Place, limit: &str) -> Read<T> {
        self.end(at, &format!("the file is no configuration: {limit}"))
    }

    /// The next event; `None` at the end.
    fn next(&mut self) -> Read<Option<(Event<'t>, Place)>> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok((event, span))) => {
                self.empty = span.is_empty();
                Ok(Some((event, place(&span))))
            }
            Some(Err(e)) => self.broken(&e),
        }
    }

    fn broken<T>(&mut self, e: &ScanError) -> Read<T> {
        let at = Place { line: e.marker().line().max(1), column: e.marker().col() + 1 };
        if matches!(e.kind(), granit_parser::ErrorKind::RecursionLimitExceeded) {
            return self.over(at, &format!("nested deeper than {DEPTH_MAX}"));
        }
        self.end(at, &format!("this is no YAML: {}", one_line(&e.info())))
    }

    fn documents(&mut self, documents: &mut Vec<Node>) -> Read<()> {
        let mut count = 0;
        while let Some((event, at)) = self.next()? {
            if !event.is_node() {
                continue;
            }
            count += 1;
            if count > DOCUMENTS_MAX {
                return self.over(at, &format!("more than {DOCUMENTS_MAX} documents"));
            }
            let node = self.node(event, at, 1)?;
            if !node.is_null() {
                documents.push(node);
            }
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'t>, at: Place, depth: usize) -> Read<Node> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return self.over(at, &format!("more than {NODES_MAX} values"));
        }
        if depth > DEPTH_MAX {
            return self.over(at, &format!("nested deeper than {DEPTH_MAX}"));
        }
        if event.tag().is_some() {
            self.note(at, "tags (`!`) are not supported", "write the value without it, or quote it");
        }
        let value = match event {
            Event::Scalar(text, style, anchor, _) => {
                self.no_anchor(anchor, at);
                Value::Scalar { text: text.into_owned(), plain: matches!(style, ScalarStyle::Plain) }
            }
            Event::SequenceStart(_, anchor, _) => {
                self.no_anchor(anchor, at);
                self.list(at, depth)?
            }
            Event::MappingStart(_, anchor, _) => {
                self.no_anchor(anchor, at);
                self.map(at, depth)?
            }
            _ => {
                self.no_anchor(1, at);
                Value::Scalar { text: String::new(), plain: false }
            }
        };
        Ok(Node { at, value })
    }

    fn no_anchor(&mut self, anchor: usize, at: Place) {
        if anchor != 0 {
            let what = "anchors and aliases (`&`, `*`) are not supported";
            self.note(at, what, "write the value out, or quote it");
        }
    }

    fn inner(&mut self, at: Place) -> Read<(Event<'t>, Place)> {
        match self.next()? {
            Some(next) => Ok(next),
            None => self.end(at, "the text ends inside this value"),
        }
    }

    fn list(&mut self, at: Place, depth: usize) -> Read<Value> {
        let mut items = Vec::new();
        loop {
            let (event, at) = self.inner(at)?;
            match event {
                Event::SequenceEnd => return Ok(Value::List(items)),
                event if event.is_node() => items.push(self.node(event, at, depth + 1)?),
                _ => {}
            }
        }
    }

    fn map(&mut self, at: Place, depth: usize) -> Read<Value> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, at) = self.inner(at)?;
            if matches!(event, Event::MappingEnd) {
                return Ok(Value::Map(entries));
            }
            if !event.is_node() {
                continue;
            }
            let key = self.node(event, at, depth + 1)?;
            let value = self.value(at, depth)?;
            match key.value {
                Value::Scalar { text, plain } if plain && text == "<<" => {
                    self.note(at, "merge keys (`<<`) are not supported", "write the fields out");
                }
                Value::Scalar { text, .. } if entries.iter().any(|e| e.key == text) => {
                    let what = format!("the field {} is given twice", quoted(&text));
                    self.note(at, &what, "remove one of them");
                }
                Value::Scalar { text, .. } => entries.push(Entry { key: text, at, value }),
                _ => self.note(at, "the name of a field must be a text", ""),
            }
        }
    }

    /// The value of a field; one that is empty stands where its field does.
    fn value(&mut self, key: Place, depth: usize) -> Read<Node> {
        loop {
            let (event, at) = self.inner(key)?;
            if event.is_node() {
                let nothing = self.empty && event.scalar().is_some();
                let at = if nothing { key } else { at };
                return self.node(event, at, depth + 1);
            }
        }
    }
}

fn place(span: &Span) -> Place {
    Place { line: span.start.line().max(1), column: span.start.col() + 1 }
}
