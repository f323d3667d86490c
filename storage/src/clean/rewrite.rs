//! Cleans one log: reads the keys of its dirty part, then writes its segments anew, group by group, each swapped in when
//! it is stable.
//!
//! The new segment has a life and a file of its own. It takes the place of the old ones in memory in one step, and on
//! disk with the next checkpoint: until that is stable, the old files stay, and a crash goes back to them. Nothing is
//! written to the journal: frames are only about the active segment, which is never cleaned.
//!
//! After each piece it is looked whether the log may still be cleaned. What was not swapped in by then is removed.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::pass::{Blocks, Filtering, Indexing, LastWritten, Output, StepEnd};
use super::plan::{Round, SegmentView, group};
use super::transactions::{Marker, Scan, Transactions};
use super::{key_map::KeyMap, view};
use crate::disk::{BLOCK, Disk, DiskFile};
use crate::plan::block_ceil;
use crate::prepare::{passes, write_header};
use crate::read::{Wanted, batches_of, read};
use crate::segment::{DATA_START, Segment};
use crate::state::{LogInner, StoreInner, add};

/// Pause before looking again whether what is to be cleaned is settled.
const SETTLE_PAUSE: Duration = Duration::from_millis(5);

/// Why the cleaning of a log ended early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The log, or the store, does not let itself be cleaned now.
    NotNow,
    /// There is no room for what is written anew.
    NoSpace(String),
    /// The disk failed.
    Failed(String),
    /// The log cannot be cleaned: something in it is damaged.
    Fault(String),
}

/// What a round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cleaned {
    /// Everything below is clean now.
    pub to: i64,
    pub bytes_before: u64,
    pub bytes_after: u64,
    pub dropped: u64,
}

/// The cleaning of one log.
pub(crate) struct Cleaning<'a, D: Disk> {
    pub store: &'a Rc<StoreInner<D>>,
    pub log: &'a Rc<LogInner<D>>,
    pub round: Round,
    pub now_ms: i64,
    pub delete_retention_ms: i64,
    truncations: u64,
}

