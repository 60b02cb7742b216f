//! The file as such: its tables, how it is opened and looked over, and what a damaged one shows.

use std::path::Path;

use flate2::Crc;
use rusqlite::{Connection, ErrorCode};
use serde::de::IntoDeserializer;
use serde::de::value::StrDeserializer;

use crate::clock;

/// The version of the tables, in the file's `user_version`.
pub(super) const VERSION: i64 = 1;

/// A file up to this size is checked from end to end when it is opened: some tens of milliseconds.
const CHECKED: u64 = 8 << 20;

/// The tables. `record` has one key for "a run is kept once" and "what was due since": `(due, run)`, which grows at
/// its end only. The runs of one probe are a chain through `before`, so they need no key of their own at all.
const TABLES: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE probe (id INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE);
    CREATE TABLE ledger (
        probe INTEGER PRIMARY KEY, settled_through INTEGER NOT NULL, planned INTEGER NOT NULL,
        last_verdict TEXT, streak INTEGER NOT NULL, last_seq INTEGER
    );
    CREATE TABLE ledger_count (
        probe INTEGER NOT NULL, verdict TEXT NOT NULL, error_type TEXT NOT NULL, blame TEXT NOT NULL,
        n INTEGER NOT NULL, PRIMARY KEY (probe, verdict, error_type, blame)
    ) WITHOUT ROWID;
    CREATE TABLE ahead (probe INTEGER NOT NULL, due INTEGER NOT NULL, PRIMARY KEY (probe, due)) WITHOUT ROWID;
    CREATE TABLE record (
        seq INTEGER PRIMARY KEY, kind INTEGER NOT NULL, probe INTEGER, before INTEGER, name TEXT,
        due INTEGER NOT NULL, started INTEGER, took INTEGER, verdict TEXT, error_type TEXT, run TEXT,
        crc INTEGER NOT NULL, body BLOB NOT NULL, UNIQUE (due, run)
    );
    CREATE INDEX metrics ON record (seq) WHERE kind = 1;
    CREATE TABLE place (
        exporter TEXT PRIMARY KEY, seq INTEGER NOT NULL, lost_outcomes INTEGER NOT NULL, lost_metrics INTEGER NOT NULL
    ) WITHOUT ROWID;
";

/// `record.kind` of an outcome.
pub(super) const OUTCOME: i64 = 0;
/// `record.kind` of a reading of the instruments.
pub(super) const METRICS: i64 = 1;

/// Opens the file for writing.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = NORMAL;
         PRAGMA busy_timeout = 2000;
         PRAGMA journal_size_limit = 8388608;",
    )?;
    Ok(connection)
}

/// Makes the tables in a new file.
pub(super) fn begin(connection: &Connection) -> rusqlite::Result<()> {
    let created = signed(clock::now().nanos());
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {TABLES} INSERT INTO meta VALUES ('created', {created});
         PRAGMA user_version = {VERSION}; COMMIT;"
    ))
}

/// Looks a file over: all of it if it is small, else where its tables begin and end. What lies between and is
/// damaged is found when it is read or written.
pub(super) fn check(connection: &Connection, path: &Path) -> rusqlite::Result<()> {
    let size = std::fs::metadata(path).map_or(0, |file| file.len());
    if size > CHECKED {
        return connection.query_one(
            "SELECT min(seq), max(seq), (SELECT max(due) FROM record) FROM record",
            [],
            |_| Ok(()),
        );
    }
    let answer: String = connection.query_one("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if answer == "ok" { Ok(()) } else { Err(damage(&answer)) }
}

/// Damage that `SQLite` told of in words.
pub(super) fn damage(what: &str) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(code, Some(what.lines().last().unwrap_or(what).to_owned()))
}

/// Whether an error that a reader meets shows that the file is broken: `SQLite` says so, or rows are not as they were
/// written.
pub(super) fn is_corrupt(error: &rusqlite::Error) -> bool {
    let corrupt = [ErrorCode::DatabaseCorrupt, ErrorCode::NotADatabase];
    let strange = matches!(
        error,
        rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..)
    );
    strange || error.sqlite_error_code().is_some_and(|code| corrupt.contains(&code))
}

/// Whether an error that the writer meets does. Its statements are fixed and what it writes breaks no rule of whole
/// tables: if they do not fit, the tables are not ours any more.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    let unfit = matches!(
        error,
        rusqlite::Error::SqlInputError { .. } | rusqlite::Error::InvalidColumnIndex(..)
    );
    unfit || is_corrupt(error) || error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
}

/// The one number that a statement answers with.
pub(super) fn number(connection: &Connection, statement: &str) -> rusqlite::Result<u64> {
    connection.prepare_cached(statement)?.query_one([], |row| row.get(0)).map(unsigned)
}

/// A verdict, error type or blame from its word.
pub(super) fn word<'a, T: serde::Deserialize<'a>>(text: &'a str) -> Option<T> {
    let text: StrDeserializer<'a, serde::de::value::Error> = text.into_deserializer();
    T::deserialize(text).ok()
}

/// The checksum of a record's times and body: `SQLite` has none of its own.
pub(super) fn crc(due: i64, started: i64, body: &[u8]) -> i64 {
    let mut crc = Crc::new();
    crc.update(&due.to_be_bytes());
    crc.update(&started.to_be_bytes());
    crc.update(body);
    i64::from(crc.sum())
}

/// `SQLite`'s whole numbers have a sign; ours of that size do not occur before the year 2262.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// And back.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
