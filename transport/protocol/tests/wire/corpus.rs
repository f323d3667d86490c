//! Reads `tests/data` (see the README there).

use std::fs;
use std::path::Path;

use bytes::Bytes;
use serde_json::Value;

pub(crate) struct Vector {
    pub(crate) message: String,
    pub(crate) version: i16,
    pub(crate) name: String,
    pub(crate) body: Bytes,
    /// The body without tagged fields that the schema does not know.
    pub(crate) again: Bytes,
    pub(crate) value: Value,
}

pub(crate) fn vectors() -> Vec<Vector> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "vectors"));
    files.sort();
    files.iter().flat_map(|path| parse(&fs::read_to_string(path).unwrap())).collect()
}

fn parse(text: &str) -> Vec<Vector> {
    let mut vectors = Vec::new();
    let mut message = String::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.splitn(4, ' ');
        let (Some(version), Some(name), Some(hex), Some(value)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            message = line.to_owned();
            continue;
        };
        let (body, again) = hex.split_once('~').unwrap_or((hex, hex));
        vectors.push(Vector {
            message: message.clone(),
            version: version.parse().unwrap(),
            name: name.to_owned(),
            body: from_hex(body),
            again: from_hex(again),
            value: serde_json::from_str(value).unwrap(),
        });
    }
    vectors
}

fn from_hex(text: &str) -> Bytes {
    if text == "-" {
        return Bytes::new();
    }
    let digits: Vec<u8> = text.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
    assert!(digits.len().is_multiple_of(2));
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
