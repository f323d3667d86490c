//! Files of a newer version are refused by name and version, by whoever meets them: a start, the offline check, the views.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::flips::image::{Image, Left, image, tiny};
use super::*;
use crate::bytes_io::crc_around;
use crate::checkpoint::{self, Checkpoint, Encoder};
use crate::checkpoint_file::{checkpoint_path, copy_path};
use crate::disk::BLOCK;
use crate::offline::{OpenFault, check_store, view};
use crate::{OpenError, ReadError, Resharding, reshard, reshard_plan_path};

const NEWER: u16 = 99;

/// The newer version under a right crc, which is the last four bytes of `content`.
fn renew(content: &mut [u8]) {
    content[4..6].copy_from_slice(&NEWER.to_le_bytes());
    let at = content.len() - 4;
    let crc = crc32c::crc32c(&content[..at]);
    content[at..].copy_from_slice(&crc.to_le_bytes());
}

fn change(image: &mut Image, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = image.files[path].to_vec();
    change(&mut bytes);
    image.files.insert(path.to_owned(), bytes.into());
}

fn start(image: &Image) -> Result<Store<SimDisk>, OpenError> {
    let world = SimWorld::with_files(2, &image.files);
    let disk = world.disk();
    world.block_on(async move { Store::open(disk, Path::new(DIR), tiny(), 0).await.map(|(store, _)| store) })
}

/// A start and the check refuse, naming file and version.
fn refused(image: &Image, path: &Path) {
    let name = path.display().to_string();
    let said = start(image).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(said.contains(&name) && said.contains("version 99") && said.contains("reads up to "), "{said}");
    let fault = check_store(image, Path::new(DIR)).unwrap_err();
    assert!(matches!(fault, OpenFault::NewerVersion { version: NEWER, .. }), "{fault}");
    assert!(fault.to_string().contains(&name), "{fault}");
}

fn is_newer<T>(seen: Result<T, OpenFault>) -> bool {
    matches!(seen, Err(OpenFault::NewerVersion { version: NEWER, .. }))
}

#[test]
fn a_checkpoint() {
    let mut image = image(Left::Closed);
    let path = checkpoint_path(Path::new(DIR));
    change(&mut image, &path, |bytes| renew(bytes));
    refused(&image, &path);
    assert!(is_newer(view::checkpoint(&image, &path)));
    // The copy is not asked where the checkpoint is sound and newer; it is where there is no other.
    let newer = image.files.remove(&path).unwrap();
    image.files.insert(copy_path(Path::new(DIR)), newer);
    refused(&image, &copy_path(Path::new(DIR)));
}

#[test]
fn producers_in_a_checkpoint() {
    let mut image = image(Left::Closed);
    for path in [checkpoint_path(Path::new(DIR)), copy_path(Path::new(DIR))] {
        change(&mut image, &path, |bytes| {
            let Checkpoint { redo, mut logs, runs } = checkpoint::decode(bytes).unwrap();
            let mut encoder = Encoder::new();
            for log in &mut logs {
                if !log.producers.is_empty() {
                    log.producers[4..6].copy_from_slice(&NEWER.to_le_bytes());
                    let crc = crc_around(&log.producers, 20);
                    log.producers[20..24].copy_from_slice(&crc.to_le_bytes());
                }
                encoder.log(log);
            }
            *bytes = encoder.finish(&redo, &runs);
        });
    }
    let said = start(&image).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(said.contains("checkpoint: producers of log many") && said.contains("version 99"), "{said}");
    let report = check_store(&image, Path::new(DIR)).unwrap();
    assert!(report.findings.iter().any(|finding| finding.what.contains("version 99")), "{report:?}");
}

#[test]
fn a_journal_frame() {
    let mut image = image(Left::Killed);
    let checkpoint = view::checkpoint(&image, &checkpoint_path(Path::new(DIR))).unwrap();
    let number = checkpoint.redo_file % u64::from(checkpoint.journal_files);
    let path = Path::new(DIR).join(format!("journal/{number:04}.journal"));
    let at = checkpoint.redo_position as usize;
    change(&mut image, &path, |bytes| {
        let frame = &mut bytes[at..];
        frame[4..6].copy_from_slice(&NEWER.to_le_bytes());
        let meta_len = u32::from_le_bytes(*frame[36..].first_chunk().unwrap()) as usize;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&frame[..44]), &frame[48..meta_len]);
        frame[44..48].copy_from_slice(&crc.to_le_bytes());
    });
    refused(&image, &path);
    assert!(is_newer(view::frames(&image, &path, |_| Ok::<_, OpenFault>(()))));
}

/// Files of a log with this ending.
fn files_of(files: &BTreeMap<PathBuf, Bytes>, log: &str, ending: &str) -> Vec<PathBuf> {
    let dir = Path::new(DIR).join("logs").join(log);
    let of =
        |path: &&PathBuf| path.starts_with(&dir) && path.extension().is_some_and(|found| found == ending);
    files.keys().filter(of).cloned().collect()
}

#[test]
fn a_segment_header_takes_its_own_records_away() {
    let mut image = image(Left::Closed);
    let path = files_of(&image.files, "many", "log").swap_remove(0);
    change(&mut image, &path, |bytes| renew(&mut bytes[..BLOCK]));
    assert!(is_newer(view::segment_header(&image, &path)));
    let report = check_store(&image, Path::new(DIR)).unwrap();
    assert_eq!(report.findings.len(), 1, "{report:?}");
    assert_eq!(report.findings[0].file.as_deref(), Some(path.as_path()));
    assert!(report.findings[0].what.contains("version 99"), "{report:?}");
    let world = SimWorld::with_files(2, &image.files);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk, tiny()).await;
        let refused = store.log("many").unwrap().read(0, 1, i64::MAX, true).await.unwrap_err();
        let ReadError::Io(said) = refused else { panic!("{refused}") };
        assert!(said.contains("log many, segment 0") && said.contains("version 99"), "{said}");
        assert!(said.contains("reads up to "), "{said}");
        assert_eq!(read_all(&store.log("gaps").unwrap()).await.len(), 5);
    });
}

#[test]
fn an_index_is_made_again() {
    let mut image = image(Left::Closed);
    let path = files_of(&image.files, "many", "index").swap_remove(0);
    change(&mut image, &path, |bytes| {
        bytes[4..6].copy_from_slice(&NEWER.to_le_bytes());
        let crc = crc_around(bytes, 44);
        bytes[44..48].copy_from_slice(&crc.to_le_bytes());
    });
    let said = view::index(&image, &path).unwrap_err().to_string();
    assert!(said.contains("version 99"), "{said}");
    let report = check_store(&image, Path::new(DIR)).unwrap();
    assert!(report.findings[0].what.contains("version 99"), "{report:?}");
    let truth = image.logs["many"].batches.len();
    let world = SimWorld::with_files(2, &image.files);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk, tiny()).await;
        assert_eq!(read_all(&store.log("many").unwrap()).await.len(), truth);
    });
}

#[test]
fn a_reshard_plan() {
    let mut plan = b"PSRP\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    renew(&mut plan);
    let data_dir = Path::new("/data");
    let files = BTreeMap::from([(reshard_plan_path(data_dir), Bytes::from(plan))]);
    let world = SimWorld::with_files(2, &files);
    let disk = world.disk();
    let refused = world.block_on(async move {
        let resharding = Resharding { to: 1, assign: &|_, shard| shard };
        reshard(&disk, data_dir, &tiny(), &resharding, 0).await.unwrap_err()
    });
    let said = refused.to_string();
    assert!(said.contains("/data/reshard.plan has format version 99"), "{said}");
}
