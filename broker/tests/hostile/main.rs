//! Hostile peers against the running broker: damaged frames of every API and version, requests that are announced and not
//! sent, and large requests that leave little behind, beside a client that behaves.
//!
//! The broker must not crash, must keep answering the client that behaves, must stay within its memory, and must
//! end cleanly on SIGTERM. In the environment:
//!
//! - `PENSTOCK_BIN`: the binary (default: the one of this build);
//! - `PENSTOCK_HOSTILE_FRAMES`: damaged frames to send (default 20,000; CI sends 1,000,000);
//! - `PENSTOCK_HOSTILE_SHARDS`: shards of the broker (default 2);
//! - `PENSTOCK_HOSTILE_RSS_MIB`: the most memory that the broker may ever hold (default 256).

#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test fails by panicking, and tells what it saw

mod attack;
mod broker;
mod hold;
mod mutants;
mod neighbour;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use broker::Broker;
use hold::Holders;
use mutants::Mutants;
use neighbour::Neighbour;

/// Attacking connections at a time.
const ATTACKERS: u64 = 4;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[test]
fn damaged_frames_harm_nobody_else() {
    let frames = setting("PENSTOCK_HOSTILE_FRAMES", 20_000);
    let rss_max = setting("PENSTOCK_HOSTILE_RSS_MIB", 256) << 20;
    let mut broker = Broker::start(setting("PENSTOCK_HOSTILE_SHARDS", 2));
    let address = broker.kafka;

    let mut neighbour = Neighbour::connect(address);
    let served = neighbour.served();
    let sockets = broker.sockets();
    let stop = AtomicBool::new(false);
    let sent = AtomicU64::new(0);
    let report = thread::scope(|scope| {
        let polite = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                neighbour.round();
            }
            // One round more, after the last damaged frame.
            neighbour.round();
            neighbour.report()
        });
        let attack = |seed| {
            let mutants = Mutants::new(seed, &served);
            let sent = &sent;
            scope.spawn(move || attack::run(address, mutants, frames / ATTACKERS, sent))
        };
        let attackers: Vec<_> = (0..ATTACKERS).map(attack).collect();
        let watched = watch(&mut broker, rss_max, || attackers.iter().all(|attacker| attacker.is_finished()));
        stop.store(true, Ordering::Relaxed);
        let outcomes: Vec<_> = attackers.into_iter().map(|attacker| attacker.join().unwrap()).collect();
        watched.unwrap();
        (polite.join().unwrap(), outcomes)
    });

    let (rounds, outcomes) = report;
    let connections: u64 = outcomes.iter().map(|outcome| outcome.connections).sum();
    let answered: u64 = outcomes.iter().map(|outcome| outcome.bytes_answered).sum();
    let answers = broker.metric("penstock_request_seconds_count{");
    let (rss, peak) = broker.memory().unwrap();
    eprintln!(
        "{} damaged frames over {connections} connections ({answers} requests answered, {answered} bytes read); beside them {} rounds of a client \
         that behaves, the slowest {} ms; resident memory {} MiB, at most {} MiB",
        sent.load(Ordering::Relaxed),
        rounds.rounds,
        rounds.slowest.as_millis(),
        rss >> 20,
        peak >> 20,
    );
    assert!(peak <= rss_max, "{peak} bytes resident at the peak");
    assert_nothing_is_kept(&broker, sockets);
    drop(neighbour);
    broker.terminate();
}

/// Peers that announce requests of every length and do not send them, beside a client that behaves: it is served while all of
/// them are still there, so that it did not wait for one to be given up.
#[test]
fn peers_that_hold_keep_nobody_waiting() {
    let broker = Broker::start(1);
    let mut neighbour = Neighbour::connect(broker.kafka);
    let mut holders = Holders::default();
    // Once more where the broker gave up on some of them meanwhile: this machine was busy.
    for _ in 0..5 {
        holders.hold(&broker);
        neighbour.round();
        neighbour.round_within(300_000);
        if holders.all_held() {
            drop(holders);
            drop(neighbour);
            return broker.terminate();
        }
    }
    panic!("the client that behaves is served only once others are given up");
}

/// Small batches within large requests, hundreds of them: what the log keeps of each must not be the whole.
#[test]
fn small_batches_keep_no_large_requests() {
    let rss_max = setting("PENSTOCK_HOSTILE_RSS_MIB", 256) << 20;
    let broker = Broker::start(1);
    let mut neighbour = Neighbour::connect(broker.kafka);
    for _ in 0..400 {
        neighbour.round_within(1 << 20);
    }
    let (_, peak) = broker.memory().unwrap();
    assert!(peak <= rss_max, "{peak} bytes resident at the peak");
    drop(neighbour);
    broker.terminate();
}

/// Connections that ended leave nothing behind: no socket, no share of the bytes in flight.
fn assert_nothing_is_kept(broker: &Broker, sockets_before: usize) {
    let since = Instant::now();
    loop {
        let (sockets, bytes) = (broker.sockets(), broker.metric("penstock_request_bytes{"));
        if sockets <= sockets_before && bytes == 0.0 {
            return;
        }
        let left = format!("{sockets} sockets, {sockets_before} before; {bytes} bytes of requests in flight");
        assert!(since.elapsed() < broker::PATIENCE, "left behind: {left}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Looks after the broker until `done`: it must live, within its memory.
fn watch(broker: &mut Broker, rss_max: u64, done: impl Fn() -> bool) -> Result<(), String> {
    while !done() {
        broker.assert_alive()?;
        let (rss, _) = broker.memory()?;
        if rss > rss_max {
            broker.kill();
            return Err(format!("{rss} bytes resident"));
        }
        thread::sleep(Duration::from_millis(100));
    }
    broker.assert_alive()
}
