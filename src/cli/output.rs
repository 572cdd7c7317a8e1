//! What a verb says at its end: text for people or one JSON object.

use crate::error::{Error, Exit};
use crate::store::Requests;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Write;

/// The end of a verb.
pub struct Outcome {
    pub exit: Exit,
    pub text: String,
    pub json: Value,
}

impl Outcome {
    /// Done, with something to say.
    pub fn new(exit: Exit, text: impl Into<String>, json: Value) -> Outcome {
        Outcome { exit, text: text.into(), json }
    }

    /// With the requests that were made of each region, where there were any.
    pub fn with_requests(mut self, made: &BTreeMap<String, Requests>) -> Outcome {
        if let Value::Object(map) = &mut self.json
            && !made.is_empty()
        {
            let one = |(region, n): (&String, &Requests)| {
                json!({"region": region, "put": n.put, "get": n.get, "head": n.head, "list": n.list,
                    "delete": n.delete, "retries": n.retries, "circuit": n.circuit.name(), "opened": n.opened})
            };
            map.insert("requests".into(), made.iter().map(one).collect());
        }
        self
    }

    /// It ends no better than so.
    pub fn at_best(self, exit: Exit) -> Outcome {
        Outcome { exit: self.exit.worse(exit), ..self }
    }

    /// Everything was said.
    pub fn silent(exit: Exit) -> Outcome {
        Outcome { exit, text: String::new(), json: Value::Null }
    }

    /// Prints it; returns the exit code.
    pub fn print(self, json: bool) -> u8 {
        let text = if json && !self.json.is_null() {
            json_line(self.json, self.exit)
        } else {
            plain_lines(self.text.trim_end())
        };
        if !text.is_empty() {
            line(&mut std::io::stdout().lock(), &text);
        }
        self.exit as u8
    }
}

/// Writes one line; a closed output ends nothing that is done.
pub fn line(out: &mut dyn Write, text: &str) {
    let _ = writeln!(out, "{text}");
}

/// Writes what is no line: what moves the cursor.
pub fn show(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// A remark beside the result.
pub fn remark(text: &str) {
    line(&mut std::io::stderr().lock(), &plain_lines(text));
}

fn with_exit(value: Value, exit: Exit) -> Value {
    let mut map = match value {
        Value::Object(map) => map,
        other => Map::from_iter([("result".to_owned(), other)]),
    };
    map.insert("exit".into(), json!({"code": exit as u8, "name": exit.name()}));
    Value::Object(map)
}

/// Prints an error; returns the exit code.
pub fn print_error(e: &Error, json: bool) -> u8 {
    let exit = e.exit();
    if json {
        let one =
            |e: &Error| json!({"kind": e.kind().name(), "what": e.what(), "where": e.place(), "advice": e.advice()});
        let mut value = json!({"error": one(e)});
        if !e.more().is_empty() {
            value["more"] = e.more().iter().map(one).collect();
        }
        line(&mut std::io::stdout().lock(), &json_line(value, exit));
    } else {
        std::iter::once(e).chain(e.more()).for_each(|e| remark(&plain(&format!("holdfast: {e}"))));
    }
    exit as u8
}

fn json_line(value: Value, exit: Exit) -> String {
    one_line(&with_exit(value, exit))
}

/// JSON on one line; what a terminal would act on is escaped where the standard lets it stand.
pub fn one_line(value: &Value) -> String {
    let text = value.to_string();
    if !text.chars().any(char::is_control) {
        return text;
    }
    // Control characters can stand only inside strings, and there all of them may be escaped.
    text.chars().map(|c| if c.is_control() { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() }).collect()
}

/// Lines of text that control no terminal: the line ends are ours, what else does came in a name.
fn plain_lines(text: &str) -> String {
    text.split('\n').map(plain).collect::<Vec<_>>().join("\n")
}

/// Text that controls no terminal, on one line.
pub fn plain(text: &str) -> String {
    text.chars().flat_map(visible).collect()
}

/// Bytes of a path for JSON: text, or with escapes where it is none.
pub fn path_text(path: &[u8]) -> String {
    match std::str::from_utf8(path) {
        Ok(text) => plain(text),
        Err(_) => path.iter().flat_map(|b| std::ascii::escape_default(*b)).map(char::from).collect(),
    }
}

/// Control characters of names must not reach a terminal.
fn visible(c: char) -> Vec<char> {
    if c.is_control() { c.escape_default().collect() } else { vec![c] }
}
