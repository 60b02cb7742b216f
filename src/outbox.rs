//! The journal's way to one exporter: in order, from its own place, as often as it takes.
//!
//! One task an exporter, so that one that is down or slow holds up neither probing nor another. The place is written
//! after a batch was taken: a crash in between sends that batch again, with the same ids; otherwise it is sent once.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use rand::RngExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use crate::clock::{self, Timestamp};
use crate::export::{Exporter, Kept, Receipt, Record, Refusal};
use crate::journal::{Journal, Stretch, held};

mod handle;

pub use handle::{FlushReport, OutboxHandle, OutboxState};

/// How an outbox behaves.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a record waits for others to share its batch.
    pub linger: Duration,
    /// The most bytes of one batch, as the journal guesses them.
    pub most_bytes: usize,
    /// The shortest wait after a batch was put off.
    pub first_wait: Duration,
    /// The longest, unless the other side asks for more.
    pub longest_wait: Duration,
    /// The longest that the other side can ask for.
    pub longest_asked: Duration,
    /// How long one batch may take to be sent.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            linger: Duration::from_secs(1),
            most_bytes: 4 << 20,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_mins(1),
            longest_asked: Duration::from_mins(5),
            patience: Duration::from_mins(1),
        }
    }
}

/// What an outbox says of itself, shared with those who ask.
#[derive(Debug, Default)]
struct Progress {
    place: u64,
    /// Since when the record that is next has been waiting.
    oldest: Option<Timestamp>,
    sent: u64,
    rejected: u64,
    refused: u64,
    failing: Option<String>,
    next_try: Option<Timestamp>,
}

/// The journal's way to one exporter.
#[derive(Debug)]
pub struct Outbox {
    name: String,
    journal: Arc<Journal>,
    exporter: Arc<dyn Exporter>,
    limits: Limits,
    place: u64,
    progress: Arc<Mutex<Progress>>,
    tip: watch::Receiver<u64>,
    stop: watch::Receiver<Option<Instant>>,
    /// How often the batch at hand was put off, until when, and whether the other side named that time.
    put_off: u32,
    until: Instant,
    asked: bool,
}

/// Records that an exporter wants, and the place up to which nothing else is for it.
struct Batch {
    records: Vec<Kept>,
    through: u64,
}

/// Why an outbox ends: it was asked to, and is done or out of time.
struct Stopped;

impl Outbox {
    /// Starts sending from where this exporter was. One that was never seen begins with what this run of the agent
    /// keeps, and its place is written at once: what is kept before its first success must reach it even if picket
    /// is killed before that.
    pub fn start(
        journal: Arc<Journal>,
        exporter: Arc<dyn Exporter>,
        limits: Limits,
    ) -> OutboxHandle {
        let name = exporter.name().to_owned();
        let place =
            journal.standing(&name).map_or_else(|| journal.beginning(), |standing| standing.seq);
        journal.set_place(&name, place);
        let progress = Arc::new(Mutex::new(Progress { place, ..Progress::default() }));
        let (stop, stopped) = watch::channel(None);
        let takes_metrics = exporter.wants(&Record::Metrics(bytes::Bytes::new()));
        let outbox = Self {
            name: name.clone(),
            tip: journal.tip(),
            journal: Arc::clone(&journal),
            exporter,
            limits,
            place,
            progress: Arc::clone(&progress),
            stop: stopped,
            put_off: 0,
            until: Instant::now(),
            asked: false,
        };
        let task = tokio::spawn(outbox.run());
        OutboxHandle { name, journal, progress, takes_metrics, stop, task }
    }

    async fn run(mut self) {
        while let Ok(batch) = self.next_batch().await {
            let Batch { records, through } = batch;
            if !records.is_empty() && self.deliver(records).await.is_err() {
                break;
            }
            self.come_to(through, false);
        }
        self.journal.set_place(&self.name, self.place);
        self.journal.leave(&self.name);
    }

