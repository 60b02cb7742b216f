//! An outbox as others see it: asked how it is doing, and told to stop.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::Progress;
use crate::clock::{self, Timestamp};
use crate::journal::{Journal, Standing, held};

/// How an outbox is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxState {
    /// The exporter's name.
    pub name: String,
    /// How many records of the journal it has not come past.
    pub depth: u64,
    /// How old the oldest record is that it tries to send.
    pub oldest_age: Option<Duration>,
    /// Records that were taken.
    pub sent: u64,
    /// Items that the other side left out of batches that it took.
    pub rejected: u64,
    /// Records that were refused for good, and stepped over.
    pub refused: u64,
    /// Records that the journal had no room for until the exporter would take them.
    pub lost: u64,
    /// Why the last batch was put off, while that is so.
    pub failing: Option<String>,
    /// When it is sent again.
    pub next_try: Option<Timestamp>,
}

/// What became of an outbox that was stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlushReport {
    /// The exporter's name.
    pub name: String,
    /// How many records were taken while it was being stopped.
    pub sent: u64,
    /// How many stay for the next start.
    pub left: u64,
    /// Why they stay.
    pub failing: Option<String>,
}

/// An outbox that runs.
pub struct OutboxHandle {
    pub(super) name: String,
    pub(super) journal: Arc<Journal>,
    pub(super) progress: Arc<Mutex<Progress>>,
    pub(super) takes_metrics: bool,
    /// Until when it has to be done; none while nobody asked it to stop.
    pub(super) stop: watch::Sender<Option<Instant>>,
    pub(super) task: JoinHandle<()>,
}

impl OutboxHandle {
    /// How it is doing.
    pub fn state(&self) -> OutboxState {
        let tip = *self.journal.tip().borrow();
        let Standing { lost_outcomes, lost_metrics, .. } =
            self.journal.standing(&self.name).unwrap_or_default();
        let progress = held(&self.progress);
        OutboxState {
            name: self.name.clone(),
            depth: tip.saturating_sub(progress.place),
            oldest_age: progress.oldest.map(|oldest| clock::now().since(oldest)),
            sent: progress.sent,
            rejected: progress.rejected,
            refused: progress.refused,
            lost: if self.takes_metrics { lost_metrics } else { lost_outcomes },
            failing: progress.failing.clone(),
            next_try: progress.next_try,
        }
    }

    /// Sends what there is, for no longer than `limit`, and stops.
    pub async fn flush(self, limit: Duration) -> FlushReport {
        let deadline = Instant::now() + limit;
        let before = held(&self.progress).sent;
        if timeout_at(deadline, self.journal.settle()).await.is_err() {
            warn!(exporter = self.name, "the journal was not done in time");
        }
        self.stop.send_replace(Some(deadline));
        let abort = self.task.abort_handle();
        // The task keeps the deadline itself; the second is for a read of the disk that hangs.
        let ended = timeout_at(deadline + Duration::from_secs(1), self.task).await;
        if !matches!(ended, Ok(Ok(()))) {
            abort.abort();
            warn!(exporter = self.name, "the outbox did not stop by itself");
        }
        let tip = *self.journal.tip().borrow();
        let progress = held(&self.progress);
        FlushReport {
            sent: progress.sent - before,
            left: tip.saturating_sub(progress.place),
            failing: progress.failing.clone(),
            name: self.name,
        }
    }
}

impl fmt::Debug for OutboxHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboxHandle").field("name", &self.name).finish_non_exhaustive()
    }
}
