//! Keys: what a record is about.

use bytes::Bytes;
use penstock_protocol::WireString;

use super::wire::{Reader, Writer};
use super::{OffsetKey, RecordError};

const OFFSET_OLD: i16 = 0;
const OFFSET: i16 = 1;
const GROUP: i16 = 2;

pub(super) enum Key {
    Offset(OffsetKey),
    Group(WireString),
}

pub(super) fn encode_offset(key: &OffsetKey) -> Bytes {
    let mut writer = Writer::new(OFFSET, false);
    writer.string(&key.group);
    writer.string(&key.topic);
    writer.i32(key.partition);
    writer.finish()
}

pub(super) fn encode_group(group: &str) -> Bytes {
    let mut writer = Writer::new(GROUP, false);
    writer.string(group);
    writer.finish()
}

/// Reads a key; `None` is of another kind.
pub(super) fn decode(key: &Bytes) -> Result<Option<Key>, RecordError> {
    let mut reader = Reader::new(key);
    Ok(match reader.i16()? {
        OFFSET_OLD | OFFSET => {
            let group = reader.string()?;
            let topic = reader.string()?;
            Some(Key::Offset(OffsetKey { group, topic, partition: reader.i32()? }))
        }
        GROUP => Some(Key::Group(reader.string()?)),
        _ => None,
    })
}
