//! A damaged file: set aside, and read row by row as far as that goes.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};
use tracing::warn;

use super::store::{Store, connect, crc, unsigned};
use super::{FILE, JournalError};
use crate::clock;

/// How many damaged files are kept to be looked at.
const KEPT: usize = 3;

/// The small tables, which are taken over as they are, and their columns.
const TABLES: &[(&str, usize)] =
    &[("meta", 2), ("probe", 2), ("ledger", 6), ("ledger_count", 5), ("ahead", 2), ("place", 4)];

/// What became of a damaged file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Where the damaged file is now.
    pub set_aside: PathBuf,
    /// What was wrong with it.
    pub damage: String,
    /// How many records were taken over.
    pub kept: u64,
    /// How many are known to be lost; where the newest were lost, nobody knows how many those were.
    pub lost: u64,
    /// Tables of which not every row could be read.
    pub torn: Vec<&'static str>,
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { set_aside, damage, kept, lost, torn } = self;
        write!(
            f,
            "the journal was damaged ({damage}): {kept} records taken over, {lost} or more lost"
        )?;
        if !torn.is_empty() {
            write!(f, ", not all of {} could be read", torn.join(", "))?;
        }
        write!(f, "; the damaged file is {}", set_aside.display())
    }
}

/// A record as it stands in the file.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) seq: i64,
    pub(super) kind: i64,
    pub(super) probe: Option<i64>,
    pub(super) before: Option<i64>,
    pub(super) name: Option<String>,
    pub(super) due: i64,
    pub(super) started: Option<i64>,
    pub(super) took: Option<i64>,
    pub(super) verdict: Option<String>,
    pub(super) error_type: Option<String>,
    pub(super) run: Option<String>,
    pub(super) crc: i64,
    pub(super) body: Vec<u8>,
}

impl Row {
    fn is_whole(&self) -> bool {
        crc(self.due, self.started.unwrap_or(self.due), &self.body) == self.crc
    }
}

/// Sets the file of a state folder aside and begins another with what can be read of it.
pub(super) fn recover(
    folder: &Path,
    damage: &rusqlite::Error,
) -> Result<(Store, Recovered), JournalError> {
    let set_aside = set_aside(folder)
        .map_err(|source| JournalError::Folder { folder: folder.to_owned(), source })?;
    let mut recovered = Recovered { set_aside, damage: damage.to_string(), ..Recovered::default() };
    let mut store = Store::open_whole(folder)?;
    let path = folder.join(FILE);
    // What SQLite cannot even open has nothing to take over.
    if let Ok(damaged) = connect(&recovered.set_aside) {
        take_over(&damaged, &mut store, &mut recovered)
            .map_err(|source| JournalError::Store { path, source })?;
    } else {
        recovered.torn = TABLES.iter().map(|(table, _)| *table).chain(["record"]).collect();
    }
    warn!("{recovered}");
    Ok((store, recovered))
}

/// Renames the file and its log; of those that were set aside before, the oldest go.
fn set_aside(folder: &Path) -> std::io::Result<PathBuf> {
    let stamp: String =
        clock::now().to_string().chars().filter(char::is_ascii_alphanumeric).collect();
    let to = folder.join(format!("journal.damaged-{stamp}"));
    fs::rename(folder.join(FILE), &to)?;
    for ending in ["-wal", "-shm"] {
        let companion = folder.join(format!("{FILE}{ending}"));
        if companion.exists() {
            fs::rename(companion, folder.join(format!("journal.damaged-{stamp}{ending}")))?;
        }
    }
    let mut older: Vec<PathBuf> = fs::read_dir(folder)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| is_set_aside(path))
        .collect();
    older.sort();
    for path in older.iter().rev().skip(KEPT) {
        for ending in ["", "-wal", "-shm"] {
            let mut name = path.as_os_str().to_owned();
            name.push(ending);
            // It may have neither of the two companions.
            let missing = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
            fs::remove_file(name)
                .or_else(|error| if missing(&error) { Ok(()) } else { Err(error) })?;
        }
    }
    Ok(to)
}

fn is_set_aside(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with("journal.damaged-") && !name.ends_with("-wal") && !name.ends_with("-shm")
}

/// Reads what can be read. An error is one of the new file, never of the damaged one.
fn take_over(
    damaged: &Connection,
    store: &mut Store,
    recovered: &mut Recovered,
) -> rusqlite::Result<()> {
    store.connection.execute_batch("BEGIN IMMEDIATE")?;
    for (table, columns) in TABLES {
        let (rows, whole) = rows_of(damaged, table, *columns);
        if !whole {
            recovered.torn.push(table);
        }
        let marks = vec!["?"; *columns].join(", ");
        let insert = format!("INSERT OR REPLACE INTO {table} VALUES ({marks})");
        for row in rows {
            // A row that its table does not take is as lost as one that cannot be read.
            if store.connection.prepare_cached(&insert)?.execute(params_from_iter(row)).is_err() {
                recovered.torn.push(table);
            }
        }
    }
    recovered.torn.dedup();
    take_over_records(damaged, store, recovered)?;
    store.connection.execute_batch("COMMIT")?;
    store.reload()
}

