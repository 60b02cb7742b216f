//! One transaction for all that is written at once: records, the ledger and places together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::file::{
    METRICS, OUTCOME, VERSION, begin, check, connect, crc, is_damage, number, signed, unsigned,
    word,
};
use super::inbox::{Ending, Job, Notes};
use super::salvage::{self, Recovered};
use super::{FILE, JournalError, Settled, Shared, Standing};
use crate::clock::Timestamp;
use crate::export::{Kept, Record};
use crate::failure::{Blame, ErrorType};
use crate::outcome::{Outcome, Verdict};

/// The file, open for writing, and what of it is at hand.
pub(super) struct Store {
    pub(super) connection: Connection,
    folder: PathBuf,
    lines: HashMap<Arc<str>, Line>,
    last_seq: u64,
    notes: Notes,
}

/// A probe's line of the ledger, without its counts.
#[derive(Clone, Debug, Default)]
struct Line {
    id: i64,
    settled_through: u64,
    verdict: Option<Verdict>,
    streak: u64,
    last_seq: Option<u64>,
    ahead: BTreeSet<u64>,
}

/// What one transaction kept.
#[derive(Default)]
pub(super) struct Written {
    /// The new records.
    pub(super) kept: Vec<Kept>,
    /// The outcomes that nobody has been told of.
    pub(super) untold: Vec<Arc<Outcome>>,
    last_seq: u64,
    lines: HashMap<Arc<str>, Draft>,
}

/// A line as it will be, and what it adds to the counts.
#[derive(Default)]
struct Draft {
    line: Line,
    /// Whether runs of it are noted that were settled ahead of their turn.
    noted_ahead: bool,
    counts: BTreeMap<Ending, u64>,
}

impl Store {
    /// Opens the file of a state folder. A damaged one is set aside, and what can be read of it is taken over.
    pub(super) fn open(folder: &Path) -> Result<(Self, Option<Recovered>), JournalError> {
        match Self::open_whole(folder) {
            Ok(store) => Ok((store, None)),
            Err(JournalError::Store { source, .. }) if is_damage(&source) => {
                let (store, recovered) = salvage::recover(folder, &source)?;
                Ok((store, Some(recovered)))
            }
            Err(error) => Err(error),
        }
    }

    /// Opens the file and looks it over; damage is an error.
    pub(super) fn open_whole(folder: &Path) -> Result<Self, JournalError> {
        let path = folder.join(FILE);
        let wrong = |source| JournalError::Store { path: path.clone(), source };
        let connection = connect(&path).map_err(wrong)?;
        let version: i64 =
            connection.query_one("PRAGMA user_version", [], |row| row.get(0)).map_err(wrong)?;
        match version {
            0 => begin(&connection).map_err(wrong)?,
            VERSION => check(&connection, &path).map_err(wrong)?,
            version => return Err(JournalError::Later { path, version }),
        }
        let mut store = Self {
            connection,
            folder: folder.to_owned(),
            lines: HashMap::new(),
            last_seq: 0,
            notes: Notes::default(),
        };
        store.load().map_err(wrong)?;
        Ok(store)
    }

    /// Sets the damaged file aside and goes on with what can be read of it.
    pub(super) fn replace(&mut self, damage: &rusqlite::Error) -> Result<Recovered, JournalError> {
        // Lets go of the damaged file before it is renamed.
        if let Ok(nowhere) = Connection::open_in_memory() {
            self.connection = nowhere;
        }
        let folder = self.folder.clone();
        let (store, recovered) = salvage::recover(&folder, damage)?;
        let reached = self.last_seq.max(store.last_seq);
        *self = store;
        // Places that outboxes hold in memory stay below what comes next.
        self.last_seq = reached;
        Ok(recovered)
    }

    /// The place of the newest record.
    pub(super) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Hands the notes that were found to those who keep them.
    pub(super) fn recall(&self, shared: &Shared) {
        shared.inbox.remember(self.notes.clone());
    }

