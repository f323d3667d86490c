//! One bit of the files of a store is flipped while nobody has it open. What the next start then gives is what was
//! acknowledged, or it says what is lost: never a wrong record, a missing one, a panic, an endless wait. The offline check
//! finds whatever is lost, and nothing where nothing is.
//!
//! By default a seeded sample, most of it where bytes mean something. `PENSTOCK_FLIPS=all` flips every bit of each byte
//! that is not 0 or near one that is not, which takes half an hour of one core.

pub(super) mod image;
mod verdict;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use super::*;
use image::{Image, Left, image};
use verdict::{Verdict, judge};

/// Steps that a start and all reads take at most; more is an endless wait.
const STEPS_MAX: u64 = 2_000_000;

/// A bit of a file.
#[derive(Debug, Clone)]
struct Flip {
    path: PathBuf,
    at: usize,
    bit: u8,
}

/// The bits to be flipped: of bytes that are not 0 or near one that is not, some; of the rest, few.
fn flips(files: &BTreeMap<PathBuf, Bytes>) -> Vec<Flip> {
    let all = std::env::var("PENSTOCK_FLIPS").is_ok_and(|wanted| wanted == "all");
    let mut random = oorandom::Rand64::new(9);
    let mut flips = Vec::new();
    for (path, content) in files {
        for at in 0..content.len() {
            let near = &content[at.saturating_sub(8)..content.len().min(at + 9)];
            // Bodies of large batches are alike.
            let usual = match near.iter().any(|byte| *byte != 0) {
                true if all => 1,
                true if at % 4096 > 1024 => 500,
                true => 30,
                false => 8000,
            };
            for bit in 0..8 {
                if random.rand_range(0..usual) == 0 {
                    flips.push(Flip { path: path.clone(), at, bit });
                }
            }
        }
    }
    // `PENSTOCK_FLIPS_PART=i/n`: the part `i` of `n`, from 0.
    let part = std::env::var("PENSTOCK_FLIPS_PART").ok();
    if let Some((index, count)) = part.as_ref().and_then(|part| part.split_once('/')) {
        let (index, count) = (index.parse::<usize>().unwrap(), count.parse::<usize>().unwrap());
        flips = flips.into_iter().skip(index).step_by(count).collect();
    }
    flips
}

fn flipped(image: &Image, flip: &Flip) -> Image {
    let mut image = image.clone();
    let content = image.files.get_mut(&flip.path).unwrap();
    let mut bytes = content.to_vec();
    bytes[flip.at] ^= 1 << flip.bit;
    *content = bytes.into();
    image
}

/// What kind of file it is, for the tally.
fn kind(path: &Path) -> String {
    let ending = path.extension().map(|ending| ending.to_string_lossy().into_owned());
    ending.unwrap_or_else(|| path.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// Whether a batch's base offset is made another that lies in a gap beside the batch, where it may as well be. Nothing on
/// disk tells; only logs with gaps have such.
fn is_within_gap(image: &Image, flip: &Flip) -> bool {
    let name = flip.path.parent().and_then(Path::file_name).unwrap_or_default();
    let Some(truth) = image.logs.get(&*name.to_string_lossy()) else { return false };
    let content = &image.files[&flip.path];
    let mut due = 0;
    let bases = truth.batches.keys().copied().chain([truth.end]);
    truth.batches.values().zip(bases.skip(1)).any(|(batch, next_base)| {
        let (before, base) = (due, batch.header.base_offset);
        due = batch.header.next_offset();
        let room = before..=next_base - (due - base);
        let head = batch.header.to_array();
        let at = content.windows(head.len()).position(|window| window == head);
        let Some(byte) = at.and_then(|at| flip.at.checked_sub(at)).filter(|byte| *byte < 8) else {
            return false;
        };
        let flipped = base ^ (1 << (8 * (7 - byte) + usize::from(flip.bit)));
        room.contains(&flipped)
    })
}

/// Flips every bit in turn; gives how often which verdict came for which kind of file.
fn run(left: Left) -> BTreeMap<(String, &'static str), u64> {
    let image = image(left);
    let mut tally = BTreeMap::new();
    let mut wrong = Vec::new();
    for flip in flips(&image.files) {
        let bad = flipped(&image, &flip);
        let judged = catch_unwind(AssertUnwindSafe(|| judge(&bad, left, STEPS_MAX)));
        let verdict = match judged {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(_)) if is_within_gap(&image, &flip) => {
                *tally.entry((kind(&flip.path), "hidden")).or_default() += 1;
                continue;
            }
            Ok(Err(why)) => {
                wrong.push(format!("{flip:?}: {why}"));
                continue;
            }
            Err(_) => {
                wrong.push(format!("{flip:?}: it panics"));
                continue;
            }
        };
        if let Verdict::Refused(sentence) = &verdict
            && !sentence.contains(flip.path.file_name().unwrap().to_str().unwrap())
        {
            wrong.push(format!("{flip:?}: refused, but the file is not named: {sentence}"));
        }
        if let Err(why) = verdict::check(&bad, &flip.path, &verdict) {
            wrong.push(format!("{flip:?}: {}: {why}", verdict.name()));
        }
        *tally.entry((kind(&flip.path), verdict.name())).or_default() += 1;
    }
    let count = wrong.len();
    assert!(count == 0, "{left:?}: {count} flips go wrong; {tally:?}\n{}", wrong.join("\n"));
    tally
}

#[test]
fn after_a_close_no_flipped_bit_goes_unnoticed() {
    let tally = run(Left::Closed);
    assert_eq!(tally.get(&("checkpoint".to_owned(), "refused")), None, "{tally:?}");
    assert!(tally[&("log".to_owned(), "lost")] > 300, "{tally:?}");
}

#[test]
fn after_a_kill_no_flipped_bit_goes_unnoticed() {
    let tally = run(Left::Killed);
    assert!(tally[&("journal".to_owned(), "lost")] > 30, "{tally:?}");
}

#[test]
fn a_flipped_bit_takes_no_more_than_the_last_frame_where_nothing_vouches_for_it() {
    run(Left::Torn);
}
