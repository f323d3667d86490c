//! The bytes of a run: golden, flipped, hostile.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::spill::format::{BlockBuilder, Entry, FILE_LEN_MAX, Header, HeaderError, decode_block};

const PATH: &str = "/s/producers/0000000000000006.run";

fn golden() -> Vec<u8> {
    let mut bytes = vec![0; 4 * 4096];
    for line in include_str!("../../../tests/golden/producers-run-v1.hex").lines() {
        let (position, hex) = line.split_once(' ').unwrap();
        let position = position.parse::<usize>().unwrap();
        for (at, pair) in hex.as_bytes().chunks(2).enumerate() {
            let pair = std::str::from_utf8(pair).unwrap();
            bytes[position + at] = u8::from_str_radix(pair, 16).unwrap();
        }
    }
    bytes
}

/// What the golden file holds.
fn golden_entries() -> Vec<Entry> {
    let mut open = producer(2, 0);
    (open.epoch, open.transaction_first_offset) = (-2, Some(77));
    vec![
        Entry { key: (7, 5), first: 3, producer: producer(1, 2) },
        Entry { key: (9 << 40, 1 << 40), first: 6, producer: open },
    ]
}

#[test]
fn golden_bytes() {
    with(async |world, disk, spilled| {
        spilled.make_dir(&disk).await.unwrap();
        let mut writer = RunWriter::begin(&disk, PATH.into(), 6, 2).await.unwrap();
        for entry in golden_entries() {
            assert!(!writer.push(entry.key, entry.first, &entry.producer));
        }
        writer.finish().await.unwrap();
        assert!(world.files()[Path::new(PATH)] == golden());
    });
}

/// What a run of these bytes says of the golden entries; `None` for what it calls damaged.
fn read(bytes: Vec<u8>) -> Result<Vec<Option<Option<Entry>>>, OpenError> {
    let record = RunRecord { number: 6, len: bytes.len() as u64, producers: 2 };
    let files = BTreeMap::from([(PathBuf::from(PATH), Bytes::from(bytes))]);
    let world = SimWorld::with_files(1, &files);
    let disk = world.disk();
    world.block_on(async move {
        let spilled = Spilled::new(Path::new(DIR));
        if !spilled.open(&disk, &[record]).await?.is_empty() {
            return Ok(vec![None; 4]);
        }
        let mut found = Vec::new();
        for key in golden_entries().iter().map(|entry| entry.key) {
            let entry = |(first, producer)| Entry { key, first, producer };
            found.push(spilled.find(&disk, key).await.ok().map(|found| found.map(entry)));
        }
        for (log, _) in golden_entries().iter().map(|entry| entry.key) {
            let all = spilled.all_of(&disk, log).await.ok();
            let entry = |(first, id, producer)| Entry { key: (log, id), first, producer };
            found.push(all.map(|all| all.into_iter().next().map(entry)));
        }
        Ok(found)
    })
}

