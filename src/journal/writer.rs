//! The one thread that writes: takes what is queued, commits it, and only then tells.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::file::{damage, is_damage};
use super::inbox::{Ending, Job, Notes};
use super::retention::Retention;
use super::store::{Store, Written};
use super::{Limits, Shared, held};
use crate::clock::Timestamp;
use crate::lag;
use crate::outcome::{Outcome, Verdict};

/// Between two commits, so that a busy journal writes groups; after a quiet while a record is committed at once.
const GATHER: Duration = Duration::from_millis(25);

/// Between two attempts on a disk that does not take anything.
const RETRY: Duration = Duration::from_secs(1);

/// How long nothing at all may happen before old records are looked for.
const IDLE: Duration = Duration::from_secs(20);

/// The most bytes, as they are guessed, that wait in memory for a failing disk.
const BACKLOG: usize = 16 << 20;

/// The writer.
pub(super) struct Writer {
    store: Store,
    shared: Arc<Shared>,
    retention: Retention,
    backlog: VecDeque<Job>,
    notes: Option<Notes>,
    failing: Option<Instant>,
    committed: Option<Instant>,
    /// Held as long as this picket writes.
    _lock: File,
}

impl Writer {
    pub(super) fn new(store: Store, shared: Arc<Shared>, limits: Limits, lock: File) -> Self {
        Self {
            store,
            shared,
            retention: Retention::new(limits),
            backlog: VecDeque::new(),
            notes: None,
            failing: None,
            committed: None,
            _lock: lock,
        }
    }

    /// Writes until the journal is closed and everything is on disk, or has been tried a last time.
    pub(super) fn run(mut self) {
        lag::give_way();
        loop {
            self.gather();
            let taken = self.shared.inbox.take(self.patience());
            self.backlog.extend(taken.jobs);
            if taken.notes.is_some() {
                self.notes = taken.notes;
            }
            if taken.closed || self.may_try() {
                self.write();
            } else {
                self.bear();
            }
            if taken.closed {
                break;
            }
            self.prune();
        }
        if !self.backlog.is_empty() {
            error!(
                records = self.backlog.len(),
                "the journal ends with records that the disk did not take"
            );
        }
        self.store.close();
    }

    /// Lets a group form when the last commit was just now. While the disk takes nothing there is no hurry.
    fn gather(&self) {
        if self.failing.is_some() {
            std::thread::sleep(GATHER * 10);
            return;
        }
        let since = self.committed.map_or(GATHER, |committed| committed.elapsed());
        if let Some(pause) = GATHER.checked_sub(since) {
            std::thread::sleep(pause);
        }
    }

    fn patience(&self) -> Duration {
        match self.failing {
            Some(tried) => RETRY.saturating_sub(tried.elapsed()),
            None if self.retention.has_more() => Duration::ZERO,
            None => IDLE,
        }
    }

    fn may_try(&self) -> bool {
        self.failing.is_none_or(|tried| tried.elapsed() >= RETRY)
    }

    /// Writes all that waits, and tells of it.
    fn write(&mut self) {
        #[cfg(test)]
        self.do_what_tests_ask();
        if self.notes.as_ref().is_some_and(|notes| notes.suspect) {
            self.replace(&damage("a record could not be reached"));
        }
        if !self.backlog.iter().any(Job::writes) && self.notes.is_none() {
            self.answer();
            return;
        }
        let mut tried = self.store.write(self.backlog.iter(), self.notes.as_ref());
        if let Err(error) = &tried
            && is_damage(error)
        {
            self.replace(error);
            tried = self.store.write(self.backlog.iter(), self.notes.as_ref());
        }
        match tried {
            Ok(written) => self.written(written),
            Err(error) => self.failed(&error),
        }
    }

    fn written(&mut self, written: Written) {
        if self.failing.take().is_some() {
            info!(records = written.kept.len(), "the journal is written again");
        }
        self.committed = Some(Instant::now());
        self.notes = None;
        {
            let mut state = held(&self.shared.state);
            state.failing = None;
            state.backlog = 0;
            state.last_seq = self.store.last_seq();
        }
        if !written.kept.is_empty() {
            held(&self.shared.ring).push(written.kept);
            self.shared.tip.send_replace(self.store.last_seq());
        }
        self.tell(&written.untold);
        self.answer();
        self.backlog.clear();
    }

    fn failed(&mut self, error: &rusqlite::Error) {
        if self.failing.is_none() {
            warn!(%error, "the journal cannot be written: outcomes wait in memory");
        }
        self.failing = Some(Instant::now());
        held(&self.shared.state).failing = Some(error.to_string());
        self.bear();
    }

    /// The disk takes nothing: probing goes on, and so does who is told; what is too much to hold is only counted.
    fn bear(&mut self) {
        let mut untold = Vec::new();
        for job in &mut self.backlog {
            if let Job::Settled { settled, told } = job
                && !std::mem::replace(told, true)
            {
                untold.push(Arc::clone(&settled.outcome));
            }
        }
        let dropped = shorten(&mut self.backlog, BACKLOG);
        {
            let mut state = held(&self.shared.state);
            state.backlog = self.backlog.iter().filter(|job| job.is_record()).count();
            state.dropped += dropped;
        }
        self.tell(&untold);
        self.answer();
    }

