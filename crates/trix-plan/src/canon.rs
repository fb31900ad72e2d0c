//! Canonical JSON: the one spelling of a value that keys are taken over.
//!
//! RFC 8785 restricted to what plans hold: objects with members sorted by
//! UTF-16 code units, arrays, strings, integers, booleans and null, without
//! spaces. A float is refused, because its spelling is what two programs
//! would choose differently; decimals are strings (`"23.5"`). Integers may use
//! all 64 bits and are written exactly, where RFC 8785 stops at 53.

use serde::Serialize;
use serde_json::Value;

/// Why a value has no canonical form.
#[derive(Debug, thiserror::Error)]
pub enum CanonError {
    /// A floating-point number.
    #[error("writing canonical JSON: {path} is the float {value}; decimals are written as strings")]
    Float {
        /// Where, as a JSON pointer (RFC 6901).
        path: String,
        /// The number.
        value: String,
    },
    /// Something that has no JSON at all, such as a map with keys that are no strings.
    #[error("writing canonical JSON: the value does not serialise")]
    Serialise(#[source] serde_json::Error),
}

/// The canonical form of anything that serialises.
pub fn canonical<T: Serialize + ?Sized>(value: &T) -> Result<String, CanonError> {
    let value = serde_json::to_value(value).map_err(CanonError::Serialise)?;
    let mut out = String::new();
    write(&value, &mut String::new(), &mut out)?;
    Ok(out)
}

fn write(value: &Value, path: &mut String, out: &mut String) -> Result<(), CanonError> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(n) if n.is_f64() => {
            return Err(CanonError::Float { path: path.clone(), value: n.to_string() });
        }
        Value::Number(n) => out.push_str(&n.to_string()),
        Value::String(s) => text(s, out),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                below(path, &i.to_string(), |path| write(item, path, out))?;
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort_by(|a, b| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (i, name) in names.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                text(name, out);
                out.push(':');
                below(path, name, |path| write(&members[name], path, out))?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn below<R>(path: &mut String, name: &str, inside: impl FnOnce(&mut String) -> R) -> R {
    let len = path.len();
    path.push('/');
    path.push_str(&name.replace('~', "~0").replace('/', "~1"));
    let r = inside(path);
    path.truncate(len);
    r
}

/// The shortest escapes that RFC 8785 asks for: the two-letter ones where they exist, `\u00xx`
/// for other control characters, everything else as it is.
fn text(s: &str, out: &mut String) {
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_are_sorted_by_utf16_and_strings_escaped_as_rfc_8785_says() {
        // The example of RFC 8785, section 3.2.3: the emoji's surrogates sort before U+FB33.
        let value = json!({
            "\u{20ac}": "Euro Sign",
            "\r": "Carriage Return",
            "\u{fb33}": "Hebrew Letter Dalet With Dagesh",
            "1": "One",
            "\u{1f600}": "Emoji: Grinning Face",
            "\u{80}": "Control",
            "\u{f6}": "Latin Small Letter O With Diaeresis"
        });
        assert_eq!(
            canonical(&value).unwrap(),
            "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\
             \"\u{f6}\":\"Latin Small Letter O With Diaeresis\",\"\u{20ac}\":\"Euro Sign\",\
             \"\u{1f600}\":\"Emoji: Grinning Face\",\
             \"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}"
        );
        let nested = json!({"b": [1, -2, true, null], "a": {"y": "\u{1}\t\"\\/", "x": u64::MAX}});
        assert_eq!(
            canonical(&nested).unwrap(),
            r#"{"a":{"x":18446744073709551615,"y":"\u0001\t\"\\/"},"b":[1,-2,true,null]}"#
        );
    }

    #[test]
    fn a_float_is_refused_with_its_place() {
        let e = canonical(&json!({"a/b": [1, {"crf": 23.5}]})).unwrap_err();
        assert_eq!(
            e.to_string(),
            "writing canonical JSON: /a~1b/1/crf is the float 23.5; decimals are written as strings"
        );
    }
}