    /// The bytes in use in the file.
    pub(super) fn bytes(&self) -> rusqlite::Result<u64> {
        let pages = number(&self.connection, "PRAGMA page_count")?;
        let free = number(&self.connection, "PRAGMA freelist_count")?;
        let size = number(&self.connection, "PRAGMA page_size")?;
        Ok(pages.saturating_sub(free).saturating_mul(size))
    }

    /// Reads the ledger's lines and the notes.
    fn load(&mut self) -> rusqlite::Result<()> {
        self.lines = lines(&self.connection)?;
        let newest = number(&self.connection, "SELECT ifnull(max(seq), 0) FROM record")?;
        let furthest = number(&self.connection, "SELECT ifnull(max(seq), 0) FROM place")?;
        self.last_seq = newest.max(furthest);
        self.notes = Notes {
            fold: meta(&self.connection, "fold")?.unwrap_or(0),
            created: Timestamp::from_nanos(meta(&self.connection, "created")?.unwrap_or(0)),
            places: places(&self.connection)?,
            ..Notes::default()
        };
        Ok(())
    }

    /// Writes all of it in one transaction, or nothing.
    pub(super) fn write<'a>(
        &mut self,
        jobs: impl Iterator<Item = &'a Job>,
        notes: Option<&Notes>,
    ) -> rusqlite::Result<Written> {
        let behavior = TransactionBehavior::Immediate;
        let transaction = self.connection.transaction_with_behavior(behavior)?;
        let mut written = Written { last_seq: self.last_seq, ..Written::default() };
        for job in jobs {
            match job {
                Job::Settled { settled, told } => {
                    let draft = written.draft(&self.lines, &settled.identity, &transaction)?;
                    draft.settle(settled.settled_through);
                    keep(&transaction, &mut written, settled, *told)?;
                }
                Job::Metrics { encoded, at } => {
                    keep_metrics(&transaction, &mut written, encoded, *at)?;
                }
                Job::Count { identity, ending, runs, settled_through } => {
                    let draft = written.draft(&self.lines, identity, &transaction)?;
                    draft.settle(*settled_through);
                    *draft.counts.entry(*ending).or_default() += runs;
                }
                Job::Note | Job::Barrier(_) => {}
                #[cfg(test)]
                Job::Do(_) => {}
            }
        }
        for draft in written.lines.values_mut() {
            draft.write(&transaction)?;
        }
        if let Some(notes) = notes {
            write_notes(&transaction, notes)?;
        }
        transaction.commit()?;
        self.last_seq = written.last_seq;
        for (identity, draft) in std::mem::take(&mut written.lines) {
            self.lines.insert(identity, draft.line);
        }
        Ok(written)
    }

    /// Takes a record over from a damaged file, at its own place.
    pub(super) fn take_over(&mut self, row: &salvage::Row) -> rusqlite::Result<()> {
        let mut insert = self.connection.prepare_cached(INSERT)?;
        insert.execute(params![
            row.seq,
            row.kind,
            row.probe,
            row.before,
            row.name,
            row.due,
            row.started,
            row.took,
            row.verdict,
            row.error_type,
            row.run,
            row.crc,
            row.body
        ])?;
        Ok(())
    }

    /// After records and lines were taken over.
    pub(super) fn reload(&mut self) -> rusqlite::Result<()> {
        self.load()
    }

    /// Gives the log's space back and lets go of the file.
    pub(super) fn close(self) {
        let checked = self.connection.query_one("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = checked {
            tracing::warn!(%error, "the journal's log stays for the next start");
        }
    }
}

impl Written {
    /// The line of a probe, as it will be.
    fn draft(
        &mut self,
        lines: &HashMap<Arc<str>, Line>,
        identity: &Arc<str>,
        transaction: &Transaction<'_>,
    ) -> rusqlite::Result<&mut Draft> {
        if !self.lines.contains_key(identity) {
            let draft = match lines.get(identity) {
                Some(line) => {
                    let noted_ahead = !line.ahead.is_empty();
                    Draft { line: line.clone(), noted_ahead, ..Draft::default() }
                }
                None => Draft::begin(transaction, identity)?,
            };
            self.lines.insert(Arc::clone(identity), draft);
        }
        Ok(self.lines.entry(Arc::clone(identity)).or_default())
    }
}

