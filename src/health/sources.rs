//! Where the instruments that are asked, rather than told, get their answers.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use arc_swap::ArcSwap;
use opentelemetry::metrics::AsyncInstrument;

use super::totals::Snapshot;
use super::{JournalReading, OutboxReading};

/// What changes without a run.
pub(super) struct Sources {
    pub(super) snapshot: ArcSwap<Snapshot>,
    reload_good: AtomicBool,
    clock_offset: Mutex<Option<f64>>,
    outboxes: Mutex<Option<AskOutboxes>>,
    journal: Mutex<Option<AskJournal>>,
}

pub(super) type AskOutboxes = Box<dyn Fn() -> Vec<OutboxReading> + Send + Sync>;
pub(super) type AskJournal = Box<dyn Fn() -> JournalReading + Send + Sync>;

impl Sources {
    pub(super) fn reloaded(&self, good: bool) {
        self.reload_good.store(good, Ordering::Relaxed);
    }

    pub(super) fn reload_good(&self) -> bool {
        self.reload_good.load(Ordering::Relaxed)
    }

    pub(super) fn set_clock_offset(&self, seconds: f64) {
        *self.clock_offset.lock().unwrap_or_else(PoisonError::into_inner) = Some(seconds);
    }

    pub(super) fn clock_offset(&self) -> Option<f64> {
        *self.clock_offset.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ask_outboxes(&self, ask: AskOutboxes) {
        *self.outboxes.lock().unwrap_or_else(PoisonError::into_inner) = Some(ask);
    }

    pub(super) fn ask_journal(&self, ask: AskJournal) {
        *self.journal.lock().unwrap_or_else(PoisonError::into_inner) = Some(ask);
    }

    pub(super) fn outboxes(&self) -> Vec<OutboxReading> {
        let ask = self.outboxes.lock().unwrap_or_else(PoisonError::into_inner);
        ask.as_ref().map(|ask| ask()).unwrap_or_default()
    }

    pub(super) fn of_journal(
        &self,
        instrument: &dyn AsyncInstrument<u64>,
        value: impl Fn(&JournalReading) -> u64,
    ) {
        let ask = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ask) = ask.as_ref() {
            instrument.observe(value(&ask()), &[]);
        }
    }
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            snapshot: ArcSwap::default(),
            // Whoever runs has read a good configuration.
            reload_good: AtomicBool::new(true),
            clock_offset: Mutex::default(),
            outboxes: Mutex::default(),
            journal: Mutex::default(),
        }
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}
