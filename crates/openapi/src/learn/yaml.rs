//! JSON values as YAML that people read.

use serde_json::Value;

/// Beyond about a thousand characters a reader takes nothing for a key unless it is marked as one.
const LONG_KEY: usize = 128;

/// Writes a value in block style.
pub(super) fn write(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                out.push_str(&" ".repeat(indent));
                if is_long(key) {
                    out.push_str("? ");
                    text(key, out);
                    out.push('\n');
                    out.push_str(&" ".repeat(indent));
                } else {
                    text(key, out);
                }
                after(value, indent, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                out.push_str(&" ".repeat(indent));
                out.push('-');
                let mut inner = String::new();
                if is_flat(item) {
                    out.push(' ');
                    flow(item, out);
                    out.push('\n');
                } else {
                    block(item, indent + 2, &mut inner);
                    // The first line goes beside the dash.
                    out.push(' ');
                    out.push_str(inner.trim_start_matches(' '));
                }
            }
        }
        plain => {
            flow(plain, out);
            out.push('\n');
        }
    }
}

fn after(value: &Value, indent: usize, out: &mut String) {
    out.push(':');
    if is_flat(value) {
        out.push(' ');
        flow(value, out);
        out.push('\n');
    } else {
        out.push('\n');
        block(value, indent + 2, out);
    }
}

/// In quotes a byte may take six characters.
fn is_long(key: &str) -> bool {
    key.len() > LONG_KEY
}

/// Whether a value is short enough for one line.
fn is_flat(value: &Value) -> bool {
    let plain = |value: &Value| !matches!(value, Value::Array(_) | Value::Object(_));
    match value {
        Value::Array(items) => items.len() <= 8 && items.iter().all(plain),
        Value::Object(entries) => {
            entries.len() <= 3 && entries.values().all(plain) && !entries.keys().any(|key| is_long(key))
        }
        _ => true,
    }
}

fn flow(value: &Value, out: &mut String) {
    let list = |out: &mut String, open: &str, close: &str, items: &mut dyn FnMut(&mut String)| {
        out.push_str(open);
        items(out);
        out.push_str(close);
    };
    match value {
        Value::Array(items) => list(out, "[", "]", &mut |out| {
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                flow(item, out);
            }
        }),
        Value::Object(entries) if entries.is_empty() => out.push_str("{}"),
        Value::Object(entries) => list(out, "{ ", " }", &mut |out| {
            for (i, (key, value)) in entries.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                text(key, out);
                out.push_str(": ");
                flow(value, out);
            }
        }),
        Value::String(word) => text(word, out),
        other => out.push_str(&other.to_string()),
    }
}

/// A text, in quotes unless it can only be read as a text.
fn text(word: &str, out: &mut String) {
    let plain = word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./+".contains(&b))
        && !matches!(
            word.to_ascii_lowercase().as_str(),
            "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    if plain {
        out.push_str(word);
    } else {
        // JSON's quotes are YAML's, but for the escape of a slash, which is not written.
        // Of what JSON takes as it is, YAML forbids some.
        for c in Value::String(word.to_owned()).to_string().chars() {
            if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            } else {
                out.push(c);
            }
        }
    }
}