    /// The next records that the exporter wants: as many as it takes at once, or what there is after a short wait.
    async fn next_batch(&mut self) -> Result<Batch, Stopped> {
        let most = self.exporter.most().max(1);
        loop {
            if self.stop.borrow().is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(Stopped);
            }
            self.something_new().await?;
            self.linger(most).await;
            let mut batch = Batch { records: Vec::new(), through: self.place };
            while batch.records.len() < most {
                let wanted = most - batch.records.len();
                let stretch = self.read(batch.through, wanted).await?;
                if stretch.through <= batch.through {
                    break;
                }
                batch.through = stretch.through;
                let wanted = stretch.records.into_iter();
                batch.records.extend(wanted.filter(|kept| self.exporter.wants(&kept.record)));
                // A stretch is bounded in bytes; a batch is one stretch, or several of what was mostly not wanted.
                if batch.records.len() * 2 > most {
                    break;
                }
            }
            if !batch.records.is_empty() {
                return Ok(batch);
            }
            self.come_to(batch.through, false);
        }
    }

    /// Waits until the journal has something that was not read, or says that there will be nothing more.
    async fn something_new(&mut self) -> Result<(), Stopped> {
        loop {
            if *self.tip.borrow_and_update() > self.place {
                return Ok(());
            }
            if self.stop.borrow_and_update().is_some() {
                return Err(Stopped);
            }
            let open = tokio::select! {
                changed = self.tip.changed() => changed.is_ok(),
                changed = self.stop.changed() => changed.is_ok(),
            };
            if !open {
                return Err(Stopped);
            }
        }
    }

    /// Lets a batch form, unless there is one already or the end has come.
    async fn linger(&mut self, most: usize) {
        let until = Instant::now() + self.limits.linger;
        loop {
            let waiting = self.tip.borrow_and_update().saturating_sub(self.place);
            if waiting >= most as u64 || self.stop.borrow_and_update().is_some() {
                return;
            }
            tokio::select! {
                () = sleep_until(until) => return,
                changed = self.tip.changed() => if changed.is_err() { return },
                changed = self.stop.changed() => if changed.is_err() { return },
            }
        }
    }

    /// What follows a place: from memory if it is all there, else from the disk.
    async fn read(&mut self, after: u64, most: usize) -> Result<Stretch, Stopped> {
        loop {
            // Noted first: what is committed while the disk is being read comes with the next stretch.
            let tip = *self.tip.borrow();
            if let Some(stretch) = self.journal.at_hand(after, most, self.limits.most_bytes) {
                return Ok(stretch);
            }
            let (journal, most_bytes) = (Arc::clone(&self.journal), self.limits.most_bytes);
            let read = tokio::task::spawn_blocking(move || journal.read(after, most, most_bytes));
            match read.await {
                Ok(Ok(mut stretch)) => {
                    // Nothing more on disk: what was between is gone.
                    if stretch.through == after {
                        stretch.through = tip.max(after);
                    }
                    return Ok(stretch);
                }
                Ok(Err(error)) => self.put_off(&error.to_string(), None),
                Err(error) => self.put_off(&error.to_string(), None),
            }
            self.wait().await?;
        }
    }

    /// Sends one batch until it is taken or refused for good; in parts, where it is too large.
    async fn deliver(&mut self, batch: Vec<Kept>) -> Result<(), Stopped> {
        let mut parts: Vec<&[Kept]> = vec![&batch];
        while let Some(part) = parts.pop() {
            let Some(last) = part.last().map(|kept| kept.seq) else { continue };
            held(&self.progress).oldest = part.first().map(since);
            match self.send(part).await? {
                Ok(receipt) => {
                    self.taken(part, receipt);
                    self.come_to(last, true);
                }
                Err(Refusal::TooLarge { .. }) if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                Err(
                    Refusal::Never { reason }
                    | Refusal::TooLarge { reason }
                    | Refusal::Later { reason, .. },
                ) => {
                    self.refused(part, &reason);
                    self.come_to(last, true);
                }
            }
        }
        Ok(())
    }

    /// Sends one part until there is an answer that is not "later".
    async fn send(&mut self, part: &[Kept]) -> Result<Result<Receipt, Refusal>, Stopped> {
        loop {
            match self.try_to_send(part).await? {
                Err(Refusal::Later { reason, after }) => self.put_off(&reason, after),
                answer => {
                    self.back();
                    return Ok(answer);
                }
            }
            self.wait().await?;
        }
    }

    /// One attempt: it ends when it takes too long, or when the time to stop is up.
    async fn try_to_send(&mut self, part: &[Kept]) -> Result<Result<Receipt, Refusal>, Stopped> {
        let sent = AssertUnwindSafe(self.exporter.send(part)).catch_unwind();
        let sent = timeout(self.limits.patience, sent);
        tokio::select! {
            answer = sent => Ok(match answer {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(Refusal::Never { reason: "the exporter broke down over it".to_owned() }),
                Err(_) => Err(Refusal::Later { reason: "no answer in time".to_owned(), after: None }),
            }),
            () = out_of_time(&mut self.stop) => Err(Stopped),
        }
    }

    fn taken(&self, part: &[Kept], receipt: Receipt) {
        let Receipt { rejected, message } = receipt;
        let mut progress = held(&self.progress);
        progress.sent += part.len() as u64;
        progress.rejected += rejected;
        drop(progress);
        if rejected > 0 {
            let message = message.unwrap_or_default();
            warn!(exporter = self.name, rejected, message, "a batch was taken in part");
        }
    }

    fn refused(&self, part: &[Kept], reason: &str) {
        held(&self.progress).refused += part.len() as u64;
        warn!(
            exporter = self.name,
            records = part.len(),
            reason,
            "a batch was refused for good: it is stepped over"
        );
    }

    /// The exporter has everything up to here.
    fn come_to(&mut self, place: u64, kept: bool) {
        if place > self.place || kept {
            self.place = place;
            if kept {
                self.journal.set_place(&self.name, place);
            } else {
                self.journal.step_to(&self.name, place);
            }
        }
        let mut progress = held(&self.progress);
        progress.place = self.place;
        progress.oldest = None;
    }

    /// Notes that the batch was put off, and until when. The log hears of it once.
    fn put_off(&mut self, reason: &str, after: Option<Duration>) {
        let wait = self.limits.wait(self.put_off, after);
        self.until = Instant::now() + wait;
        self.asked = after.is_some();
        self.put_off = self.put_off.saturating_add(1);
        let mut progress = held(&self.progress);
        progress.next_try = Some(clock::now() + wait);
        let first = progress.failing.replace(reason.to_owned()).is_none();
        drop(progress);
        if first {
            warn!(
                exporter = self.name,
                reason, "a batch is put off: it is sent again until it is taken"
            );
        }
    }

    /// Waits until the batch is to be sent again. Being asked to stop cuts a wait of our own choosing short, once.
    async fn wait(&mut self) -> Result<(), Stopped> {
        loop {
            let stopping = *self.stop.borrow_and_update();
            match stopping {
                Some(deadline) if self.until >= deadline => return Err(Stopped),
                Some(_) => {
                    sleep_until(self.until).await;
                    return Ok(());
                }
                None => tokio::select! {
                    () = sleep_until(self.until) => return Ok(()),
                    changed = self.stop.changed() => {
                        changed.map_err(|_| Stopped)?;
                        self.put_off = 0;
                        if !self.asked {
                            return Ok(());
                        }
                    }
                },
            }
        }
    }

    /// Notes that there was an answer.
    fn back(&mut self) {
        self.put_off = 0;
        let mut progress = held(&self.progress);
        progress.next_try = None;
        let was_failing = progress.failing.take().is_some();
        drop(progress);
        if was_failing {
            let waiting = self.tip.borrow().saturating_sub(self.place);
            info!(exporter = self.name, waiting, "the exporter answers again");
        }
    }
}

impl Limits {
    /// How long to wait after so many batches on end were put off: drawn from a range that doubles, so that many
    /// pickets do not come back as one; or what the other side asked for.
    fn wait(&self, put_off: u32, after: Option<Duration>) -> Duration {
        if let Some(after) = after {
            return after.clamp(self.first_wait, self.longest_asked.max(self.first_wait));
        }
        let doubled =
            self.first_wait.saturating_mul(2_u32.saturating_pow(put_off.saturating_add(1)));
        let longest = doubled.min(self.longest_wait).max(self.first_wait);
        rand::rng().random_range(self.first_wait..=longest)
    }
}

/// Ends when an outbox that was asked to stop has no time left.
async fn out_of_time(stop: &mut watch::Receiver<Option<Instant>>) {
    loop {
        let deadline = *stop.borrow_and_update();
        if let Some(deadline) = deadline {
            return sleep_until(deadline).await;
        }
        if stop.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Since when a record waits; a reading of the instruments does not say, so since it was met.
fn since(kept: &Kept) -> Timestamp {
    match &kept.record {
        Record::Outcome(outcome) => outcome.due,
        Record::Metrics(_) => clock::now(),
    }
}

#[cfg(test)]
mod tests;
