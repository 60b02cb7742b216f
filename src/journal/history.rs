//! Questions to the journal: on a connection that only reads, beside a picket that writes or with none at all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OpenFlags, params};
use tracing::warn;

use super::file::{METRICS, crc, is_damage, signed, unsigned, word};
use super::{FILE, JournalError, LedgerRow, Stretch};
use crate::clock::Timestamp;
use crate::export::{Kept, Record};
use crate::outcome::{Outcome, Verdict};

/// The journal, to be read.
#[derive(Debug)]
pub struct History {
    connection: Connection,
    path: PathBuf,
    /// Which file it is: another may have taken its place.
    inode: Option<u64>,
}

/// Which outcomes are asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Due at that time or later.
    pub since: Option<Timestamp>,
    /// Of probes whose name matches, with `*` and `?`.
    pub probe: Option<String>,
    /// With one of these verdicts; with any, if none is named.
    pub verdicts: Vec<Verdict>,
    /// So many at the most; none sets no limit.
    pub limit: Option<usize>,
}

/// What the runs of one probe came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// The probe's name, or one member of its matrix.
    pub probe: String,
    /// How often it ended in which way.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// How long the runs took that were judged, in rising order.
    pub took: Vec<Duration>,
}

impl History {
    /// Opens the journal of a state folder to read it; no picket needs to run.
    pub fn open(folder: &Path) -> Result<Self, JournalError> {
        let path = folder.join(FILE);
        if !path.exists() {
            return Err(JournalError::Absent { folder: folder.to_owned() });
        }
        let connection =
            connect(&path).map_err(|source| JournalError::Store { path: path.clone(), source })?;
        let inode = inode(&path);
        Ok(Self { connection, path, inode })
    }

    /// Whether another file has taken the place of this one.
    pub(super) fn is_stale(&self) -> bool {
        inode(&self.path) != self.inode
    }

    /// The outcomes that a filter lets through, newest first.
    pub fn outcomes(&self, filter: &Filter) -> Result<Vec<Outcome>, JournalError> {
        let mut outcomes = Vec::new();
        self.each(filter, "due, started, crc, body", |row| {
            outcomes.extend(outcome(row, 0)?);
            Ok(())
        })?;
        Ok(outcomes)
    }

    /// What the runs of each probe came to, by name. Members of a matrix stand alone, named by the labels in which
    /// they differ.
    pub fn summaries(&self, filter: &Filter) -> Result<Vec<Summary>, JournalError> {
        let mut found: BTreeMap<Option<i64>, (String, Summary)> = BTreeMap::new();
        self.each(filter, "probe, name, verdict, took", |row| {
            let (probe, name): (Option<i64>, Option<String>) = (row.get(0)?, row.get(1)?);
            let verdict: Option<String> = row.get(2)?;
            let Some(verdict) = verdict.as_deref().and_then(word::<Verdict>) else { return Ok(()) };
            let entry = found
                .entry(probe)
                .or_insert_with(|| (name.unwrap_or_default(), Summary::default()));
            *entry.1.verdicts.entry(verdict).or_default() += 1;
            if verdict.good().is_some() {
                let took: Option<i64> = row.get(3)?;
                entry.1.took.push(Duration::from_nanos(unsigned(took.unwrap_or(0))));
            }
            Ok(())
        })?;
        let identities = self.identities()?;
        let mut named: Vec<(String, String, Summary)> = found
            .into_iter()
            .map(|(probe, (name, summary))| {
                let identity = probe.and_then(|probe| identities.get(&probe).cloned());
                (name, identity.unwrap_or_default(), summary)
            })
            .collect();
        named.sort_by(|one, other| (&one.0, &one.1).cmp(&(&other.0, &other.1)));
        Ok(name_apart(named))
    }

