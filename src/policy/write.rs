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
    } else {
        let _ = writeln!(out, " {}", leaf(value));
    }
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
    let escaped =
        quoted.chars().map(|c| if c.is_control() { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() });
    escaped.collect()
}
