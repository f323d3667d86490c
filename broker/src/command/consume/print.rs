//! How records are printed.

use clap::ValueEnum;
use penstock_format::RecordRef;
use serde_json::{Map, Value, json};

use crate::command::Failure;
use crate::command::output::{Output, base64};
use crate::command::time::format_ms;

/// A field of a record, as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Field {
    /// The partition.
    Partition,
    /// The offset.
    Offset,
    /// The timestamp, in UTC.
    Timestamp,
    /// The key, `null` if there is none.
    Key,
    /// `name=value,...`, nothing if there are none.
    Headers,
    /// The value, `null` if there is none.
    Value,
}

/// What is printed of each record.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form<'a> {
    /// Fields with a separator between.
    Text { fields: &'a [Field], separator: &'a str },
    /// A JSON object with everything.
    Json,
}

/// Prints records until there were enough.
pub(super) struct Printer<'a> {
    form: Form<'a>,
    out: Output,
    left: Option<u64>,
}

impl<'a> Printer<'a> {
    pub(super) fn new(out: Output, form: Form<'a>, max: Option<u64>) -> Printer<'a> {
        Printer { form, out, left: max }
    }

    /// As many were printed as were asked for.
    pub(super) fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// Writes out all that was printed.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.out.finish()?)
    }

    pub(super) fn print(
        &mut self,
        topic: &str,
        partition: i32,
        record: &RecordRef<'_>,
    ) -> Result<(), Failure> {
        match self.form {
            Form::Json => self.out.json_line(&document(topic, partition, record))?,
            Form::Text { fields, separator } => {
                let mut line = Vec::new();
                for (at, field) in fields.iter().enumerate() {
                    line.extend_from_slice(if at == 0 { b"" } else { separator.as_bytes() });
                    put_text(&mut line, *field, partition, record);
                }
                line.push(b'\n');
                self.out.bytes(&line)?;
            }
        }
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(1);
        }
        Ok(())
    }
}

fn put_text(line: &mut Vec<u8>, field: Field, partition: i32, record: &RecordRef<'_>) {
    match field {
        Field::Partition => line.extend_from_slice(partition.to_string().as_bytes()),
        Field::Offset => line.extend_from_slice(record.offset.to_string().as_bytes()),
        Field::Timestamp => line.extend_from_slice(format_ms(record.timestamp).as_bytes()),
        Field::Key => line.extend_from_slice(record.key.unwrap_or(b"null")),
        Field::Value => line.extend_from_slice(record.value.unwrap_or(b"null")),
        Field::Headers => {
            for (at, (name, value)) in record.headers.enumerate() {
                line.extend_from_slice(if at == 0 { b"" } else { b"," });
                line.extend_from_slice(name);
                line.push(b'=');
                line.extend_from_slice(value.unwrap_or(b"null"));
            }
        }
    }
}

fn document(topic: &str, partition: i32, record: &RecordRef<'_>) -> Value {
    let mut object = Map::new();
    object.insert("topic".to_owned(), json!(topic));
    object.insert("partition".to_owned(), json!(partition));
    object.insert("offset".to_owned(), json!(record.offset));
    object.insert("timestamp".to_owned(), json!(record.timestamp));
    put(&mut object, "key", record.key);
    put(&mut object, "value", record.value);
    let headers = record.headers.map(|(key, value)| {
        let mut header = Map::new();
        put(&mut header, "key", Some(key));
        put(&mut header, "value", value);
        Value::Object(header)
    });
    object.insert("headers".to_owned(), headers.collect());
    Value::Object(object)
}

/// Bytes under their name if they are text (or null), else as base64 under a name that says so.
fn put(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => object.insert(name.to_owned(), Value::Null),
        Some((_, Ok(text))) => object.insert(name.to_owned(), json!(text)),
        Some((bytes, Err(_))) => object.insert(format!("{name}_base64"), json!(base64(bytes))),
    };
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use penstock_format::{BatchBuilder, NewRecord, Records};

    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_told_apart_from_text() {
        let mut batch = BatchBuilder::new();
        let headers: &[(&str, Option<&[u8]>)] = &[("h", None), ("h", Some(b"\xff"))];
        let record = NewRecord { timestamp: 5, key: Some(b"\xff\xfe"), value: Some(b"text"), headers };
        batch.append(&record).unwrap();
        let batch = batch.finish().unwrap();
        let records = Records::open(&batch, 100).unwrap();
        let record = records.iter().next().unwrap().unwrap();
        let expected = json!({
            "topic": "t", "partition": 2, "offset": 0, "timestamp": 5, "key_base64": "//4=", "value": "text",
            "headers": [{ "key": "h", "value": null }, { "key": "h", "value_base64": "/w==" }],
        });
        assert_eq!(document("t", 2, &record), expected);
        let mut line = Vec::new();
        for field in Field::value_variants() {
            put_text(&mut line, *field, 2, &record);
            line.push(b'|');
        }
        assert_eq!(line, b"2|0|1970-01-01T00:00:00.005Z|\xff\xfe|h=null,h=\xff|text|");
    }
}
