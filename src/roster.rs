//! Who is under way: each probe's runs, and the last verdict of each. Pure: it is told what happens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::outcome::Verdict;
use crate::plan::{Plan, Planned};

/// The probes that are planned, and what is under way.
#[derive(Debug, Default)]
pub struct Roster {
    seats: BTreeMap<Arc<str>, Seat>,
}

/// One probe's place among them.
#[derive(Debug)]
pub struct Seat {
    /// The probe as it is planned now.
    pub planned: Arc<Planned>,
    /// Whether it is still planned: runs may be under way when a reload takes it out.
    planned_here: bool,
    /// Due times that have no outcome yet.
    open: BTreeSet<Timestamp>,
    /// Runs under way.
    running: u32,
    /// The newest due time that was told.
    newest: Timestamp,
    /// The last verdict that said something of the target or of picket.
    last: Option<Verdict>,
    /// Since when it has been that.
    since: Option<Timestamp>,
}

/// What to do with a due time.
#[derive(Clone, Debug)]
pub enum Admission {
    /// Run it.
    Run(Arc<Planned>),
    /// It is skipped, for this reason.
    Skip(Arc<Planned>, &'static str),
    /// The probe is gone.
    Gone,
}

impl Roster {
    /// Takes up a plan: probes that stay keep their runs and their last verdict.
    pub fn take_up(&mut self, plan: &Plan) {
        for seat in self.seats.values_mut() {
            seat.planned_here = false;
        }
        for planned in &plan.probes {
            match self.seats.get_mut(planned.identity().as_str()) {
                Some(seat) => {
                    seat.planned = Arc::clone(planned);
                    seat.planned_here = true;
                }
                None => {
                    self.seats.insert(planned.identity().into(), Seat::new(Arc::clone(planned)));
                }
            }
        }
        self.seats.retain(|_, seat| seat.planned_here || !seat.open.is_empty());
    }

    /// What the ledger remembers of a probe.
    pub fn remember(&mut self, identity: &str, through: Timestamp, last: Option<Verdict>) {
        if let Some(seat) = self.seats.get_mut(identity) {
            seat.newest = seat.newest.max(through);
            seat.last = last;
        }
    }

    /// A due time has come: it is open from now on, and the answer says what to do with it.
    pub fn admit(&mut self, identity: &str, due: Timestamp) -> Admission {
        let Some(seat) = self.seats.get_mut(identity).filter(|seat| seat.planned_here) else {
            return Admission::Gone;
        };
        seat.open.insert(due);
        seat.newest = due;
        let planned = Arc::clone(&seat.planned);
        if planned.paused {
            return Admission::Skip(planned, "paused");
        }
        if seat.running >= planned.overlap {
            return Admission::Skip(planned, "overlap: the run before it is still under way");
        }
        seat.running += 1;
        Admission::Run(planned)
    }

    /// Due times went by unseen up to `until`.
    pub fn passed_by(&mut self, identity: &str, until: Timestamp) -> Option<Arc<Planned>> {
        let seat = self.seats.get_mut(identity)?;
        seat.newest = seat.newest.max(until);
        Some(Arc::clone(&seat.planned))
    }

    /// A run that was admitted has ended, whatever came of it.
    pub fn ended(&mut self, identity: &str) {
        if let Some(seat) = self.seats.get_mut(identity) {
            seat.running = seat.running.saturating_sub(1);
        }
    }

    /// A due time has its outcome. The answer: up to when every due time has one, and the verdict before this one if
    /// this one changed it.
    pub fn settle(
        &mut self,
        identity: &str,
        due: Timestamp,
        verdict: Verdict,
        at: Timestamp,
    ) -> (Timestamp, Option<Verdict>) {
        let Some(seat) = self.seats.get_mut(identity) else { return (due, None) };
        seat.open.remove(&due);
        let through = seat
            .open
            .first()
            .map_or_else(|| seat.newest.max(due), |oldest| *oldest - Duration::from_nanos(1));
        let changed_from = match verdict {
            Verdict::Skipped | Verdict::Missed => None,
            Verdict::Pass | Verdict::Warn | Verdict::Fail | Verdict::Error => {
                let before = seat.last.replace(verdict);
                if before != Some(verdict) {
                    seat.since = Some(at);
                }
                before.filter(|before| *before != verdict)
            }
        };
        if !seat.planned_here && seat.open.is_empty() {
            self.seats.remove(identity);
        }
        (through, changed_from)
    }