impl Draft {
    /// A probe that was never seen before.
    fn begin(transaction: &Transaction<'_>, identity: &str) -> rusqlite::Result<Self> {
        transaction
            .prepare_cached("INSERT INTO probe (identity) VALUES (?1)")?
            .execute([identity])?;
        let id = transaction.last_insert_rowid();
        Ok(Self { line: Line { id, ..Line::default() }, ..Self::default() })
    }

    /// Every run that was due by then is settled. It can go back: the clock may have been set back.
    fn settle(&mut self, through: Timestamp) {
        self.line.settled_through = through.nanos();
    }

    /// One more run.
    fn count(&mut self, outcome: &Outcome, seq: u64) {
        let ending = (outcome.verdict, outcome.error_type, outcome.blame);
        *self.counts.entry(ending).or_default() += 1;
        self.line.last_seq = Some(seq);
        self.line.ahead.insert(outcome.due.nanos());
        if matches!(outcome.verdict, Verdict::Skipped | Verdict::Missed) {
            return;
        }
        let same = self.line.verdict == Some(outcome.verdict);
        self.line.streak = if same { self.line.streak + 1 } else { 1 };
        self.line.verdict = Some(outcome.verdict);
    }

    fn write(&mut self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        self.write_line(transaction)?;
        let mut count = transaction.prepare_cached(
            "INSERT INTO ledger_count (probe, verdict, error_type, blame, n) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET n = n + excluded.n",
        )?;
        for ((verdict, error_type, blame), runs) in &self.counts {
            count.execute(params![
                self.line.id,
                verdict.as_str(),
                error_type.map_or("", ErrorType::as_str),
                blame.map_or("", Blame::as_str),
                signed(*runs)
            ])?;
        }
        Ok(())
    }

    fn write_line(&mut self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let line = &mut self.line;
        // Only what is settled before its turn is noted: as a rule nothing.
        line.ahead = line.ahead.split_off(&line.settled_through.saturating_add(1));
        if self.noted_ahead {
            transaction
                .prepare_cached("DELETE FROM ahead WHERE probe = ?1 AND due <= ?2")?
                .execute(params![line.id, signed(line.settled_through)])?;
        }
        for due in &line.ahead {
            transaction
                .prepare_cached("INSERT OR IGNORE INTO ahead VALUES (?1, ?2)")?
                .execute(params![line.id, signed(*due)])?;
        }
        let runs: u64 = self.counts.values().sum();
        transaction
            .prepare_cached(
                "INSERT INTO ledger (probe, settled_through, planned, last_verdict, streak, last_seq)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT DO UPDATE SET settled_through = excluded.settled_through,
                     planned = planned + excluded.planned, last_verdict = excluded.last_verdict,
                     streak = excluded.streak, last_seq = excluded.last_seq",
            )?
            .execute(params![
                line.id,
                signed(line.settled_through),
                signed(runs),
                line.verdict.map(Verdict::as_str),
                signed(line.streak),
                line.last_seq.map(signed)
            ])?;
        Ok(())
    }
}

const INSERT: &str = "
    INSERT OR IGNORE INTO record
        (seq, kind, probe, before, name, due, started, took, verdict, error_type, run, crc, body)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";