#[test]
fn every_flipped_bit_is_noticed() {
    let sound = golden();
    let intact: Vec<_> =
        [golden_entries(), golden_entries()].concat().into_iter().map(Some).map(Some).collect();
    assert_eq!(read(sound.clone()).unwrap(), intact);
    for at in 0..sound.len() {
        // One bit of the zeros that fill the blocks up.
        let all = sound[at.saturating_sub(8)..sound.len().min(at + 8)].iter().any(|byte| *byte != 0);
        for bit in if all { 0..8 } else { at % 8..at % 8 + 1 } {
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << bit;
            assert_eq!(read(bytes).unwrap(), vec![None; 4], "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn a_file_cut_short_or_of_another_run_is_refused() {
    let sound = golden();
    for len in [0, 4096, 8192, 12_288] {
        assert_eq!(read(sound[..len].to_vec()).unwrap(), vec![None; 4]);
    }
    assert_eq!(read([sound.clone(), vec![0; 4096]].concat()).unwrap(), vec![None; 4]);
    let sealed = |header: Header| [header.encode(), sound[4096..].to_vec()].concat();
    let header = Header::decode(&sound[..4096], sound.len() as u64).unwrap();
    assert_eq!(sealed(header), sound);
    for other in [Header { number: 7, ..header }, Header { producers: 1, ..header }] {
        assert_eq!(read(sealed(other)).unwrap(), vec![None; 4]);
    }
}

#[test]
fn a_newer_version_is_named() {
    let mut bytes = golden();
    bytes[4] = 2;
    assert_eq!(read(bytes.clone()).unwrap(), vec![None; 4], "its crc is wrong");
    let crc = crc32c::crc32c(&bytes[..4092]);
    bytes[4092..4096].copy_from_slice(&crc.to_le_bytes());
    let error = read(bytes).unwrap_err();
    let OpenError::NewerVersion { file, found: 2, supported: 1 } = &error else { panic!("{error}") };
    assert_eq!(file, PATH);
}

#[test]
fn counts_that_the_file_cannot_hold_are_refused() {
    let sound = golden();
    let header = Header::decode(&sound[..4096], sound.len() as u64).unwrap();
    for huge in [0, 3, 79, 1 << 12, 1 << 32, 1 << 52, u64::MAX / 4096, u64::MAX] {
        for field in 0..3 {
            let mut bytes = sound[..4096].to_vec();
            // Producers, blocks, words.
            bytes[16 + 8 * field..24 + 8 * field].copy_from_slice(&u64::to_le_bytes(huge));
            let crc = crc32c::crc32c(&bytes[..4092]);
            bytes[4092..].copy_from_slice(&crc.to_le_bytes());
            let decoded = Header::decode(&bytes, sound.len() as u64);
            if (field, huge) == (0, 3) || (field, huge) == (2, 3) {
                assert!(decoded.is_ok_and(|decoded| decoded != header));
            } else {
                assert_eq!(decoded, Err(HeaderError::Damaged), "field {field}, {huge}");
            }
        }
    }
    let long = Header { blocks: FILE_LEN_MAX / 4096, producers: FILE_LEN_MAX / 4096, ..header };
    assert_eq!(Header::decode(&long.encode(), long.file_len()), Err(HeaderError::Damaged));
}

#[test]
fn a_block_of_another_place_is_damaged() {
    with(async |_, disk, spilled| {
        spilled.write(&disk, 6, &entries(1, 600, 1, 0)).await.unwrap();
        let file = disk.open(Path::new(PATH)).await.unwrap();
        let second = file.read_at(8192, 4096).await.unwrap();
        file.write_at(second.freeze(), 4096).await.unwrap();
        let damaged = FindError::Damaged(format!("{PATH}: the block at 4096 is damaged"));
        assert_eq!(spilled.find(&disk, (1, 0)).await, Err(damaged));
        // Of the same place in another run.
        spilled.write(&disk, 7, &entries(1, 600, 1, 0)).await.unwrap();
        let other = disk.open(Path::new("/s/producers/0000000000000007.run")).await.unwrap();
        let first = other.read_at(4096, 4096).await.unwrap();
        file.write_at(first.freeze(), 4096).await.unwrap();
        let again = reopened(&disk, &spilled.records()[..1]).await;
        assert!(again.find(&disk, (1, 0)).await.is_err());
    });
}

#[test]
fn a_block_tells_its_run_and_place() {
    let block = &golden()[4096..8192];
    assert_eq!(decode_block(block, 6, 0), Some(golden_entries()));
    assert_eq!(decode_block(block, 6, 1), None);
    assert_eq!(decode_block(block, 7, 0), None);
    assert_eq!(decode_block(&block[..4095], 6, 0), None);
}

#[test]
fn keys_that_the_index_does_not_say_are_damage() {
    let expected = golden_entries();
    for keys in [[(7, 4), expected[1].key], [expected[0].key, (9 << 40, 5)]] {
        let mut builder = BlockBuilder::new(6);
        keys.into_iter().for_each(|key| builder.push(key, 1, &producer(1, 2)));
        let mut bytes = golden();
        builder.finish(0, |block| bytes[4096..8192].copy_from_slice(block));
        assert_eq!(read(bytes).unwrap(), vec![None; 4]);
    }
}