impl<'a, D: Disk> Cleaning<'a, D> {
    pub(crate) fn new(
        store: &'a Rc<StoreInner<D>>,
        log: &'a Rc<LogInner<D>>,
        (round, delete_retention_ms): (Round, i64),
        now_ms: i64,
    ) -> Cleaning<'a, D> {
        let truncations = log.state.borrow().truncations;
        Cleaning { store, log, round, now_ms, delete_retention_ms, truncations }
    }

    /// Cleans the log.
    pub(crate) async fn run(&self) -> Result<Cleaned, Stop> {
        let segments = self.segments(self.round.end);
        self.settle(&segments).await?;
        // Nothing is read for nothing.
        self.room(segments.first().map_or(0, |first| first.size())).await?;
        let indexing = self.index(&segments).await?;
        // Who holds an old segment keeps its file.
        drop(segments);
        let transactions = indexing.transactions.clone().unwrap_or_default();
        self.rewrite_all(indexing, transactions.restarted()).await
    }

    /// Whether the log may still be cleaned.
    pub(super) fn check(&self) -> Result<(), Stop> {
        let store = self.store;
        let state = self.log.state.borrow();
        let gone = store.stopped.get() || store.closing.get() || state.removed || state.offline.is_some();
        let changed =
            state.busy || state.truncations != self.truncations || state.config.compaction.is_none();
        if gone || changed { Err(Stop::NotNow) } else { Ok(()) }
    }

    /// The segments that begin before `end`, but for the active one.
    fn segments(&self, end: i64) -> Vec<Rc<Segment<D>>> {
        let state = self.log.state.borrow();
        let sealed = state.segments.len().saturating_sub(1);
        state.segments.iter().take(sealed).filter(|segment| segment.base < end).cloned().collect()
    }

    /// Waits until all bytes of the segments are in their files, and flushes those. A checkpoint that is under way may have
    /// told of these segments, and lets go of the journal that has their bytes: should their flush fail once they were
    /// swapped out, nobody would save them.
    async fn settle(&self, segments: &[Rc<Segment<D>>]) -> Result<(), Stop> {
        self.written(segments).await?;
        for segment in segments.iter().filter(|segment| segment.doubtful_from() < u64::MAX) {
            let (store, log) = (self.store, self.log);
            let file = store.files.get(&store.disk, log, segment).await.map_err(|_| Stop::NotNow)?;
            if !store.flush_segment(log, segment.life, &file).await {
                return Err(Stop::NotNow);
            }
            store.writeback.unflushed.borrow_mut().remove(&segment.life);
        }
        self.check()
    }

    async fn written(&self, segments: &[Rc<Segment<D>>]) -> Result<(), Stop> {
        let asked = &self.store.writeback.asked;
        let settled = loop {
            if let Err(stop) = self.check() {
                break Err(stop);
            }
            if segments.iter().all(|segment| segment.pending.borrow().is_empty()) {
                break Ok(());
            }
            if self.store.disk_full.get() > 0 {
                break Err(Stop::NoSpace("the disk is full".to_owned()));
            }
            // Not written here: that may wait for room, and whoever removes the log to make some waits for its cleaning.
            asked.set(true);
            self.store.work.wake_all();
            self.store.disk.sleep(SETTLE_PAUSE).await;
        };
        asked.set(false);
        settled
    }

    /// Waits for room for as much as `bytes` anew: the rest of the broker must not come to want any for cleaning's sake.
    /// Where that is tight, or many old files are there still, a checkpoint lets go of those.
    async fn room(&self, bytes: u64) -> Result<(), Stop> {
        let store = self.store;
        let enough = || !store.refuses_clients() && !store.space.is_tight(bytes);
        if enough() && store.recycle.cleaned_bytes() < store.config.checkpoint_bytes {
            return Ok(());
        }
        if store.recycle.cleaned_bytes() > 0 {
            store.recycle.free_cleaned();
            let wanted = store.pipeline.request_checkpoint(store);
            while store.pipeline.checkpoint_done.get() < wanted {
                self.check()?;
                if store.disk_full.get() > 0 {
                    return Err(Stop::NoSpace("the disk is full".to_owned()));
                }
                store.disk.sleep(SETTLE_PAUSE).await;
            }
            store.recycle.collect(store).await;
        }
        if !enough() {
            store.recycle.drop_spares(&store.disk).await;
        }
        store.look_at_space().await;
        self.check()?;
        if enough() {
            return Ok(());
        }
        let free = store.space.usable().unwrap_or(0);
        Err(Stop::NoSpace(format!("{bytes} bytes are wanted beyond the reserve, and {free} are free in all")))
    }

    /// Reads the keys of the dirty part into a map.
    async fn index(&self, segments: &[Rc<Segment<D>>]) -> Result<Indexing, Stop> {
        let Round { dirty_from, end, .. } = self.round;
        let cleaner = self.store.cleaner.config.borrow().clone();
        let (bytes_max, load, hash_key) = (cleaner.map_bytes_max, cleaner.map_load_percent, cleaner.hash_key);
        let keys = (end - dirty_from).max(0) as u64;
        let decompressed_bytes_max = cleaner.decompressed_bytes_max;
        let make = move || Indexing {
            map: KeyMap::new(keys, bytes_max, load, hash_key),
            from: dirty_from,
            limit: end,
            latest: dirty_from - 1,
            transactions: None,
            decompressed_bytes_max,
            records: 0,
        };
        let mut indexing = self.compute(make).await?;
        for (at, segment) in segments.iter().enumerate() {
            let next_base = segments.get(at + 1).map_or(end, |next| next.base);
            if next_base <= dirty_from {
                continue;
            }
            let mut walk = self.walk(segment);
            while !walk.is_over() {
                let worked = self.step(segment, walk, indexing, Indexing::batches).await?;
                (indexing, walk) = (worked.state, worked.next);
                match worked.end {
                    StepEnd::All => {}
                    StepEnd::Full => return self.indexed(indexing),
                    // Of what follows, it is not told yet how its transactions end.
                    StepEnd::Limit if indexing.latest < dirty_from => return Err(Stop::NotNow),
                    StepEnd::Limit => return Ok(indexing),
                    StepEnd::Transaction(from) => {
                        let (transactions, known_to) = self.scan(from).await?;
                        indexing.transactions = Some(transactions);
                        indexing.limit = indexing.limit.min(known_to);
                        // The marker of the first is written and not stable yet.
                        if indexing.limit <= dirty_from {
                            return Err(Stop::NotNow);
                        }
                    }
                }
            }
            // Offsets up to the next segment may be gone.
            indexing.latest = indexing.latest.max(next_base - 1);
        }
        Ok(indexing)
    }

    /// The map took not all. That must not be nothing.
    fn indexed(&self, indexing: Indexing) -> Result<Indexing, Stop> {
        if indexing.latest >= self.round.dirty_from {
            return Ok(indexing);
        }
        Err(Stop::Fault(format!(
            "the keys of the batch at offset {} do not fit in the cleaner's buffer, which holds {}",
            self.round.dirty_from,
            indexing.map.len()
        )))
    }

    /// Finds the aborted transactions from `from` on, and up to where all of them are known.
    async fn scan(&self, from: i64) -> Result<(Transactions, i64), Stop> {
        let stable_to = view(&self.log.state.borrow()).stable_to;
        let mut scan = Scan::default();
        let mut position = from;
        while position < stable_to && !scan.is_done(position, self.round.end) {
            self.check()?;
            let bytes_max = self.store.cleaner.config.borrow().io_bytes;
            position = position.max(self.log.state.borrow().start_offset);
            let wanted = Wanted {
                from: position,
                bytes_max,
                upper: stable_to,
                at_least_one: true,
                for_client: false,
                in_order: false,
            };
            self.give_way().await;
            let found = read(self.store, self.log, &wanted).await.map_err(|error| self.failed(&error))?;
            if found.bytes == 0 {
                break;
            }
            for batch in batches_of(&found) {
                scan.note(&batch.header, || Marker::of(&batch));
            }
            position = found.next_offset;
            self.pace(found.bytes as u64).await?;
        }
        let (aborted, known_to) = scan.finish(position);
        Ok((Transactions::new(aborted), known_to))
    }

    /// Writes all groups of segments anew.
    async fn rewrite_all(&self, indexing: Indexing, transactions: Transactions) -> Result<Cleaned, Stop> {
        let to = indexing.latest + 1;
        let mut segments = self.segments(to.min(self.round.end));
        let views: Vec<SegmentView> = segments.iter().map(|segment| super::segment_view(segment)).collect();
        let bytes_max = {
            let state = self.log.state.borrow();
            self.store.segment_bytes(state.config.segment_bytes)
        };
        let mut cleaned = Cleaned { to, ..Cleaned::default() };
        let mut filtering = Filtering {
            latest: indexing.latest,
            end: self.round.end,
            now_ms: self.now_ms,
            delete_retention_ms: self.delete_retention_ms,
            decompressed_bytes_max: indexing.decompressed_bytes_max,
            last_written: self.last_written(),
            transactions,
            output: Output::new(0, u32::MAX),
            dropped: 0,
            map: indexing.map,
        };
        for group in group(&views, self.round.end, bytes_max) {
            // Not held any longer than the group takes: their files go one after the other.
            let old: Vec<_> = segments.drain(..group.len()).collect();
            let bytes = old.iter().map(|segment| segment.size()).sum::<u64>();
            let clean_to = segments.is_empty().then_some(to);
            self.room(block_ceil(bytes) + DATA_START).await?;
            let (returned, bytes_after) = self.rewrite((old, clean_to), filtering).await?;
            filtering = returned;
            cleaned.bytes_before += bytes;
            cleaned.bytes_after += bytes_after;
        }
        cleaned.dropped = filtering.dropped;
        // Giving back so much memory takes long.
        self.compute(move || drop(filtering)).await?;
        Ok(cleaned)
    }

    fn last_written(&self) -> std::collections::HashMap<i64, LastWritten> {
        let state = self.log.state.borrow();
        let last = |(id, producer): (i64, &crate::producer::Producer)| {
            let offset = producer.batches().last().map(|batch| batch.last_offset);
            (id, LastWritten { offset, epoch: producer.epoch })
        };
        state.producers.iter().map(last).collect()
    }

    /// Writes one group of segments anew and swaps the new one in; gives its bytes.
    async fn rewrite(
        &self,
        (old, clean_to): (Vec<Rc<Segment<D>>>, Option<i64>),
        mut filtering: Filtering,
    ) -> Result<(Filtering, u64), Stop> {
        let Some(first) = old.first() else { return Ok((filtering, 0)) };
        let dir = self.store.log_dir(&self.log.name);
        let segment = Segment::cleaned(&dir, first.base, self.store.unique(), first.opened_ms);
        let interval = self.log.state.borrow().config.index_interval();
        filtering.output = Output::new(first.base, interval);
        let mut new = NewSegment { cleaning: self, segment, file: None, begun: false };
        let swapped = match new.write_all(&old, filtering).await {
            Ok(filtering) => {
                let bytes = filtering.output.end() - DATA_START;
                self.swap((&old, clean_to), &new, &filtering.output).map(|()| (filtering, bytes))
            }
            Err(stop) => Err(stop),
        };
        if swapped.is_err() {
            new.remove().await;
        }
        swapped
    }

    /// Puts the new segment in the place of the old ones, or nothing if it has no batches. With the last ones the log is
    /// clean up to `clean_to`: told in the same step, since what is cut off and written anew later is not.
    fn swap(
        &self,
        (old, clean_to): (&[Rc<Segment<D>>], Option<i64>),
        new: &NewSegment<'_, D>,
        output: &Output,
    ) -> Result<(), Stop> {
        self.check()?;
        let (store, mut state) = (self.store, self.log.state.borrow_mut());
        let at =
            state.segments.iter().position(|segment| Rc::ptr_eq(segment, &old[0])).ok_or(Stop::NotNow)?;
        let is_there = |(at, old): (usize, &Rc<Segment<D>>)| {
            state.segments.get(at).is_some_and(|segment| Rc::ptr_eq(segment, old))
        };
        // Retention may have taken some away meanwhile.
        if !(at..).zip(old).all(is_there) {
            return Err(Stop::NotNow);
        }
        assert!(at + old.len() < state.segments.len(), "the active segment is never cleaned");
        assert!(old.iter().all(|segment| segment.pending.borrow().is_empty()), "what is cleaned is settled");
        let retired: Vec<_> = state.segments.drain(at..at + old.len()).collect();
        let next_base = state.segments[at].base;
        // What memory holds of them is told by positions in the old files.
        let freed = state.memory.drop_segments_below(next_base);
        store.uncached(freed);
        if let Some(file) = &new.file {
            let segment = &new.segment;
            segment.end.set(output.end());
            segment.max_timestamp.set(output.max_timestamp);
            segment.first_timestamp.set(output.first_timestamp);
            segment.horizon_ms.set(output.horizon_ms);
            segment.prepared_to.set(block_ceil(output.end()));
            *segment.index.borrow_mut() = output.index.clone();
            segment.indexed_from.set(DATA_START);
            state.segments.insert(at, segment.clone());
            store.files.keep(segment, file.clone());
            store.indexes.hold(segment);
        }
        state.cleaned_to = clean_to.map_or(state.cleaned_to, |to| to.max(state.cleaned_to));
        assert!(state.cleaned_to <= state.end_offset, "only what is there was cleaned");
        drop(state);
        for segment in retired {
            store.recycle.retire_cleaned(store, segment);
        }
        Ok(())
    }
}

