//! Outcomes on disk, so that a restart forgets nothing.
//!
//! One `SQLite` file in the state folder, written by one thread of its own. What is handed over is queued, committed in
//! groups, and only then told: first to the observer, then to the outboxes. The file is in WAL mode with
//! `synchronous = NORMAL`: a killed picket loses nothing that was committed; a power failure can lose what the kernel
//! had not yet written out, which is about the last half minute, and never tears what came before.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{oneshot, watch};
use tracing::error;

use crate::clock::Timestamp;
use crate::export::Kept;
use crate::failure::{Blame, ErrorType};
use crate::outcome::{Outcome, Verdict};

mod file;
mod history;
mod inbox;
mod lock;
mod retention;
mod ring;
mod salvage;
mod store;
mod writer;

pub use history::{Filter, History, Summary};
pub use salvage::Recovered;

use inbox::{Inbox, Job};
use ring::Ring;
use store::Store;
use writer::Writer;

/// The journal's file in the state folder.
pub const FILE: &str = "journal.sqlite";

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long passes are kept.
    pub keep: Duration,
    /// How long what did not pass is kept.
    pub keep_failures: Duration,
    /// The most bytes of the file.
    pub max_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            keep: Duration::from_hours(7 * 24),
            keep_failures: Duration::from_hours(30 * 24),
            max_bytes: 1 << 30,
        }
    }
}

/// One run that has ended, as it is handed to the journal.
#[derive(Clone, Debug)]
pub struct Settled {
    /// The run.
    pub outcome: Arc<Outcome>,
    /// What tells its probe from every other: `Planned::identity`.
    pub identity: Arc<str>,
    /// Every run of this probe that was due by then is settled.
    pub settled_through: Timestamp,
}

/// What was found when the journal was opened.
#[derive(Debug, Default)]
pub struct Opened {
    /// The place of the newest record.
    pub last_seq: u64,
    /// What became of a damaged file.
    pub recovered: Option<Recovered>,
}

/// Why a journal cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The state folder cannot be made or written.
    #[error("cannot write the state folder {}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Another picket has it.
    #[error("the state folder {} is in use by another picket{}: stop that one, or give this one a folder of its own with `state`", folder.display(), by(*process))]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// The other's process id, where it said so.
        process: Option<u32>,
    },
    /// Nothing was ever kept there.
    #[error("there is no journal in {}: has picket run with this state folder?", folder.display())]
    Absent {
        /// The folder.
        folder: PathBuf,
    },
    /// The file cannot be read or written.
    #[error("cannot use the journal {}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// What `SQLite` says.
        source: rusqlite::Error,
    },
    /// The file was made by a later picket.
    #[error("the journal {} was written by a later picket (version {version}): use that one, or another state folder", path.display())]
    Later {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: i64,
    },
    /// Its thread cannot be started.
    #[error("cannot start the journal's thread")]
    Thread {
        /// Why not.
        source: std::io::Error,
    },
}

fn by(process: Option<u32>) -> String {
    process.map(|id| format!(" (process {id})")).unwrap_or_default()
}

/// How the journal is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalState {
    /// Why nothing can be written, while that is so.
    pub failing: Option<String>,
    /// How many records wait in memory for the disk.
    pub backlog: usize,
    /// How many records the memory had no room for while the disk did not take them. The ledger has counted them.
    pub dropped: u64,
    /// The place of the newest record on disk.
    pub last_seq: u64,
    /// The bytes in use in the file.
    pub bytes: u64,
    /// How many records could not be read back.
    pub unreadable: u64,
}

/// What the ledger knows of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRow {
    /// What tells it from every other.
    pub identity: Arc<str>,
    /// Every run that was due by then is settled.
    pub settled_through: Timestamp,
    /// Runs that are settled although an earlier one is not.
    pub ahead: Vec<Timestamp>,
    /// How many runs were planned: the sum of `counts`.
    pub planned: u64,
    /// How they ended.
    pub counts: Vec<(Verdict, Option<ErrorType>, Option<Blame>, u64)>,
    /// The verdict of the last run that ran: `skipped` and `missed` say nothing of the target.
    pub last: Option<Verdict>,
    /// How many runs on end had that verdict.
    pub streak: u64,
}

/// Told of outcomes once they are on disk; of an outcome that waits for a failing disk, at once.
pub type Told = Box<dyn Fn(&[Arc<Outcome>]) + Send + Sync>;