    /// A probe's newest outcomes, newest first.
    pub fn recent(&self, identity: &str, limit: usize) -> Result<Vec<Outcome>, JournalError> {
        self.ask(|connection| {
            let mut select = connection.prepare_cached(
                "WITH RECURSIVE chain (seq) AS (
                     SELECT last_seq FROM ledger JOIN probe ON probe.id = ledger.probe WHERE identity = ?1
                     UNION ALL
                     SELECT record.before FROM chain JOIN record ON record.seq = chain.seq
                     WHERE record.before IS NOT NULL
                     LIMIT ?2
                 )
                 SELECT due, started, crc, body FROM chain JOIN record ON record.seq = chain.seq",
            )?;
            let mut rows = select.query(params![identity, whole(limit)])?;
            let mut outcomes = Vec::new();
            while let Some(row) = rows.next()? {
                outcomes.extend(outcome(row, 0)?);
            }
            Ok(outcomes)
        })
    }

    /// The ledger.
    pub fn ledger(&self) -> Result<Vec<LedgerRow>, JournalError> {
        self.ask(|connection| {
            // One transaction: the counts belong to the lines.
            let transaction = connection.unchecked_transaction()?;
            let mut rows = ledger_rows(&transaction)?;
            let mut select = transaction
                .prepare_cached("SELECT probe, verdict, error_type, blame, n FROM ledger_count")?;
            let mut counts = select.query([])?;
            while let Some(count) = counts.next()? {
                let Some(line) = rows.get_mut(&count.get::<_, i64>(0)?) else { continue };
                let texts: (String, String, String) = (count.get(1)?, count.get(2)?, count.get(3)?);
                let Some(verdict) = word(&texts.0) else { continue };
                line.counts.push((
                    verdict,
                    word(&texts.1),
                    word(&texts.2),
                    unsigned(count.get(4)?),
                ));
            }
            let mut select =
                transaction.prepare_cached("SELECT probe, due FROM ahead ORDER BY due")?;
            let mut ahead = select.query([])?;
            while let Some(row) = ahead.next()? {
                if let Some(line) = rows.get_mut(&row.get::<_, i64>(0)?) {
                    line.ahead.push(Timestamp::from_nanos(unsigned(row.get(1)?)));
                }
            }
            Ok(rows.into_values().collect())
        })
    }

    /// Due times of a probe after `moment`, not before its `settled_through`, that are journalled already.
    pub fn settled_after(
        &self,
        identity: &str,
        moment: Timestamp,
    ) -> Result<Vec<Timestamp>, JournalError> {
        self.ask(|connection| {
            let mut select = connection.prepare_cached(
                "SELECT due FROM ahead JOIN probe ON probe.id = ahead.probe
                 WHERE identity = ?1 AND due > ?2 ORDER BY due",
            )?;
            let dues = select.query_map(params![identity, signed(moment.nanos())], |row| {
                Ok(Timestamp::from_nanos(unsigned(row.get(0)?)))
            })?;
            dues.collect()
        })
    }

    /// What follows `after`, and how much of it could not be read.
    pub(super) fn stretch(
        &self,
        after: u64,
        most: usize,
        most_bytes: usize,
    ) -> Result<(Stretch, u64), JournalError> {
        self.ask(|connection| {
            let mut select = connection.prepare_cached(
                "SELECT seq, kind, due, started, crc, body FROM record WHERE seq > ?1 ORDER BY seq LIMIT ?2",
            )?;
            let mut rows = select.query(params![signed(after), whole(most)])?;
            let mut stretch = Stretch { records: Vec::new(), through: after };
            let (mut bytes, mut unreadable) = (0, 0);
            while let Some(row) = rows.next()? {
                let seq = unsigned(row.get(0)?);
                bytes += row.get_ref(5)?.as_bytes_or_null()?.map_or(0, <[u8]>::len);
                if bytes > most_bytes && !stretch.records.is_empty() {
                    break;
                }
                stretch.through = seq;
                match record(row)? {
                    Some(record) => stretch.records.push(Kept { seq, record }),
                    None => unreadable += 1,
                }
            }
            Ok((stretch, unreadable))
        })
    }

    /// Hands over each row that a filter lets through, newest first.
    fn each(
        &self,
        filter: &Filter,
        columns: &str,
        mut row: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), JournalError> {
        let Filter { since, probe, verdicts, limit } = filter;
        // The words of verdicts are ours: nothing that was typed becomes part of the statement.
        let verdicts: Vec<String> = verdicts.iter().map(|verdict| format!("'{verdict}'")).collect();
        let among = if verdicts.is_empty() {
            String::new()
        } else {
            format!("AND verdict IN ({})", verdicts.join(", "))
        };
        let statement = format!(
            "SELECT {columns} FROM record WHERE kind = 0 AND due >= ?1 AND (?2 IS NULL OR name GLOB ?2) {among}
             ORDER BY due DESC, seq DESC LIMIT ?3"
        );
        let since = since.map_or(0, |since| signed(since.nanos()));
        let limit = limit.map_or(-1, whole);
        self.ask(|connection| {
            let mut select = connection.prepare_cached(&statement)?;
            let mut rows = select.query(params![since, probe, limit])?;
            while let Some(found) = rows.next()? {
                row(found)?;
            }
            Ok(())
        })
    }

    fn identities(&self) -> Result<BTreeMap<i64, String>, JournalError> {
        self.ask(|connection| {
            let mut select = connection.prepare_cached("SELECT id, identity FROM probe")?;
            let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })
    }

    fn ask<T>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        question(&self.connection)
            .map_err(|source| JournalError::Store { path: self.path.clone(), source })
    }
}

impl Summary {
    /// How many runs there were.
    pub fn runs(&self) -> u64 {
        self.verdicts.values().sum()
    }

    /// How many ended so.
    pub fn ended(&self, verdict: Verdict) -> u64 {
        self.verdicts.get(&verdict).copied().unwrap_or(0)
    }

