//! The lines of stdin, and the records that they are.

use std::io::{self, BufRead};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use clap::ValueEnum;
use serde_json::{Map, Value};

use crate::command::output::from_base64;

/// Lines read ahead.
const LINES_AHEAD_MAX: usize = 256;
/// Longest line in bytes.
const LINE_BYTES_MAX: usize = 64 << 20;

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Input {
    /// A value, or key and value with --key-separator between.
    Text,
    /// A JSON object with `key`, `value` and `headers`, each of them may be missing, as `consume --json` prints it. Its
    /// topic, partition and offset do not count; its timestamp does.
    Json,
}

/// A record as a line has it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<Header>,
    /// Milliseconds since 1970, if it is not now.
    pub(super) timestamp: Option<i64>,
}

/// Name and value.
pub(super) type Header = (String, Option<Vec<u8>>);

impl Line {
    /// Bytes of the record, but for what the format adds.
    pub(super) fn len(&self) -> usize {
        let field = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers = self.headers.iter().map(|(name, value)| name.len() + field(value));
        field(&self.key) + field(&self.value) + headers.sum::<usize>()
    }

    /// A line of text. The error says what it lacks.
    pub(super) fn of_text(line: Vec<u8>, key_separator: Option<&str>) -> Result<Line, String> {
        let Some(separator) = key_separator else {
            return Ok(Line { value: Some(line), ..Line::default() });
        };
        let at = find(&line, separator.as_bytes())
            .ok_or_else(|| format!("lacks the key separator {separator:?}"))?;
        let value = line[at + separator.len()..].to_vec();
        Ok(Line { key: Some(line[..at].to_vec()), value: Some(value), ..Line::default() })
    }

    /// A line of JSON. The error says what is wrong with it.
    pub(super) fn of_json(line: &[u8]) -> Result<Line, String> {
        let expected =
            r#"expected an object like {"key": "k", "value": "v", "headers": [{"key": "h", "value": "x"}]}"#;
        let parsed =
            serde_json::from_slice(line).map_err(|error| format!("is no JSON ({error}): {expected}"))?;
        let Value::Object(object) = parsed else { return Err(format!("is no object: {expected}")) };
        let headers = match object.get("headers") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(headers)) => headers.iter().map(header).collect::<Result<_, _>>()?,
            Some(_) => return Err(format!("has headers that are no array: {expected}")),
        };
        let timestamp = match object.get("timestamp") {
            None | Some(Value::Null) => None,
            Some(number) => Some(number.as_i64().ok_or("has a timestamp that is no number of milliseconds")?),
        };
        Ok(Line { key: bytes(&object, "key")?, value: bytes(&object, "value")?, headers, timestamp })
    }
}

fn header(value: &Value) -> Result<Header, String> {
    let object = value.as_object().ok_or("has a header that is no object")?;
    let name = bytes(object, "key")?.ok_or("has a header without key")?;
    let name = String::from_utf8(name).map_err(|_| "has a header whose key is no text".to_owned())?;
    Ok((name, bytes(object, "value")?))
}

/// A field as text under its name, or as base64 under the name that says so.
fn bytes(object: &Map<String, Value>, name: &str) -> Result<Option<Vec<u8>>, String> {
    let encoded = format!("{name}_base64");
    match (object.get(name), object.get(&encoded)) {
        (Some(Value::String(text)), None) => Ok(Some(text.clone().into_bytes())),
        (None, Some(Value::String(text))) => {
            from_base64(text).map(Some).ok_or_else(|| format!("has a {encoded} that is no base64"))
        }
        (None | Some(Value::Null), None) => Ok(None),
        (Some(_), Some(_)) => Err(format!("has both {name} and {encoded}")),
        _ => Err(format!("has a {name} that is no text; bytes go base64-encoded under {encoded}")),
    }
}

/// Reads stdin beside the sender, so that lines can be joined without waiting for more of them.
pub(super) fn read_lines() -> Receiver<io::Result<Vec<u8>>> {
    let (lines, receiver) = sync_channel(LINES_AHEAD_MAX);
    thread::spawn(move || {
        let mut input = io::stdin().lock();
        while let Some(line) = next_line(&mut input).transpose() {
            let failed = line.is_err();
            // The sender gave up: nobody waits for more.
            if lines.send(line).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

/// The next line without its end; none at the end of the input.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut bounded = io::Read::take(input, LINE_BYTES_MAX as u64 + 1);
    if bounded.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        line.pop_if(|byte| *byte == b'\r');
    }
    if line.len() > LINE_BYTES_MAX {
        return Err(io::Error::other(format!("a line is longer than {LINE_BYTES_MAX} bytes")));
    }
    Ok(Some(line))
}

/// Where `needle` (not empty) begins in `bytes`.
fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines_lose_their_ends_and_nothing_else() {
        let mut input: &[u8] = b"a\r\n\n b \n\xff\nlast";
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut input).unwrap() {
            lines.push(line);
        }
        assert_eq!(lines, [&b"a"[..], b"", b" b ", b"\xff", b"last"]);
    }

    #[test]
    fn keys_end_at_the_first_separator() {
        let split = |text: &str, separator| {
            let line = Line::of_text(text.into(), Some(separator)).ok()?;
            Some((String::from_utf8(line.key?).unwrap(), String::from_utf8(line.value?).unwrap()))
        };
        assert_eq!(split("key::value::more", "::"), Some(("key".to_owned(), "value::more".to_owned())));
        assert_eq!(split(":value", ":"), Some((String::new(), "value".to_owned())));
        assert_eq!(split("", ":"), None);
        assert_eq!(Line::of_text(b"a:b".to_vec(), None).unwrap().value, Some(b"a:b".to_vec()));
    }

    #[test]
    fn json_has_all_of_a_record() {
        let text = br#"{"key_base64": "//4=", "value": null, "timestamp": 5, "offset": 9,
            "headers": [{"key": "h", "value_base64": "/w=="}, {"key": "i", "value": null}]}"#;
        let line = Line::of_json(text).unwrap();
        let headers = vec![("h".to_owned(), Some(vec![0xff])), ("i".to_owned(), None)];
        let expected = Line { key: Some(vec![0xff, 0xfe]), value: None, headers, timestamp: Some(5) };
        assert_eq!((line.len(), &line), (5, &expected));
        assert_eq!(Line::of_json(b"{}").unwrap(), Line::default());
        for (bad, why) in [
            ("", "is no JSON"),
            ("[]", "is no object"),
            (r#"{"key": 5}"#, "has a key that is no text"),
            (r#"{"key": "k", "key_base64": "aw=="}"#, "has both"),
            (r#"{"value_base64": "a"}"#, "no base64"),
            (r#"{"headers": {}}"#, "no array"),
            (r#"{"headers": [{"value": "x"}]}"#, "without key"),
            (r#"{"timestamp": "now"}"#, "no number"),
        ] {
            let said = Line::of_json(bad.as_bytes()).unwrap_err();
            assert!(said.contains(why), "{bad}: {said}");
        }
    }
}