    /// Answers those who wait for what was tried.
    fn answer(&mut self) {
        let jobs = std::mem::take(&mut self.backlog);
        for job in jobs {
            match job {
                // Who asked may have gone away.
                Job::Barrier(answer) => drop(answer.send(())),
                Job::Note => {}
                Job::Settled { .. } | Job::Metrics { .. } | Job::Count { .. } => {
                    self.backlog.push_back(job);
                }
                #[cfg(test)]
                Job::Do(_) => self.backlog.push_back(job),
            }
        }
    }

    /// A broken observer is not the journal's end.
    fn tell(&self, outcomes: &[Arc<Outcome>]) {
        if outcomes.is_empty() {
            return;
        }
        let told = held(&self.shared.told);
        let Some(told) = told.as_ref() else { return };
        if catch_unwind(AssertUnwindSafe(|| told(outcomes))).is_err() {
            error!(outcomes = outcomes.len(), "who is told of outcomes broke down");
        }
    }

    /// The file is damaged: another takes its place.
    fn replace(&mut self, damage: &rusqlite::Error) {
        match self.store.replace(damage) {
            Ok(_) => held(&self.shared.ring).start_at(self.store.last_seq()),
            Err(error) => error!(%error, "the damaged journal cannot be set aside"),
        }
        self.shared.inbox.trust();
        // The notes of the damaged file can be older than those at hand.
        self.notes = Some(self.shared.inbox.notes());
    }

    fn prune(&mut self) {
        if self.failing.is_some() {
            return;
        }
        let Err(error) = self.retention.step(&self.store, &self.shared) else { return };
        if is_damage(&error) {
            self.replace(&error);
        } else {
            self.failed(&error);
        }
    }

    #[cfg(test)]
    fn do_what_tests_ask(&mut self) {
        let (asked, rest) = self.backlog.drain(..).partition(|job| matches!(job, Job::Do(_)));
        self.backlog = rest;
        for job in Vec::from(asked) {
            if let Job::Do(action) = job {
                action(&self.store.connection);
            }
        }
    }
}

impl Job {
    /// Whether it changes the file.
    fn writes(&self) -> bool {
        match self {
            Self::Settled { .. } | Self::Metrics { .. } | Self::Count { .. } => true,
            Self::Note | Self::Barrier(_) => false,
            #[cfg(test)]
            Self::Do(_) => false,
        }
    }

    /// Whether it is a record of the journal.
    fn is_record(&self) -> bool {
        matches!(self, Self::Settled { .. } | Self::Metrics { .. })
    }

    /// Whether it goes last when memory is short.
    fn is_failure(&self) -> bool {
        matches!(self, Self::Settled { settled, .. }
            if matches!(settled.outcome.verdict, Verdict::Fail | Verdict::Error))
    }
}

/// Lets go of records until the rest is no more than `room` bytes: readings of the instruments and passes first,
/// the oldest first. A run keeps its place in the ledger. How many went.
pub(super) fn shorten(backlog: &mut VecDeque<Job>, room: usize) -> u64 {
    let mut bytes: usize = backlog.iter().map(Job::weight).sum();
    let mut dropped = 0;
    for failures_too in [false, true] {
        if bytes <= room {
            break;
        }
        for job in backlog.iter_mut() {
            if bytes <= room {
                break;
            }
            if !job.is_record() || (job.is_failure() && !failures_too) {
                continue;
            }
            bytes -= job.weight();
            *job = without_record(std::mem::replace(job, Job::Note));
            bytes += job.weight();
            dropped += 1;
        }
    }
    merge(backlog);
    dropped
}

/// What is left to write of a record that goes.
fn without_record(job: Job) -> Job {
    let Job::Settled { settled, .. } = job else { return Job::Note };
    let outcome = &settled.outcome;
    Job::Count {
        ending: (outcome.verdict, outcome.error_type, outcome.blame),
        identity: settled.identity,
        runs: 1,
        settled_through: settled.settled_through,
    }
}

/// Counts of the same sort become one, at the end. It settles as far as the last job of its probe does.
fn merge(backlog: &mut VecDeque<Job>) {
    let mut through: HashMap<Arc<str>, Timestamp> = HashMap::new();
    let mut counts: BTreeMap<(Arc<str>, Ending), u64> = BTreeMap::new();
    for job in std::mem::take(backlog) {
        match job {
            Job::Note => {}
            Job::Count { identity, ending, runs, settled_through } => {
                through.insert(Arc::clone(&identity), settled_through);
                *counts.entry((identity, ending)).or_default() += runs;
            }
            Job::Settled { ref settled, .. } => {
                through.insert(Arc::clone(&settled.identity), settled.settled_through);
                backlog.push_back(job);
            }
            Job::Metrics { .. } | Job::Barrier(_) => backlog.push_back(job),
            #[cfg(test)]
            Job::Do(_) => backlog.push_back(job),
        }
    }
    backlog.extend(counts.into_iter().filter_map(|((identity, ending), runs)| {
        let settled_through = *through.get(&identity)?;
        Some(Job::Count { identity, ending, runs, settled_through })
    }));
}
