//! What waits for the writer's thread: a queue of a bounded size, and notes of which only the newest counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};

use super::{Settled, Standing, held};
use crate::clock::Timestamp;
use crate::failure::{Blame, ErrorType};
use crate::outcome::{Outcome, Verdict};

/// The most KiB that wait: when it is full, who appends waits.
const ROOM: usize = 32 * 1024;

/// One thing for the writer to do.
pub(super) enum Job {
    /// A run to keep and to count; whether the observer has heard of it already.
    Settled { settled: Settled, told: bool },
    /// A reading of the instruments to keep.
    Metrics { encoded: Bytes, at: Timestamp },
    /// Runs to count that have no record.
    Count { identity: Arc<str>, ending: Ending, runs: u64, settled_through: Timestamp },
    /// A note has changed.
    Note,
    /// Answered when everything before it was committed or tried.
    Barrier(oneshot::Sender<()>),
    /// Something a test does to the file.
    #[cfg(test)]
    Do(Box<dyn FnOnce(&rusqlite::Connection) + Send>),
}

/// How a run ended, as the ledger counts it.
pub(super) type Ending = (Verdict, Option<ErrorType>, Option<Blame>);

/// What is noted beside the records: the newest value is the one that counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    pub(super) fold: u64,
    pub(super) created: Timestamp,
    pub(super) places: BTreeMap<String, Standing>,
    /// The exporters that there are, once they were named.
    pub(super) exporters: Option<BTreeSet<String>>,
    /// A reader met damage.
    pub(super) suspect: bool,
}

/// The queue and the notes.
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    bell: Condvar,
    room: Semaphore,
}

#[derive(Default)]
struct Waiting {
    jobs: Vec<Job>,
    room: usize,
    notes: Notes,
    noted: bool,
    closed: bool,
    asleep: bool,
}

/// What the writer takes out at once.
pub(super) struct Taken {
    pub(super) jobs: Vec<Job>,
    /// The notes, if they have changed.
    pub(super) notes: Option<Notes>,
    pub(super) closed: bool,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { waiting: Mutex::default(), bell: Condvar::new(), room: Semaphore::new(ROOM) }
    }
}

impl Inbox {
    /// Queues a job once there is room.
    pub(super) async fn put(&self, job: Job) -> Result<(), Job> {
        let weight = job.weight().div_ceil(1024).clamp(1, ROOM);
        let Ok(room) = self.room.acquire_many(u32::try_from(weight).unwrap_or(1)).await else {
            return Err(job);
        };
        let mut waiting = held(&self.waiting);
        if waiting.closed {
            return Err(job);
        }
        room.forget();
        waiting.room += weight;
        waiting.jobs.push(job);
        self.wake(waiting);
        Ok(())
    }

    /// Notes how often the clock was set back.
    pub(super) fn fold(&self, fold: u64) {
        self.note(|notes| notes.fold = fold);
    }

    /// Notes an exporter's place.
    pub(super) fn place(&self, exporter: &str, seq: u64) {
        self.note(|notes| notes.places.entry(exporter.to_owned()).or_default().seq = seq);
    }

    /// Notes which exporters there are.
    pub(super) fn exporters(&self, names: &[&str]) {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        self.note(|notes| notes.exporters = Some(names));
    }

    /// Notes that a reader met damage.
    pub(super) fn suspect(&self) {
        self.note(|notes| notes.suspect = true);
    }

    /// The file is whole again.
    pub(super) fn trust(&self) {
        held(&self.waiting).notes.suspect = false;
    }

    /// Counts what each exporter that had not yet come so far will never get.
    pub(super) fn lost(&self, outcomes: &[u64], metrics: &[u64]) {
        let beyond =
            |seqs: &[u64], place: u64| seqs.iter().filter(|seq| **seq > place).count() as u64;
        self.note(|notes| {
            for standing in notes.places.values_mut() {
                standing.lost_outcomes += beyond(outcomes, standing.seq);
                standing.lost_metrics += beyond(metrics, standing.seq);
            }
        });
    }

    /// The notes as they are.
    pub(super) fn notes(&self) -> Notes {
        held(&self.waiting).notes.clone()
    }

    /// The notes as they were found on disk.
    pub(super) fn remember(&self, notes: Notes) {
        held(&self.waiting).notes = notes;
    }

    fn note(&self, change: impl FnOnce(&mut Notes)) {
        let mut waiting = held(&self.waiting);
        change(&mut waiting.notes);
        waiting.noted = true;
        self.wake(waiting);
    }

    /// Nothing is taken in any more.
    pub(super) fn close(&self) {
        self.room.close();
        let mut waiting = held(&self.waiting);
        waiting.closed = true;
        self.wake(waiting);
    }

    fn wake(&self, waiting: MutexGuard<'_, Waiting>) {
        let asleep = waiting.asleep;
        drop(waiting);
        if asleep {
            self.bell.notify_one();
        }
    }

    /// Takes out all there is; waits for something, but no longer than `patience`.
    pub(super) fn take(&self, patience: Duration) -> Taken {
        let mut waiting = held(&self.waiting);
        if waiting.jobs.is_empty() && !waiting.noted && !waiting.closed {
            waiting.asleep = true;
            let nothing = |waiting: &mut Waiting| {
                waiting.jobs.is_empty() && !waiting.noted && !waiting.closed
            };
            let woken = self.bell.wait_timeout_while(waiting, patience, nothing);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
            waiting.asleep = false;
        }
        self.room.add_permits(std::mem::take(&mut waiting.room));
        let noted = std::mem::take(&mut waiting.noted);
        Taken {
            jobs: std::mem::take(&mut waiting.jobs),
            notes: noted.then(|| waiting.notes.clone()),
            closed: waiting.closed,
        }
    }
}

impl Job {
    /// About how many bytes it holds in memory.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Settled { settled, .. } => weight(&settled.outcome),
            Self::Metrics { encoded, .. } => encoded.len(),
            Self::Count { identity, .. } => identity.len(),
            Self::Note | Self::Barrier(_) => 0,
            #[cfg(test)]
            Self::Do(_) => 0,
        }
    }
}

/// About how many bytes an outcome holds in memory: evidence is what makes one large.
pub(super) fn weight(outcome: &Outcome) -> usize {
    let texts = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let evidence = outcome.evidence.as_ref().map_or(0, |evidence| {
        512 + texts(&evidence.request) + texts(&evidence.response) + texts(&evidence.body)
    });
    1024 + evidence
        + texts(&outcome.message)
        + outcome.phases.len() * 64
        + outcome.steps.iter().map(|step| 1024 + step.requests.len() * 1024).sum::<usize>()
}