/// An exporter's place, and what it will never get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// It has taken everything up to here.
    pub seq: u64,
    /// Outcomes that went for want of room before it took them.
    pub lost_outcomes: u64,
    /// Readings of the instruments that went likewise.
    pub lost_metrics: u64,
}

/// A stretch of the journal.
#[derive(Debug, Default)]
pub struct Stretch {
    /// The records, in order.
    pub records: Vec<Kept>,
    /// The place up to which this stretch reaches, records that could not be read included.
    pub through: u64,
}

/// What the writer's thread and everyone else share.
#[derive(Default)]
struct Shared {
    inbox: Inbox,
    ring: Mutex<Ring>,
    tip: watch::Sender<u64>,
    state: Mutex<JournalState>,
    told: Mutex<Option<Told>>,
}

/// Outcomes on disk.
pub struct Journal {
    shared: Arc<Shared>,
    folder: PathBuf,
    opened_at: u64,
    history: Mutex<History>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Journal {
    /// Opens the journal of a state folder, or begins one. A damaged file is set aside and what can be read of it is
    /// taken over.
    pub fn open(folder: &Path, limits: Limits) -> Result<(Self, Opened), JournalError> {
        let lock = lock::take(folder)?;
        let (store, recovered) = Store::open(folder)?;
        let last_seq = store.last_seq();
        let shared = Arc::new(Shared::default());
        store.recall(&shared);
        {
            let mut state = held(&shared.state);
            state.last_seq = last_seq;
            state.bytes = store.bytes().unwrap_or(0);
        }
        held(&shared.ring).start_at(last_seq);
        shared.tip.send_replace(last_seq);
        let history = Mutex::new(History::open(folder)?);
        let writer = Writer::new(store, Arc::clone(&shared), limits, lock);
        let thread = thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| JournalError::Thread { source })?;
        let journal = Self {
            shared,
            folder: folder.to_owned(),
            opened_at: last_seq,
            history,
            thread: Mutex::new(Some(thread)),
        };
        Ok((journal, Opened { last_seq, recovered }))
    }

    /// Names who is told of outcomes. What is appended before that is told to nobody.
    pub fn tell(&self, told: Told) {
        *held(&self.shared.told) = Some(told);
    }

    /// Hands a run over. Waits only while the queue is full (32 MiB of runs that the disk was too slow for), which
    /// holds up the caller and nobody else.
    pub async fn append(&self, settled: Settled) {
        self.hand_over(Job::Settled { settled, told: false }).await;
    }

    /// Hands a reading of the instruments over: an OTLP `ExportMetricsServiceRequest`, encoded.
    pub async fn append_metrics(&self, encoded: Bytes, at: Timestamp) {
        self.hand_over(Job::Metrics { encoded, at }).await;
    }

    /// Counts runs that were missed and get no record of their own.
    pub async fn count_missed(&self, identity: Arc<str>, runs: u64, settled_through: Timestamp) {
        let ending = (Verdict::Missed, None, None);
        self.hand_over(Job::Count { identity, ending, runs, settled_through }).await;
    }

    /// Notes how often the wall clock was set back.
    pub async fn set_fold(&self, fold: u64) {
        self.shared.inbox.fold(fold);
        self.hand_over(Job::Note).await;
    }

    /// How often the wall clock was set back.
    pub fn fold(&self) -> u64 {
        self.shared.inbox.notes().fold
    }

    /// When this journal was begun.
    pub fn created(&self) -> Timestamp {
        self.shared.inbox.notes().created
    }

    async fn hand_over(&self, job: Job) {
        if self.shared.inbox.put(job).await.is_err() {
            error!("the journal is closed: a record came too late and is lost");
        }
    }

    /// Waits until everything that was handed over so far is on disk, or has been tried.
    pub async fn settle(&self) {
        let (answer, answered) = oneshot::channel();
        self.hand_over(Job::Barrier(answer)).await;
        if answered.await.is_err() {
            error!("the journal ended before everything was on disk");
        }
    }

