use proptest::prelude::*;

use super::*;

fn sample() -> (FrameHeader, Vec<Entry>) {
    let append = AppendEntry {
        log_id: 7,
        segment_base: 100,
        life: 9,
        position: 5000,
        len: 70_000,
        batch_count: 2,
        digest: 0x1234_5678,
        first_offset: 110,
        next_offset: 130,
        direct_from: 8192,
        direct_len: 65_536,
        prefix_len: 904,
        prefix_crc: 0x9abc_def0,
        inline_at: 190,
    };
    let entries = vec![
        Entry::Create { log_id: 7, name: "a-0".into() },
        Entry::Append(append),
        Entry::StartOffset { log_id: 3, offset: 40 },
        Entry::Remove { log_id: 4 },
    ];
    let meta_len = (HEADER_LEN + entries.iter().map(entry_len).sum::<usize>()) as u32;
    let len = 190 + append.inline_len() as u32;
    (FrameHeader { run: 2, seq: 33, durable_seq: 31, len, meta_len, entry_count: 4 }, entries)
}

#[test]
fn golden_bytes() {
    let (header, entries) = sample();
    let bytes = encode_meta(&header, &entries);
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let golden = include_str!("../../tests/golden/frame.hex").split_whitespace().collect::<String>();
    assert_eq!(hex, golden);
    let room = u64::from(header.len);
    assert_eq!(decode_header(&bytes, room), Some(header));
    assert_eq!(decode_header(&bytes, room - 1), None, "it cannot lie there");
    assert_eq!(decode_entries(&bytes, &header), Some(entries));
}

#[test]
fn pieces_of_a_share() {
    let (_, entries) = sample();
    let Entry::Append(append) = &entries[1] else { panic!() };
    assert_eq!((append.head(), append.direct(), append.tail()), (5000..8192, 8192..73_728, 73_728..75_000));
    assert_eq!(append.inline_len(), 904 + 3192 + 1272);
    let seam = AppendEntry { direct_from: 4096, direct_len: 69_632, prefix_len: 0, ..*append };
    assert_eq!((seam.head(), seam.tail()), (5000..5000, 73_728..75_000));
    let inline = AppendEntry { direct_from: 0, direct_len: 0, ..*append };
    assert_eq!((inline.head(), inline.tail()), (5000..75_000, 75_000..75_000));
}

#[test]
fn any_change_is_noticed() {
    let (header, entries) = sample();
    let bytes = encode_meta(&header, &entries);
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        let decoded =
            decode_header(&bad, u64::from(header.len)).and_then(|header| decode_entries(&bad, &header));
        assert!(decoded.is_none(), "byte {at}");
    }
}

proptest! {
    #[test]
    fn hostile_bytes_give_nothing_and_allocate_little(
        mut bytes in prop::collection::vec(any::<u8>(), 48..400), entry_count: u32,
    ) {
        // With a right crc, so that entries are looked at.
        let header = FrameHeader {
            run: 1, seq: 2, durable_seq: 1, len: bytes.len() as u32, meta_len: bytes.len() as u32, entry_count,
        };
        let crc = meta_crc(&bytes);
        bytes[CRC_AT..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
        if let Some(entries) = decode_entries(&bytes, &header) {
            prop_assert!(entries.len() * 9 <= bytes.len());
        }
    }
}