/// A segment that is being written.
struct NewSegment<'a, D: Disk> {
    cleaning: &'a Cleaning<'a, D>,
    segment: Rc<Segment<D>>,
    /// Made with the first block: a segment without batches has none.
    file: Option<D::File>,
    /// There may be a file.
    begun: bool,
}

impl<D: Disk> NewSegment<'_, D> {
    /// Filters the old segments into this one's file, and makes that stable.
    async fn write_all(
        &mut self,
        old: &[Rc<Segment<D>>],
        mut filtering: Filtering,
    ) -> Result<Filtering, Stop> {
        for segment in old {
            let mut walk = self.cleaning.walk(segment);
            while !walk.is_over() {
                let worked = self.cleaning.step(segment, walk, filtering, Filtering::batches).await?;
                (filtering, walk) = (worked.state, worked.next);
                self.write(worked.blocks).await?;
            }
        }
        self.write(filtering.output.take_rest()).await?;
        if let Some(file) = &self.file {
            let dir = self.cleaning.store.log_dir(&self.cleaning.log.name);
            file.sync_data().await.map_err(|error| self.failed(error))?;
            self.cleaning.store.disk.sync_dir(&dir).await.map_err(|error| self.failed(error))?;
        }
        Ok(filtering)
    }

    async fn write(&mut self, blocks: Option<Blocks>) -> Result<(), Stop> {
        let Some(Blocks { data, position }) = blocks else { return Ok(()) };
        let Cleaning { store, .. } = self.cleaning;
        self.cleaning.give_way().await;
        self.cleaning.check()?;
        if store.refuses_clients() {
            return Err(Stop::NoSpace("clients' appends are refused for want of room".to_owned()));
        }
        let len = data.len() as u64;
        let file = self.file().await.map_err(|error| self.failed(error))?;
        file.write_at(data, position).await.map_err(|error| self.failed(error))?;
        add(&store.levels.cleaner_written_bytes, len);
        store.took_space(len);
        self.cleaning.pace(len).await
    }

    async fn file(&mut self) -> io::Result<D::File> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        self.begun = true;
        let Cleaning { store, log, .. } = self.cleaning;
        let file = store.disk.create(&self.segment.path, BLOCK as u64).await?;
        write_header(log, &self.segment, &file).await?;
        self.file = Some(file.clone());
        Ok(file)
    }

    fn failed(&self, error: io::Error) -> Stop {
        match self.cleaning.check() {
            Err(stop) => stop,
            Ok(()) if passes(&error) => Stop::NoSpace(error.to_string()),
            Ok(()) => Stop::Failed(format!("writing {}: {error}", self.segment.path.display())),
        }
    }

    /// Removes what was written, so that a clean close leaves nothing behind.
    async fn remove(&self) {
        if !self.begun {
            return;
        }
        let Cleaning { store, log, .. } = self.cleaning;
        let remove = async || match store.disk.remove(&self.segment.path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => store.disk.sync_dir(&store.log_dir(&log.name)).await,
        };
        if let Err(error) = remove().await {
            tracing::warn!(path = %self.segment.path.display(), "removing what cleaning left: {error}");
        }
    }
}