    /// Writes what is queued and ends the journal's thread; the folder is free afterwards.
    pub async fn close(&self) {
        self.shared.inbox.close();
        let thread = held(&self.thread).take();
        let Some(thread) = thread else { return };
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            error!("the journal's thread broke down");
        }
    }

    /// How the journal is doing.
    pub fn state(&self) -> JournalState {
        held(&self.shared.state).clone()
    }

    /// The ledger as it stands on disk. Reads the file: not for a task of the runtime.
    pub fn ledger(&self) -> Result<Vec<LedgerRow>, JournalError> {
        self.look(History::ledger)
    }

    /// Due times of a probe after `moment`, not before its `settled_through`, that are journalled already.
    pub fn settled_after(
        &self,
        identity: &str,
        moment: Timestamp,
    ) -> Result<Vec<Timestamp>, JournalError> {
        self.look(|history| history.settled_after(identity, moment))
    }

    /// A probe's newest outcomes, newest first. Reads the file.
    pub fn recent(&self, identity: &str, limit: usize) -> Result<Vec<Outcome>, JournalError> {
        self.look(|history| history.recent(identity, limit))
    }

    /// The outcomes that a filter lets through, newest first. Reads the file.
    pub fn history(&self, filter: &Filter) -> Result<Vec<Outcome>, JournalError> {
        self.look(|history| history.outcomes(filter))
    }

    /// What the runs of each probe came to. Reads the file.
    pub fn summaries(&self, filter: &Filter) -> Result<Vec<Summary>, JournalError> {
        self.look(|history| history.summaries(filter))
    }

    /// One question at a time; the file is opened anew where the last answer was that it is broken, because the
    /// writer may have put another in its place.
    fn look<T>(
        &self,
        question: impl Fn(&History) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        let mut history = held(&self.history);
        if history.is_stale() {
            *history = History::open(&self.folder)?;
        }
        let answer = question(&history);
        if answer.is_err() {
            *history = History::open(&self.folder)?;
        }
        answer
    }
}

/// What outboxes use.
impl Journal {
    /// The place at which an exporter that was never seen before begins: the newest record when this journal was
    /// opened. What earlier runs of the agent kept is not news to it, and could be a month's worth; what this run
    /// keeps before the outbox starts is.
    pub fn beginning(&self) -> u64 {
        self.opened_at
    }

    /// How far an exporter has come, if it was ever seen.
    pub fn standing(&self, exporter: &str) -> Option<Standing> {
        self.shared.inbox.notes().places.get(exporter).copied()
    }

    /// Moves an exporter's place, on disk with the next commit.
    pub fn set_place(&self, exporter: &str, seq: u64) {
        self.shared.inbox.place(exporter, seq);
        held(&self.shared.ring).taken(exporter, seq);
    }

    /// Moves an exporter's place in memory only: what it stepped over was not for it, and costs nothing to read again.
    pub fn step_to(&self, exporter: &str, seq: u64) {
        held(&self.shared.ring).taken(exporter, seq);
    }

    /// An exporter that is gone holds nothing back in memory.
    pub fn leave(&self, exporter: &str) {
        held(&self.shared.ring).leave(exporter);
    }

    /// Names the exporters that there are: the places of all others no longer hold anything back. Until this is
    /// called every place on disk does.
    pub fn set_exporters(&self, names: &[&str]) {
        self.shared.inbox.exporters(names);
    }

    /// The newest place on disk, and a way to wait for the next.
    pub fn tip(&self) -> watch::Receiver<u64> {
        self.shared.tip.subscribe()
    }

    /// What follows `after`, if all of it is still in memory: then neither the disk nor JSON is touched.
    pub fn at_hand(&self, after: u64, most: usize, most_bytes: usize) -> Option<Stretch> {
        held(&self.shared.ring).after(after, most, most_bytes)
    }

    /// What follows `after`, from the disk. At least one record where there is one, then as many as fit.
    pub fn read(
        &self,
        after: u64,
        most: usize,
        most_bytes: usize,
    ) -> Result<Stretch, JournalError> {
        let read = self.look(|history| history.stretch(after, most, most_bytes));
        let (stretch, unreadable) = read.inspect_err(|error| self.suspect(error))?;
        held(&self.shared.state).unreadable += unreadable;
        Ok(stretch)
    }

    /// A reader met damage: the writer is asked to set the file aside.
    fn suspect(&self, error: &JournalError) {
        if let JournalError::Store { source, .. } = error
            && file::is_corrupt(source)
        {
            self.shared.inbox.suspect();
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.inbox.close();
        let thread = held(&self.thread).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            error!("the journal's thread broke down");
        }
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// A lock that a panicking holder left behind is as good as any: every critical section leaves its value whole.
pub(crate) fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
