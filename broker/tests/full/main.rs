//! The real broker on a disk of its own that fills up. It needs a file system of a set size: an image is made with
//! `mkfs.ext4` and mounted over a loop device, which needs root. Where that cannot be had the tests are counted as ignored
//! and the reason is printed, whatever `CI` says: containers seldom may mount.
//!
//! All of it runs in namespaces of its own for mounts and processes, so that even SIGKILL leaves neither behind.

#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, reason = "a test and its runner")]
#![allow(dead_code, reason = "broker and client of the other tests have more than is needed here")]

#[path = "../serve/broker.rs"]
mod broker;
#[path = "../serve/client.rs"]
mod client;
mod fill;
mod selection;
mod volume;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

use selection::Selection;
use volume::Volume;

type Test = fn(&Path);

const TESTS: [(&str, Test); 1] =
    [("a_full_disk_refuses_producers_alone_and_loses_nothing", fill::refuses_and_resumes)];

/// What the test runner of the standard library does, and an answer for what cannot run here.
fn main() -> ExitCode {
    let selection = Selection::of(std::env::args().skip(1));
    let chosen: Vec<_> = TESTS.iter().filter(|(name, _)| selection.has(name)).collect();
    if selection.list {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let refusal = volume::enter_namespaces().err();
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    for (name, test) in &chosen {
        let volume = match refusal.clone().map_or_else(Volume::mount, Err) {
            Ok(volume) => volume,
            Err(reason) => {
                println!("test {name} ... ignored: {reason}");
                ignored += 1;
                continue;
            }
        };
        match catch_unwind(AssertUnwindSafe(|| test(volume.path()))) {
            Ok(()) => {
                println!("test {name} ... ok");
                passed += 1;
            }
            Err(_) => {
                println!("test {name} ... FAILED");
                failed += 1;
            }
        }
    }
    let (verdict, others) = (if failed == 0 { "ok" } else { "FAILED" }, TESTS.len() - chosen.len());
    println!(
        "test result: {verdict}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; \
         {others} filtered out"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