/// The rows of a small table up to the first that cannot be read, and whether that was all.
fn rows_of(damaged: &Connection, table: &str, columns: usize) -> (Vec<Vec<Value>>, bool) {
    let mut found = Vec::new();
    let Ok(mut select) = damaged.prepare(&format!("SELECT * FROM {table}")) else {
        return (found, false);
    };
    if select.column_count() != columns {
        return (found, false);
    }
    let Ok(mut rows) = select.query([]) else { return (found, false) };
    loop {
        match rows.next() {
            Ok(Some(row)) => {
                let values: rusqlite::Result<Vec<Value>> =
                    (0..columns).map(|column| row.get(column)).collect();
                let Ok(values) = values else { return (found, false) };
                found.push(values);
            }
            Ok(None) => return (found, true),
            Err(_) => return (found, false),
        }
    }
}

/// Reads records forward until damage, steps over it, and goes on behind it.
fn take_over_records(
    damaged: &Connection,
    store: &mut Store,
    recovered: &mut Recovered,
) -> rusqlite::Result<()> {
    let mut from = 0;
    loop {
        let stopped = take_stretch(damaged, store, recovered, from)?;
        let Some(last) = stopped else { return Ok(()) };
        if !recovered.torn.contains(&"record") {
            recovered.torn.push("record");
        }
        let Some(next) = first_readable(damaged, last + 1) else { return Ok(()) };
        recovered.lost += unsigned(next - last - 1);
        from = next;
    }
}

/// Takes records over from `from` on. The last one that was read, if damage came behind it.
fn take_stretch(
    damaged: &Connection,
    store: &mut Store,
    recovered: &mut Recovered,
    from: i64,
) -> rusqlite::Result<Option<i64>> {
    let mut last = from - 1;
    let Ok(mut select) = damaged.prepare_cached(SELECT) else { return Ok(Some(last)) };
    let Ok(mut rows) = select.query([from]) else { return Ok(Some(last)) };
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(None),
            Err(_) => return Ok(Some(last)),
        };
        let Ok(seq) = row.get::<_, i64>(0) else { return Ok(Some(last)) };
        // A damaged page can lead anywhere: places only rise.
        if seq <= last {
            return Ok(Some(last));
        }
        last = seq;
        match read_row(row) {
            Ok(record) if record.is_whole() => {
                store.take_over(&record)?;
                recovered.kept += 1;
            }
            Ok(_) | Err(_) => recovered.lost += 1,
        }
    }
}

/// By number, not by name: a name can be what is damaged.
const SELECT: &str = "SELECT rowid, * FROM record WHERE rowid >= ?1 ORDER BY rowid";

fn read_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        seq: row.get(0)?,
        kind: row.get(2)?,
        probe: row.get(3)?,
        before: row.get(4)?,
        name: row.get(5)?,
        due: row.get(6)?,
        started: row.get(7)?,
        took: row.get(8)?,
        verdict: row.get(9)?,
        error_type: row.get(10)?,
        run: row.get(11)?,
        crc: row.get(12)?,
        body: row.get(13)?,
    })
}

/// The first record from `after` on that can be read: found by ever larger leaps, then by halving the last of them.
fn first_readable(damaged: &Connection, after: i64) -> Option<i64> {
    let mut unreadable = after - 1;
    let mut leap = 1;
    let mut readable = loop {
        let at = unreadable.checked_add(leap)?;
        match seq_from(damaged, at) {
            Ok(Some(_)) => break at,
            Ok(None) => return None,
            Err(_) if leap > 1 << 40 => return None,
            Err(_) => {
                unreadable = at;
                leap *= 2;
            }
        }
    };
    while unreadable + 1 < readable {
        let middle = unreadable + (readable - unreadable) / 2;
        match seq_from(damaged, middle) {
            Ok(_) => readable = middle,
            Err(_) => unreadable = middle,
        }
    }
    seq_from(damaged, readable).ok().flatten()
}

fn seq_from(damaged: &Connection, from: i64) -> rusqlite::Result<Option<i64>> {
    // The last column is asked for too, so that a chain of pages that is broken counts as unreadable.
    damaged
        .prepare_cached("SELECT rowid, * FROM record WHERE rowid >= ?1 ORDER BY rowid LIMIT 1")?
        .query_one([from], |row| {
            let seq: i64 = row.get(0)?;
            row.get::<_, Value>(13)?;
            Ok(seq)
        })
        .optional()
        .map(|seq| seq.filter(|seq| *seq >= from))
}