    /// How many found the target good, and how many judged it.
    pub fn good_of_judged(&self) -> (u64, u64) {
        let sum = |wanted: fn(Option<bool>) -> bool| {
            self.verdicts.iter().filter(|(verdict, _)| wanted(verdict.good())).map(|(_, n)| n).sum()
        };
        (sum(|good| good == Some(true)), sum(|good| good.is_some()))
    }

    /// The length of time that so many hundredths of the judged runs did not pass: the nearest rank.
    pub fn percentile(&self, hundredths: usize) -> Option<Duration> {
        let rank = (self.took.len() * hundredths).div_ceil(100).max(1);
        self.took.get(rank - 1).copied()
    }
}

/// Opens the file to be read. Where not even the log's index may be made, the file is read as it stands: that is
/// right if no log is beside it.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(2))?;
    connection.pragma_update(None, "cache_size", -512)?;
    let probed = connection.query_one("SELECT count(*) FROM meta", [], |_| Ok(()));
    match probed {
        Ok(()) => Ok(connection),
        Err(error) if is_damage(&error) || has_log(path) => Err(error),
        Err(_) => {
            let uri = format!("file:{}?immutable=1", escaped(path));
            Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)
        }
    }
}

fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).is_ok_and(|log| log.len() > 0)
}

/// A path as it stands in a URI.
fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for character in path.to_string_lossy().chars() {
        match character {
            '%' => text.push_str("%25"),
            '?' => text.push_str("%3f"),
            '#' => text.push_str("%23"),
            other => text.push(other),
        }
    }
    text
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn inode(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|file| file.ino())
}

/// The outcome of a row with `due, started, crc, body` from a column on; none if it cannot be read.
fn outcome(row: &rusqlite::Row<'_>, from: usize) -> rusqlite::Result<Option<Outcome>> {
    let (due, started): (i64, i64) = (row.get(from)?, row.get(from + 1)?);
    let sum: i64 = row.get(from + 2)?;
    let body = row.get_ref(from + 3)?.as_bytes_or_null()?.unwrap_or_default();
    let read =
        if crc(due, started, body) == sum { serde_json::from_slice(body).ok() } else { None };
    let Some(mut outcome): Option<Outcome> = read else {
        warn!("a record of the journal cannot be read: it is left out");
        return Ok(None);
    };
    // The body has milliseconds; the row has all there was.
    outcome.due = Timestamp::from_nanos(unsigned(due));
    outcome.started = Timestamp::from_nanos(unsigned(started));
    Ok(Some(outcome))
}

/// The record of a row with `seq, kind, due, started, crc, body`; none if it cannot be read.
fn record(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<Record>> {
    if row.get::<_, i64>(1)? != METRICS {
        return Ok(outcome(row, 2)?.map(|outcome| Record::Outcome(Arc::new(outcome))));
    }
    let body = row.get_ref(5)?.as_bytes_or_null()?.unwrap_or_default();
    let at = row.get(2)?;
    let whole = crc(at, at, body) == row.get::<_, i64>(4)?;
    Ok(whole.then(|| Record::Metrics(Bytes::copy_from_slice(body))))
}

fn ledger_rows(connection: &Connection) -> rusqlite::Result<BTreeMap<i64, LedgerRow>> {
    let mut select = connection.prepare_cached(
        "SELECT probe.id, identity, settled_through, planned, last_verdict, streak
         FROM ledger JOIN probe ON probe.id = ledger.probe",
    )?;
    let rows = select.query_map([], |row| {
        let last: Option<String> = row.get(4)?;
        let line = LedgerRow {
            identity: row.get(1)?,
            settled_through: Timestamp::from_nanos(unsigned(row.get(2)?)),
            ahead: Vec::new(),
            planned: unsigned(row.get(3)?),
            counts: Vec::new(),
            last: last.as_deref().and_then(word),
            streak: unsigned(row.get(5)?),
        };
        Ok((row.get(0)?, line))
    })?;
    rows.collect()
}

/// Names each of several members of one probe by the labels in which they differ.
fn name_apart(named: Vec<(String, String, Summary)>) -> Vec<Summary> {
    let mut summaries = Vec::with_capacity(named.len());
    let identities: Vec<(String, String)> =
        named.iter().map(|(name, identity, _)| (name.clone(), identity.clone())).collect();
    for (name, identity, mut summary) in named {
        let twins = identities.iter().filter(|(other, _)| *other == name);
        let twins: Vec<&str> = twins.map(|(_, identity)| identity.as_str()).collect();
        let apart: Vec<String> = labels(&identity)
            .filter(|label| twins.iter().any(|twin| labels(twin).all(|other| other != *label)))
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        summary.probe =
            if apart.is_empty() { name } else { format!("{name}{{{}}}", apart.join(",")) };
        summary.took.sort_unstable();
        summaries.push(summary);
    }
    summaries
}

/// The labels of an identity, as `Planned::identity` writes them.
fn labels(identity: &str) -> impl Iterator<Item = (&str, &str)> {
    identity.split('\u{1}').skip(1).filter_map(|label| label.split_once('\u{2}'))
}