    /// Every due time so far has an outcome up to this one.
    pub fn through(&self, identity: &str) -> Option<Timestamp> {
        let seat = self.seats.get(identity)?;
        Some(seat.open.first().map_or(seat.newest, |oldest| *oldest - Duration::from_nanos(1)))
    }

    /// The last verdict of a probe, and since when.
    pub fn last(&self, identity: &str) -> (Option<Verdict>, Option<Timestamp>) {
        self.seats.get(identity).map_or((None, None), |seat| (seat.last, seat.since))
    }

    /// How many runs are under way.
    pub fn running(&self) -> u64 {
        self.seats.values().map(|seat| u64::from(seat.running)).sum()
    }
}

impl Seat {
    fn new(planned: Arc<Planned>) -> Self {
        Self {
            planned,
            planned_here: true,
            open: BTreeSet::new(),
            running: 0,
            newest: Timestamp::default(),
            last: None,
            since: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Labels;
    use crate::place::Place;
    use crate::plan::Trace;

    fn roster(overlap: u32) -> Roster {
        let planned = Planned {
            name: "a".into(),
            kind: "http",
            labels: Labels::default(),
            source: ("a.toml".into(), 1),
            fingerprint: 1,
            every: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            reserve: Duration::ZERO,
            overlap,
            steps: Vec::new(),
            finally: Vec::new(),
            evidence: true,
            trace: Trace::Always,
            paused: false,
            maintenance: Vec::new(),
            alarm: BTreeMap::new(),
        };
        let place = Place { region: "r".into(), stage: "s".into() };
        let plan = Plan {
            place,
            probes: vec![Arc::new(planned)],
            left_out: Vec::new(),
            warnings: Vec::new(),
        };
        let mut roster = Roster::default();
        roster.take_up(&plan);
        roster
    }

    const fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn a_run_that_is_due_while_another_is_under_way_is_skipped() {
        let mut roster = roster(1);
        assert!(matches!(roster.admit("a", at(1)), Admission::Run(_)));
        assert!(
            matches!(roster.admit("a", at(2)), Admission::Skip(_, why) if why.starts_with("overlap"))
        );
        roster.ended("a");
        assert!(matches!(roster.admit("a", at(3)), Admission::Run(_)));
    }

    #[test]
    fn all_is_settled_only_up_to_the_oldest_open_due_time() {
        let mut roster = roster(2);
        roster.admit("a", at(1));
        roster.admit("a", at(2));
        let (through, _) = roster.settle("a", at(2), Verdict::Pass, at(2));
        assert!(through < at(1));
        let (through, _) = roster.settle("a", at(1), Verdict::Pass, at(2));
        assert_eq!(through, at(2));
    }

    #[test]
    fn a_change_is_told_once_and_a_missed_run_is_no_change() {
        let mut roster = roster(1);
        assert_eq!(roster.settle("a", at(1), Verdict::Pass, at(1)).1, None);
        assert_eq!(roster.settle("a", at(2), Verdict::Missed, at(2)).1, None);
        assert_eq!(roster.settle("a", at(3), Verdict::Fail, at(3)).1, Some(Verdict::Pass));
        assert_eq!(roster.settle("a", at(4), Verdict::Fail, at(4)).1, None);
        assert_eq!(roster.last("a"), (Some(Verdict::Fail), Some(at(3))));
    }

    #[test]
    fn a_probe_that_was_taken_out_stays_until_its_runs_have_ended() {
        let mut roster = roster(1);
        roster.admit("a", at(1));
        let place = Place { region: "r".into(), stage: "s".into() };
        roster.take_up(&Plan {
            place,
            probes: Vec::new(),
            left_out: Vec::new(),
            warnings: Vec::new(),
        });
        assert!(matches!(roster.admit("a", at(2)), Admission::Gone));
        assert_eq!(roster.settle("a", at(1), Verdict::Pass, at(2)).0, at(1));
        assert_eq!(roster.through("a"), None);
    }
}
