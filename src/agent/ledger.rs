//! What went by unseen: while picket was not running, while its host slept. The ledger's sum holds all the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Core, MISSED_RECORDS, StartError};
use crate::clock::Timestamp;
use crate::health::Seed;
use crate::journal::{LedgerRow, Settled};
use crate::journey;
use crate::outcome::Verdict;
use crate::plan::Planned;
use crate::schedule;

impl Core {
    /// What the ledger remembers: totals go on where they were, and the time since is missed.
    pub(super) async fn take_up_ledger(self: &Arc<Self>, now: Timestamp) -> Result<(), StartError> {
        self.fold.store(self.journal.fold(), Ordering::Relaxed);
        let plan = self.plan.load_full();
        let mut seeds = Vec::new();
        let mut gaps = Vec::new();
        let mut rows: BTreeMap<_, _> = self
            .journal
            .ledger()?
            .into_iter()
            .map(|row| (Arc::clone(&row.identity), row))
            .collect();
        for planned in &plan.probes {
            let Some(row) = rows.remove(planned.identity().as_str()) else { continue };
            let LedgerRow { identity, planned: total, counts, .. } = row.clone();
            seeds.push(Seed { identity, planned: total, counts });
            self.roster().remember(&row.identity, row.settled_through, row.last);
            let offset = schedule::offset_of(&row.identity, &plan.place.region, planned.every);
            let between = schedule::dues_between(
                row.settled_through,
                now,
                planned.every,
                offset,
                MISSED_RECORDS,
            );
            let (count, dues) = without(between, &row.ahead);
            gaps.push((row.identity, planned, count, dues));
        }
        self.health.seed(self.journal.created(), seeds);
        for (identity, planned, count, dues) in gaps {
            self.miss(&identity, planned, now, count, &dues, "picket was not running").await;
        }
        Ok(())
    }

    /// Writes down due times that went by: the newest as records, the others as a count.
    pub(super) async fn miss(
        &self,
        identity: &Arc<str>,
        planned: &Planned,
        now: Timestamp,
        count: u64,
        dues: &[Timestamp],
        why: &str,
    ) {
        let uncounted = count - u64::try_from(dues.len()).unwrap_or(count);
        let place = self.plan.load().place.clone();
        let fold = self.fold.load(Ordering::Relaxed);
        let _gate = self.gate.lock().await;
        if uncounted > 0 {
            let through = self.roster().through(identity).unwrap_or(now);
            let through =
                dues.first().map_or(through, |first| through.min(*first - Duration::from_nanos(1)));
            self.health.count_missed(identity, uncounted);
            self.journal.count_missed(Arc::clone(identity), uncounted, through).await;
        }
        for due in dues {
            self.health.planned(identity);
            let outcome = journey::unrun(planned, &place, *due, fold, now, Verdict::Missed, why);
            let (settled_through, _) = self.roster().settle(identity, *due, Verdict::Missed, now);
            self.journal
                .append(Settled {
                    outcome: Arc::new(outcome),
                    identity: Arc::clone(identity),
                    settled_through,
                })
                .await;
        }
    }
}

/// The due times that are not among those settled ahead of their turn.
fn without((count, dues): (u64, Vec<Timestamp>), ahead: &[Timestamp]) -> (u64, Vec<Timestamp>) {
    let settled = u64::try_from(ahead.len()).unwrap_or(u64::MAX);
    let dues = dues.into_iter().filter(|due| !ahead.contains(due)).collect();
    (count.saturating_sub(settled), dues)
}
