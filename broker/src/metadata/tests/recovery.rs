//! What a start makes of snapshots that are damaged, missing or not its own, and how much there is of everything.

use super::*;

const RECORD_BYTES: u64 = 2_000;

/// A node with three snapshots behind it, ended in an orderly way; gives its content and the names of its snapshots.
async fn history(disk: &SimDisk) -> (Vec<MetadataRecord>, Vec<String>) {
    let mut node = Node::start(disk.clone(), RECORD_BYTES).await.unwrap();
    let mut taken = 0;
    for number in 0.. {
        node.run(&create(&format!("kept-{number}"), 2)).await;
        node.run(&create("passing", 1)).await;
        node.run(&delete("passing")).await;
        taken += u64::from(node.snapshot().await);
        if taken == 3 {
            break;
        }
    }
    node.run(&create("last", 3)).await;
    let found = (content(node.machine.image()), node.snapshots().await);
    node.store.close().await.unwrap();
    found
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new(DATA_DIR).join("metadata").join(format!("{name:0>29}"))
}

/// Replaces a snapshot by one with another last byte.
async fn damage(disk: &SimDisk, name: &str) {
    let mut bytes = disk.read_small(&path(name), 1 << 20).await.unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    disk.write_small(&path(name), bytes.into()).await.unwrap();
}

async fn restart(disk: &SimDisk) -> Result<Node, OpenMetadataError> {
    Node::start(disk.clone(), RECORD_BYTES).await
}

#[test]
fn two_snapshots_are_kept_and_either_leads_to_the_same() {
    let world = world(1);
    let disk = world.disk();
    world.block_on(async move {
        let (expected, names) = history(&disk).await;
        assert_eq!(names.len(), 2, "{names:?}");
        let node = restart(&disk).await.unwrap();
        assert_eq!(content(node.machine.image()), expected);
        let short = node.log.replay_bytes();
        assert!(short > 0 && short < RECORD_BYTES, "{short}");
        node.store.close().await.unwrap();

        damage(&disk, &names[1]).await;
        let node = restart(&disk).await.unwrap();
        assert_eq!(content(node.machine.image()), expected);
        assert!(node.log.replay_bytes() > short + RECORD_BYTES, "the older one, and more of the log");
        // The next snapshot keeps the one that was of use.
        assert!(node.snapshot().await);
        let after = node.snapshots().await;
        assert_eq!((after.len(), &after[0]), (2, &names[0]));
        node.store.close().await.unwrap();
    });
}

#[test]
fn a_damaged_snapshot_is_never_the_one_to_fall_back_to() {
    let world = world(2);
    let disk = world.disk();
    world.block_on(async move {
        let (_, names) = history(&disk).await;
        let mut node = restart(&disk).await.unwrap();
        damage(&disk, &names[1]).await;
        while !node.snapshot().await {
            node.run(&Command::AllocateProducerIds).await;
        }
        let after = node.snapshots().await;
        assert_eq!((after.len(), &after[0]), (2, &names[0]), "damaged after the start");
        let expected = content(node.machine.image());
        node.store.close().await.unwrap();
        damage(&disk, &after[1]).await;
        assert_eq!(content(restart(&disk).await.unwrap().machine.image()), expected);
    });
}

#[test]
fn without_a_sound_snapshot_it_refuses_and_says_what_to_do() {
    let world = world(3);
    let disk = world.disk();
    world.block_on(async move {
        let (_, names) = history(&disk).await;
        for name in &names {
            damage(&disk, name).await;
        }
        let refused = restart(&disk).await.err().unwrap();
        assert!(matches!(refused, OpenMetadataError::NoSnapshot { start, .. } if start > 0), "{refused}");
        assert!(refused.to_string().contains("restore the data directory from a backup"), "{refused}");
    });
}

#[test]
fn a_directory_from_before_there_were_snapshots_opens() {
    let world = world(4);
    let disk = world.disk();
    world.block_on(async move {
        // Bounds so far off that no snapshot is taken.
        let mut node = Node::start(disk.clone(), 1 << 40).await.unwrap();
        for number in 0..100 {
            node.run(&create(&format!("old-{number}"), 1)).await;
        }
        assert!(!node.snapshot().await);
        let expected = content(node.machine.image());
        node.store.close().await.unwrap();
        disk.remove_dir_all(&Path::new(DATA_DIR).join("metadata")).await.unwrap();
        let node = restart(&disk).await.unwrap();
        assert_eq!(content(node.machine.image()), expected);
        assert!(node.snapshot().await);
        node.store.close().await.unwrap();
        // The log is all there still: its first snapshot is not needed.
        damage(&disk, &node.snapshots().await[0]).await;
        assert_eq!(content(restart(&disk).await.unwrap().machine.image()), expected);
    });
}

#[test]
fn snapshots_of_the_future_and_of_another_log_are_refused() {
    let world = world(5);
    let disk = world.disk();
    world.block_on(async move {
        let (_, names) = history(&disk).await;
        let ahead = encode_snapshot(empty_machine(1).image(), 1_000_000, 0).unwrap();
        disk.write_small(&path("1000000.snapshot"), ahead.clone().into()).await.unwrap();
        let refused = restart(&disk).await.err().unwrap();
        assert!(matches!(refused, OpenMetadataError::SnapshotAhead(1_000_000, _)), "{refused}");
        // Under a name that is not its own it is damaged.
        disk.remove(&path("1000000.snapshot")).await.unwrap();
        disk.write_small(&path(&names[1]), ahead.clone().into()).await.unwrap();
        drop(restart(&disk).await.unwrap());

        let mut newer = ahead[..40].to_vec();
        newer[4] = 2;
        newer.extend_from_slice(&crc32c_of(&newer).to_le_bytes());
        disk.write_small(&path(&names[1]), newer.into()).await.unwrap();
        let refused = restart(&disk).await.err().unwrap();
        assert!(matches!(refused, OpenMetadataError::NewerSnapshot(..)), "{refused}");
    });
}

/// CRC-32C, bit by bit.
fn crc32c_of(bytes: &[u8]) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ (0x82f6_3b78 & 0u32.wrapping_sub(crc & 1));
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc));
    !bytes.iter().fold(!0, byte)
}

#[test]
fn thousands_of_topics_that_come_and_go_leave_no_more_than_few() {
    const BETWEEN: u64 = 32 << 10;
    let world = world(6);
    let disk = world.disk();
    world.block_on(async move {
        let mut node = Node::start(disk.clone(), BETWEEN).await.unwrap();
        let (mut written, mut largest) = (0, 0);
        for number in 0..4_000 {
            let before = node.log.replay_bytes();
            node.run(&create(&format!("topic-{number}"), 3)).await;
            node.run(&delete(&format!("topic-{number}"))).await;
            written += node.log.replay_bytes() - before;
            largest = largest.max(node.log.replay_bytes());
            node.snapshot().await;
        }
        assert!(written > 40 * BETWEEN, "{written} bytes are enough to tell");
        assert!(largest < BETWEEN + 2_000, "{largest} bytes to replay");
        // Two intervals, the segment before them, and what the newest segment's file has ready.
        let bytes = log_bytes(&disk).await;
        assert!(bytes < 2 * BETWEEN + 4 * u64::try_from(16 << 10).unwrap() + BETWEEN, "{bytes} bytes of log");
        assert_eq!(node.snapshots().await.len(), 2);
        node.store.close().await.unwrap();
        let node = Node::start(disk.clone(), BETWEEN).await.unwrap();
        assert_eq!(content(node.machine.image()), []);
        assert!(node.log.replay_bytes() < BETWEEN);
    });
}
