//! The newest records in memory, for outboxes that keep up: they touch neither the disk nor JSON.

use std::collections::{BTreeMap, VecDeque};

use super::Stretch;
use super::inbox::weight;
use crate::export::{Kept, Record};

/// The most bytes, as they are guessed, that are held for outboxes that have not taken them.
const ROOM: usize = 4 << 20;

/// The records above `floor`, all of them, up to the newest.
#[derive(Default)]
pub(super) struct Ring {
    floor: u64,
    tip: u64,
    held: VecDeque<(Kept, usize)>,
    bytes: usize,
    places: BTreeMap<String, u64>,
}

impl Ring {
    /// Everything up to `seq` is only on disk.
    pub(super) fn start_at(&mut self, seq: u64) {
        self.held.clear();
        self.bytes = 0;
        self.floor = seq;
        self.tip = seq;
    }

    /// Adds records that are on disk now.
    pub(super) fn push(&mut self, records: Vec<Kept>) {
        for kept in records {
            let bytes = match &kept.record {
                Record::Outcome(outcome) => weight(outcome),
                Record::Metrics(encoded) => encoded.len(),
            };
            self.tip = kept.seq;
            self.bytes += bytes;
            self.held.push_back((kept, bytes));
        }
        self.trim();
    }

    /// An exporter has taken everything up to `seq`.
    pub(super) fn taken(&mut self, exporter: &str, seq: u64) {
        self.places.insert(exporter.to_owned(), seq);
        self.trim();
    }

    /// An exporter is gone.
    pub(super) fn leave(&mut self, exporter: &str) {
        self.places.remove(exporter);
        self.trim();
    }

    /// Lets go of what all have taken, and of the oldest beyond the room.
    fn trim(&mut self) {
        let wanted_after = self.places.values().min().copied().unwrap_or(u64::MAX);
        while let Some((kept, bytes)) = self.held.front()
            && (kept.seq <= wanted_after || self.bytes > ROOM)
        {
            self.floor = kept.seq;
            self.bytes -= bytes;
            self.held.pop_front();
        }
        if self.held.is_empty() {
            self.held.shrink_to(1024);
        }
    }

    /// What follows `after`, if all of it is here.
    pub(super) fn after(&self, after: u64, most: usize, most_bytes: usize) -> Option<Stretch> {
        if after < self.floor {
            return None;
        }
        let start = self.held.partition_point(|(kept, _)| kept.seq <= after);
        let mut stretch = Stretch { records: Vec::new(), through: after.max(self.tip) };
        let mut bytes = 0;
        for (kept, size) in self.held.range(start..) {
            bytes += size;
            let full = stretch.records.len() >= most || bytes > most_bytes;
            if full && !stretch.records.is_empty() {
                stretch.through = stretch.records.last().map_or(after, |kept| kept.seq);
                break;
            }
            stretch.records.push(kept.clone());
        }
        Some(stretch)
    }
}