/// Keeps a run, unless it is kept already.
fn keep(
    transaction: &Transaction<'_>,
    written: &mut Written,
    settled: &Settled,
    told: bool,
) -> rusqlite::Result<()> {
    let Some(draft) = written.lines.get_mut(&settled.identity) else { return Ok(()) };
    let outcome = &settled.outcome;
    let body = serde_json::to_vec(outcome)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let seq = written.last_seq + 1;
    let inserted = transaction.prepare_cached(INSERT)?.execute(params![
        signed(seq),
        OUTCOME,
        draft.line.id,
        draft.line.last_seq.map(signed),
        outcome.probe.as_str(),
        signed(outcome.due.nanos()),
        signed(outcome.started.nanos()),
        signed(u64::try_from(outcome.took.as_nanos()).unwrap_or(u64::MAX)),
        outcome.verdict.as_str(),
        outcome.error_type.map(ErrorType::as_str),
        &*outcome.run,
        crc(signed(outcome.due.nanos()), signed(outcome.started.nanos()), &body),
        body
    ])?;
    if inserted == 0 {
        return Ok(());
    }
    draft.count(outcome, seq);
    written.last_seq = seq;
    written.kept.push(Kept { seq, record: Record::Outcome(Arc::clone(outcome)) });
    if !told {
        written.untold.push(Arc::clone(outcome));
    }
    Ok(())
}

fn keep_metrics(
    transaction: &Transaction<'_>,
    written: &mut Written,
    encoded: &Bytes,
    at: Timestamp,
) -> rusqlite::Result<()> {
    let (seq, at) = (written.last_seq + 1, signed(at.nanos()));
    transaction
        .prepare_cached(
            "INSERT INTO record (seq, kind, due, crc, body) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![signed(seq), METRICS, at, crc(at, at, encoded), &**encoded])?;
    written.last_seq = seq;
    written.kept.push(Kept { seq, record: Record::Metrics(encoded.clone()) });
    Ok(())
}

fn write_notes(transaction: &Transaction<'_>, notes: &Notes) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT OR REPLACE INTO meta VALUES ('fold', ?1)")?
        .execute([signed(notes.fold)])?;
    let mut place =
        transaction.prepare_cached("INSERT OR REPLACE INTO place VALUES (?1, ?2, ?3, ?4)")?;
    for (exporter, standing) in &notes.places {
        let Standing { seq, lost_outcomes, lost_metrics } = *standing;
        place.execute(params![
            exporter,
            signed(seq),
            signed(lost_outcomes),
            signed(lost_metrics)
        ])?;
    }
    Ok(())
}

fn lines(connection: &Connection) -> rusqlite::Result<HashMap<Arc<str>, Line>> {
    let mut lines = HashMap::new();
    let mut identities = HashMap::new();
    let mut select = connection.prepare(
        "SELECT probe.identity, probe.id, ifnull(settled_through, 0), last_verdict, ifnull(streak, 0), last_seq
         FROM probe LEFT JOIN ledger ON probe.id = ledger.probe",
    )?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let identity: Arc<str> = row.get(0)?;
        let verdict: Option<String> = row.get(3)?;
        let line = Line {
            id: row.get(1)?,
            settled_through: unsigned(row.get(2)?),
            verdict: verdict.as_deref().and_then(word),
            streak: unsigned(row.get(4)?),
            last_seq: row.get::<_, Option<i64>>(5)?.map(unsigned),
            ahead: BTreeSet::new(),
        };
        identities.insert(line.id, Arc::clone(&identity));
        lines.insert(identity, line);
    }
    let mut select = connection.prepare("SELECT probe, due FROM ahead")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let identity = identities.get(&row.get::<_, i64>(0)?);
        if let Some(line) = identity.and_then(|identity| lines.get_mut(identity)) {
            line.ahead.insert(unsigned(row.get(1)?));
        }
    }
    Ok(lines)
}

fn places(connection: &Connection) -> rusqlite::Result<BTreeMap<String, Standing>> {
    let mut select =
        connection.prepare("SELECT exporter, seq, lost_outcomes, lost_metrics FROM place")?;
    let rows = select.query_map([], |row| {
        let standing = Standing {
            seq: unsigned(row.get(1)?),
            lost_outcomes: unsigned(row.get(2)?),
            lost_metrics: unsigned(row.get(3)?),
        };
        Ok((row.get(0)?, standing))
    })?;
    rows.collect()
}

fn meta(connection: &Connection, name: &str) -> rusqlite::Result<Option<u64>> {
    let value: Option<i64> = connection
        .query_one("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0))
        .optional()?;
    Ok(value.map(unsigned))
}
