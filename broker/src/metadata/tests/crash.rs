//! Crashes at random steps: while commands are written, while snapshots are, and while the next start recovers. No
//! acknowledged change is lost, and none is half there.

use std::cell::RefCell;
use std::rc::Rc;

use penstock_storage::disk::sim::{Crash, Effect, Fault, Operation};

use super::*;

/// Runs, hence crashes, of one seed.
const LIVES: u64 = 12;
const RECORD_BYTES: u64 = 700;

/// What a crash may leave: what was acknowledged, and perhaps the command under way.
struct Oracle {
    acknowledged: MetadataMachine,
    asked: Vec<MetadataRecord>,
}

impl Oracle {
    /// Goes on from what a start found, if it is one of the two.
    fn settle(&mut self, found: &MetadataMachine) -> Result<(), String> {
        let expected = content(self.acknowledged.image());
        let mut with_asked = self.acknowledged.clone();
        self.asked.drain(..).for_each(|record| with_asked.replay(&record).unwrap());
        let found_content = content(found.image());
        if found_content != expected && found_content != content(with_asked.image()) {
            return Err(format!("found {found_content:?}, acknowledged {expected:?}"));
        }
        self.acknowledged = found.clone();
        Ok(())
    }
}

/// One run up to its crash: starts, checks what it finds, and changes it.
async fn live(world: SimWorld, oracle: Rc<RefCell<Oracle>>) -> Result<(), String> {
    let node = Node::start(world.disk(), RECORD_BYTES).await.map_err(|error| error.to_string())?;
    oracle.borrow_mut().settle(&node.machine)?;
    let node = Rc::new(Running { machine: RefCell::new(node.machine), log: node.log });
    for _ in 0..60 {
        let name = format!("t{}", world.random(6));
        let command = match world.random(3) {
            0 => delete(&name),
            1 => Command::AllocateProducerIds,
            _ => create(&name, 1 + world.random(3) as i32),
        };
        let records = decide(&node.machine.borrow(), &command);
        if records.is_empty() {
            continue;
        }
        oracle.borrow_mut().asked.clone_from(&records);
        let batch = super::super::log::batch(&records, 0).map_err(|error| error.to_string())?;
        node.log.write(batch, 0).await.map_err(|error| error.to_string())?;
        for machine in [&mut *node.machine.borrow_mut(), &mut oracle.borrow_mut().acknowledged] {
            records.iter().for_each(|record| machine.replay(record).unwrap());
        }
        oracle.borrow_mut().asked.clear();
        // Beside the commands that follow, as the driver does it.
        if let Some(due) = node.log.due_snapshot(0) {
            let encoded = encode_snapshot(node.machine.borrow().image(), due.offset, due.now_ms).unwrap();
            let node = node.clone();
            world.spawn(async move { node.log.finish_snapshot(due, Ok(encoded)).await });
        }
    }
    Ok(())
}

/// What the tasks of one run share.
struct Running {
    machine: RefCell<MetadataMachine>,
    log: MetadataLog<SimDisk>,
}

/// Runs the lives of one seed. `spoil` may plant faults into each new world.
fn run_seed(seed: u64, spoil: &dyn Fn(&SimWorld)) -> Result<(), String> {
    let mut world = world(seed);
    let acknowledged = empty_machine(RECORD_BYTES);
    let oracle = Rc::new(RefCell::new(Oracle { acknowledged, asked: Vec::new() }));
    for life in 0..=LIVES {
        // The last one is only opened and checked, with nothing to stop it.
        let limit = if life == LIVES { u64::MAX } else { 1 << (4 + world.random(9)) };
        spoil(&world);
        let lived = world.block_on_until(limit, live(world.clone(), oracle.clone()));
        lived.unwrap_or(Ok(())).map_err(|what| format!("seed {seed}, life {life}: {what}"))?;
        let crash = if world.random(4) == 0 { Crash::Kill } else { Crash::PowerLoss };
        world = world.crash(crash);
    }
    Ok(())
}

#[test]
fn no_acknowledged_change_is_lost() {
    for seed in 0..250 {
        run_seed(seed, &|_| {}).unwrap();
    }
}

/// Seeds of 40 in which a planted fault is found.
fn found(operation: Operation, path_contains: &'static str) -> usize {
    let spoil = |world: &SimWorld| {
        world.inject(Fault {
            operation,
            path_contains: path_contains.into(),
            skip: 0,
            times: u64::MAX,
            effect: Effect::Ignore,
        });
    };
    (0..40).filter(|seed| run_seed(*seed, &spoil).is_err()).count()
}

#[test]
fn a_skipped_flush_of_snapshots_is_found() {
    assert!(found(Operation::Sync, ".snapshot") > 0);
}

#[test]
fn a_skipped_flush_of_their_directory_is_found() {
    assert!(found(Operation::SyncDir, "/metadata") > 0);
}
