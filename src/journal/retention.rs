//! What goes when it is old or there is too much of it: passes before failures, and what every exporter has taken
//! before what one of them still waits for. In small steps, so that a commit never waits for long.

use std::time::Duration;

use rusqlite::{Connection, params};
use tokio::time::Instant;
use tracing::warn;

use super::file::{METRICS, number, signed, unsigned};
use super::inbox::Notes;
use super::store::Store;
use super::{Limits, Shared, held};
use crate::clock;

/// The most records of one step.
const STEP: i64 = 256;

/// Between two looks at what is old.
const EVERY: Duration = Duration::from_secs(1);

/// How long readings of the instruments wait for an exporter, and how many bytes of them.
const KEEP_METRICS: Duration = Duration::from_hours(24);
const MOST_METRICS: u64 = 64 << 20;

/// When and what to let go.
pub(super) struct Retention {
    limits: Limits,
    looked: Option<Instant>,
    more: bool,
    /// No pass is left up to here.
    passes_from: u64,
    warned: bool,
}

/// One record that may go.
struct Old {
    seq: u64,
    kind: i64,
}

impl Retention {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, looked: None, more: false, passes_from: 0, warned: false }
    }

    /// Whether the last step left something to do.
    pub(super) fn has_more(&self) -> bool {
        self.more
    }

    /// One small step, if it is time for one.
    pub(super) fn step(&mut self, store: &Store, shared: &Shared) -> rusqlite::Result<()> {
        let waited = self.looked.is_none_or(|looked| looked.elapsed() >= EVERY);
        if !waited && !self.more {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        let notes = shared.inbox.notes();
        let taken = taken(&notes, store.last_seq());
        let old = self.find(store, taken)?;
        self.more = !old.is_empty();
        if !old.is_empty() {
            remove(&store.connection, &old)?;
            self.account(&old, taken, shared);
        }
        self.shrink(store)?;
        held(&shared.state).bytes = store.bytes()?;
        Ok(())
    }

    /// What goes next.
    fn find(&mut self, store: &Store, taken: u64) -> rusqlite::Result<Vec<Old>> {
        let connection = &store.connection;
        // The newest record stays, so that places never start again.
        let end = store.last_seq().saturating_sub(1);
        let metrics = self.find_metrics(connection, taken.min(end), end)?;
        if !metrics.is_empty() {
            return Ok(metrics);
        }
        let now = clock::now();
        let too_much = store.bytes()? > self.limits.max_bytes;
        let young = if too_much { u64::MAX } else { (now - self.limits.keep).nanos() };
        let passes = self.find_passes(connection, taken.min(end), young)?;
        if !passes.is_empty() {
            return Ok(passes);
        }
        let young = if too_much { u64::MAX } else { (now - self.limits.keep_failures).nanos() };
        let failures = oldest(connection, taken.min(end), young)?;
        if !failures.is_empty() || !too_much {
            return Ok(failures);
        }
        oldest(connection, end, u64::MAX)
    }

    /// Readings that every exporter has taken, or that are too old or too many.
    fn find_metrics(
        &self,
        connection: &Connection,
        taken: u64,
        end: u64,
    ) -> rusqlite::Result<Vec<Old>> {
        let bytes = number(
            connection,
            "SELECT ifnull(sum(length(body)), 0) FROM record INDEXED BY metrics WHERE kind = 1",
        )?;
        let too_many = bytes > MOST_METRICS.min(self.limits.max_bytes / 2);
        let young = (clock::now() - KEEP_METRICS).nanos();
        let mut select = connection.prepare_cached(
            "SELECT seq FROM record INDEXED BY metrics
             WHERE kind = 1 AND seq <= ?1 AND (seq <= ?2 OR due < ?3 OR ?4) ORDER BY seq LIMIT ?5",
        )?;
        let most = if too_many { 16 } else { STEP };
        let rows = select.query_map(
            params![signed(end), signed(taken), signed(young), too_many, most],
            |row| Ok(Old { seq: unsigned(row.get(0)?), kind: METRICS }),
        )?;
        rows.collect()
    }

    fn find_passes(
        &mut self,
        connection: &Connection,
        taken: u64,
        young: u64,
    ) -> rusqlite::Result<Vec<Old>> {
        let mut select = connection.prepare_cached(
            "SELECT seq, kind, due FROM record WHERE seq > ?1 AND seq <= ?2 AND kind = 0
                 AND verdict NOT IN ('fail', 'error')
             ORDER BY seq LIMIT ?3",
        )?;
        let next = params![signed(self.passes_from), signed(taken), STEP];
        let found: Vec<(Old, i64)> = select
            .query_map(next, |row| Ok((old(row)?, row.get(2)?)))?
            .collect::<rusqlite::Result<_>>()?;
        // Failures that stay are not looked at again.
        if let Some((first, _)) = found.first() {
            self.passes_from = first.seq - 1;
        }
        Ok(found
            .into_iter()
            .filter(|(_, due)| unsigned(*due) < young)
            .map(|(old, _)| old)
            .collect())
    }

    /// Counts what went before an exporter had it, and says so once.
    fn account(&mut self, gone: &[Old], taken: u64, shared: &Shared) {
        let seqs = |metrics: bool| -> Vec<u64> {
            let lost =
                gone.iter().filter(|old| old.seq > taken && (old.kind == METRICS) == metrics);
            lost.map(|old| old.seq).collect()
        };
        let (outcomes, metrics) = (seqs(false), seqs(true));
        if outcomes.is_empty() && metrics.is_empty() {
            return;
        }
        shared.inbox.lost(&outcomes, &metrics);
        if !std::mem::replace(&mut self.warned, true) {
            warn!(
                "the journal is full of what an exporter has not taken: the oldest go, and are counted"
            );
        }
    }

    /// Gives pages back to the file system where more than a quarter of the file is empty.
    fn shrink(&mut self, store: &Store) -> rusqlite::Result<()> {
        let free = number(&store.connection, "PRAGMA freelist_count")?;
        let pages = number(&store.connection, "PRAGMA page_count")?;
        if free > 1024 && free > pages / 4 {
            store.connection.execute_batch("PRAGMA incremental_vacuum(256)")?;
            self.more = true;
        }
        Ok(())
    }
}

/// Up to where every exporter has taken everything.
fn taken(notes: &Notes, last_seq: u64) -> u64 {
    let counts = |name: &String| notes.exporters.as_ref().is_none_or(|there| there.contains(name));
    let places = notes.places.iter().filter(|(name, _)| counts(name));
    places.map(|(_, standing)| standing.seq).min().unwrap_or(last_seq)
}

/// The oldest records of any verdict.
fn oldest(connection: &Connection, up_to: u64, young: u64) -> rusqlite::Result<Vec<Old>> {
    // By age it is enough to look at the oldest: what is behind a younger one waits for it.
    let mut select = connection.prepare_cached(
        "SELECT seq, kind FROM (SELECT seq, kind, due FROM record WHERE seq <= ?1 ORDER BY seq LIMIT ?3)
         WHERE due < ?2",
    )?;
    let found = select.query_map(params![signed(up_to), signed(young), STEP], old)?;
    found.collect()
}

fn old(row: &rusqlite::Row<'_>) -> rusqlite::Result<Old> {
    Ok(Old { seq: unsigned(row.get(0)?), kind: row.get(1)? })
}

fn remove(connection: &Connection, old: &[Old]) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    let mut delete = transaction.prepare_cached("DELETE FROM record WHERE seq = ?1")?;
    for Old { seq, .. } in old {
        delete.execute([signed(*seq)])?;
    }
    drop(delete);
    transaction.commit()
}
