//! Documents written out.

use serde_json::Value;
use std::fmt::Write;

/// JSON as YAML for people, that this language reads again.
pub fn yaml_text(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn block(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (name, value) in map {
                // Writing to a text cannot fail.
                let _ = write!(out, "{indent}{}:", scalar(name));
                after(value, depth + 1, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut inner = String::new();
                block(item, depth + 1, &mut inner);
                let inner = inner.strip_prefix(&"  ".repeat(depth + 1)).unwrap_or(&inner);
                let _ = write!(out, "{indent}- {inner}");
            }
        }
        other => {
            let _ = writeln!(out, "{indent}{}", leaf(other));
        }
    }
}

/// What follows the colon of a field.
fn after(value: &Value, depth: usize, out: &mut String) {
    let nested =
        value.as_object().is_some_and(|map| !map.is_empty()) || value.as_array().is_some_and(|l| !l.is_empty());
    if nested {
        out.push('\n');
        block(value, depth, out);
    } else if let Some(lines) = value.as_str().and_then(literal) {
        out.push_str(" |\n");
        for line in lines.lines() {
            let indent = if line.is_empty() { String::new() } else { "  ".repeat(depth) };
            let _ = writeln!(out, "{indent}{line}");
        }
    } else {
        let _ = writeln!(out, " {}", leaf(value));
    }
}

/// A text of several lines that may stand as they are.
fn literal(text: &str) -> Option<&str> {
    let several = text.trim_end_matches('\n').contains('\n');
    let ends = text.ends_with('\n') && !text.ends_with("\n\n");
    let begins = !text.starts_with([' ', '\n']);
    let plain =
        |c: char| c == '\n' || matches!(c, ' '..='~' | '\u{a0}'..='\u{d7ff}') && !matches!(c, '\u{2028}' | '\u{2029}');
    (several && ends && begins && text.chars().all(plain)).then_some(text)
}

fn leaf(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// A text, in quotes unless nobody could take it for something else.
fn scalar(text: &str) -> String {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
    let first = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    if first && text.chars().all(inner) && !WORDS.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    // JSON's strings are YAML's double-quoted ones.
    let quoted = Value::from(text).to_string();
    // What is no text, or a line's end, for some readers.
    let strange =
        |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}');
    let escaped = quoted.chars().map(|c| if strange(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() });
    escaped.collect()
}
