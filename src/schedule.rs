//! When each probe is due: aligned to the clock, spread by a hash, never twice. A pure core and one thread.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::num::NonZeroU64;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::clock::{self, Anchor, Timestamp};
use crate::place::Region;

/// A run that is this late is not made up for: with half of the probe's own period, the bound of `grace_of`.
const LONGEST_GRACE: Duration = Duration::from_secs(1);

/// The longest sleep of the thread: a step of the wall clock is noticed within this time.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// The wall clock was set back when it stands this far behind the steady one.
const SET_BACK: Duration = Duration::from_millis(1500);

/// Where in its period a probe stands: the same after every restart, and another for each region, so that neither
/// probes nor regions move as a herd. Whole milliseconds.
pub fn offset_of(identity: &str, region: &Region, every: Duration) -> Duration {
    let mut hash = Sha256::new();
    hash.update(identity.as_bytes());
    hash.update([0]);
    hash.update(region.as_str().as_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    let draw = digest.iter().take(8).fold(0, |draw, byte| draw << 8 | u64::from(*byte));
    let millis = u64::try_from(every.as_millis()).unwrap_or(u64::MAX).max(1);
    Duration::from_millis(draw % millis)
}

/// The first due time after `now`: a multiple of the period since 1970, and the offset.
///
/// ```
/// use std::time::Duration;
/// use picket::{clock::Timestamp, schedule::next_due};
///
/// let due = next_due(Timestamp::from_secs(100), Duration::from_secs(30), Duration::from_secs(7));
/// assert_eq!(due, Timestamp::from_secs(127));
/// assert_eq!(next_due(due, Duration::from_secs(30), Duration::from_secs(7)), Timestamp::from_secs(157));
/// ```
pub fn next_due(now: Timestamp, every: Duration, offset: Duration) -> Timestamp {
    let every = nanos(every).max(1);
    let offset = nanos(offset) % every;
    let first = if now.nanos() < offset { 0 } else { (now.nanos() - offset) / every + 1 };
    Timestamp::from_nanos(first.saturating_mul(every).saturating_add(offset))
}

/// How late a run may start; what is later is `missed`.
pub fn grace_of(every: Duration) -> Duration {
    (every / 2).min(LONGEST_GRACE)
}

/// The due times after `after` up to `until`: how many, and the newest of them, oldest first, `most` at the most.
pub fn dues_between(
    after: Timestamp,
    until: Timestamp,
    every: Duration,
    offset: Duration,
    most: usize,
) -> (u64, Vec<Timestamp>) {
    let first = next_due(after, every, offset);
    if first > until {
        return (0, Vec::new());
    }
    let step = nanos(every).max(1);
    let count = (until.nanos() - first.nanos()) / step + 1;
    let kept = count.min(u64::try_from(most).unwrap_or(u64::MAX));
    let newest = (count - kept..count)
        .map(|nth| Timestamp::from_nanos(first.nanos() + nth * step))
        .collect();
    (count, newest)
}

fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

/// A probe's place in the schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What tells the probe from every other.
    pub identity: Arc<str>,
    /// What was written for it: another fingerprint is another probe.
    pub fingerprint: u64,
    /// Its period.
    pub every: Duration,
    /// Where in its period it stands.
    pub offset: Duration,
}

/// What has become due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Run it now.
    Run {
        /// Which probe.
        identity: Arc<str>,
        /// When it should have started: at most its grace ago.
        due: Timestamp,
    },
    /// Its time went by unseen: the host slept, or the clock was set forward.
    Missed {
        /// Which probe.
        identity: Arc<str>,
        /// After this time, none of them included.
        after: Timestamp,
        /// Up to this time, included.
        until: Timestamp,
    },
}

/// The probes and when each is due next. Pure: it is told what time it is.
#[derive(Debug, Default)]
pub struct Schedule {
    entries: BTreeMap<Arc<str>, Slot>,
    heap: BinaryHeap<Reverse<(Timestamp, Arc<str>)>>,
}

#[derive(Debug)]
struct Slot {
    entry: Entry,
    next: Timestamp,
}

impl Schedule {
    /// Puts these probes in the place of those before. One that is as it was keeps its due time; a new or changed one
    /// is due next after `now`.
    pub fn replace(&mut self, entries: Vec<Entry>, now: Timestamp) {
        let mut before = std::mem::take(&mut self.entries);
        for entry in entries {
            let kept = before.remove(&entry.identity).filter(|slot| slot.entry == entry);
            let next =
                kept.map_or_else(|| next_due(now, entry.every, entry.offset), |slot| slot.next);
            self.entries.insert(Arc::clone(&entry.identity), Slot { entry, next });
        }
        self.reheap();
    }

    /// The wall clock was set back: every probe is due next after `now`, whatever had been due before.
    pub fn rewind(&mut self, now: Timestamp) {
        for slot in self.entries.values_mut() {
            slot.next = next_due(now, slot.entry.every, slot.entry.offset);
        }
        self.reheap();
    }

    /// What has become due by `now`, in the order of due times. Each due time is told once.
    pub fn take(&mut self, now: Timestamp) -> Vec<Turn> {
        let mut turns = Vec::new();
        while let Some(Reverse((due, identity))) = self.heap.peek().cloned() {
            if due > now {
                break;
            }
            self.heap.pop();
            let Some(slot) = self.entries.get_mut(&identity).filter(|slot| slot.next == due) else {
                continue;
            };
            turns_of(slot, now, &mut turns);
            self.heap.push(Reverse((slot.next, identity)));
        }
        turns
    }

    /// The next due time of all.
    pub fn next(&self) -> Option<Timestamp> {
        self.heap.peek().map(|Reverse((due, _))| *due)
    }

    /// The next due time of one probe.
    pub fn next_of(&self, identity: &str) -> Option<Timestamp> {
        self.entries.get(identity).map(|slot| slot.next)
    }

    fn reheap(&mut self) {
        self.heap = self
            .entries
            .iter()
            .map(|(identity, slot)| Reverse((slot.next, Arc::clone(identity))))
            .collect();
    }
}

/// The turns of one probe up to `now`: of several due times only the newest can still be run.
fn turns_of(slot: &mut Slot, now: Timestamp, turns: &mut Vec<Turn>) {
    let Entry { identity, fingerprint: _, every, offset } = &slot.entry;
    let oldest = slot.next;
    slot.next = next_due(now, *every, *offset);
    let newest = slot.next - *every;
    let in_time = now.since(newest) <= grace_of(*every);
    let unseen = if in_time { newest - Duration::from_nanos(1) } else { newest };
    if oldest <= unseen {
        let after = oldest - Duration::from_nanos(1);
        turns.push(Turn::Missed { identity: Arc::clone(identity), after, until: unseen });
    }
    if in_time {
        turns.push(Turn::Run { identity: Arc::clone(identity), due: newest });
    }
}

/// What the thread tells: turns, or that the wall clock was set back.
#[derive(Debug)]
pub enum Tick {
    /// These have become due.
    Due(Vec<Turn>),
    /// The wall clock was set back by so much: times of day come again.
    SetBack(Duration),
}

/// The thread that keeps the schedule: it sleeps until the next due time and tells what has become due. An operating
/// system thread, because tokio's timers round up to the next millisecond and then some.
#[derive(Debug)]
pub struct Timekeeper {
    schedule: Arc<Mutex<Schedule>>,
    wake: SyncSender<Wake>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug)]
enum Wake {
    Changed,
    Stop,
}

impl Timekeeper {
    /// Starts the thread; `tell` is called on it and must not wait.
    pub fn start(
        schedule: Schedule,
        tell: impl FnMut(Tick) + Send + 'static,
    ) -> std::io::Result<Self> {
        let schedule = Arc::new(Mutex::new(schedule));
        // Room for one wake: a second one that finds it taken has nothing to add.
        let (wake, woken) = sync_channel(1);
        let thread = std::thread::Builder::new().name("schedule".to_owned()).spawn({
            let schedule = Arc::clone(&schedule);
            move || keep(&schedule, &woken, tell)
        })?;
        Ok(Self { schedule, wake, thread: Some(thread) })
    }

    /// Changes the schedule; the thread looks at it anew.
    pub fn change(&self, change: impl FnOnce(&mut Schedule)) {
        change(&mut self.schedule.lock().unwrap_or_else(PoisonError::into_inner));
        // A full channel means that the thread is about to look anyway.
        self.wake.try_send(Wake::Changed).ok();
    }

    /// The next due time of one probe.
    pub fn next_of(&self, identity: &str) -> Option<Timestamp> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner).next_of(identity)
    }

    /// Ends the thread: nothing becomes due any more.
    pub fn stop(mut self) {
        // Blocks at the most until the thread has taken the wake before it, which it does at once.
        self.wake.send(Wake::Stop).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn keep(schedule: &Mutex<Schedule>, woken: &Receiver<Wake>, mut tell: impl FnMut(Tick)) {
    // The kernel may round a sleep up by 50 us to save wakes; a thread of our own may ask it not to.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1)).ok();
    let mut anchor = Anchor::now();
    loop {
        let now = clock::now();
        let should_be = anchor.wall + anchor.elapsed();
        if should_be.since(now) > SET_BACK {
            schedule.lock().unwrap_or_else(PoisonError::into_inner).rewind(now);
            tell(Tick::SetBack(should_be.since(now)));
        }
        // A forward step needs no word: what it skipped is late, and late is missed.
        anchor = Anchor::now();
        let (turns, next) = {
            let mut schedule = schedule.lock().unwrap_or_else(PoisonError::into_inner);
            (schedule.take(now), schedule.next())
        };
        if !turns.is_empty() {
            tell(Tick::Due(turns));
        }
        let sleep = next.map_or(LONGEST_SLEEP, |next| next.since(clock::now()).min(LONGEST_SLEEP));
        match woken.recv_timeout(sleep) {
            Ok(Wake::Changed) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn entry(name: &str, every: Duration, offset: Duration) -> Entry {
        Entry { identity: name.into(), fingerprint: 1, every, offset }
    }

    fn schedule(entries: Vec<Entry>, now: u64) -> Schedule {
        let mut schedule = Schedule::default();
        schedule.replace(entries, Timestamp::from_secs(now));
        schedule
    }

    #[test]
    fn due_times_do_not_drift_when_the_thread_is_late() {
        let mut schedule = schedule(vec![entry("a", 30 * SECOND, 7 * SECOND)], 100);
        let mut dues = Vec::new();
        for late in [0, 300, 900, 20] {
            let now = schedule.next().unwrap() + Duration::from_millis(late);
            for turn in schedule.take(now) {
                let Turn::Run { due, .. } = turn else { panic!("{turn:?}") };
                dues.push(due.secs());
            }
        }
        assert_eq!(dues, [127, 157, 187, 217]);
    }

    #[test]
    fn a_time_that_was_slept_over_is_missed_and_not_made_up_for() {
        let mut schedule = schedule(vec![entry("a", 10 * SECOND, Duration::ZERO)], 95);
        let turns = schedule.take(Timestamp::from_secs(145));
        let [Turn::Missed { after, until, .. }] = turns.as_slice() else { panic!("{turns:?}") };
        let (count, dues) = dues_between(*after, *until, 10 * SECOND, Duration::ZERO, 100);
        assert_eq!(count, 5);
        assert_eq!(
            dues.iter().map(|due| due.secs()).collect::<Vec<_>>(),
            [100, 110, 120, 130, 140]
        );
        assert_eq!(schedule.next(), Some(Timestamp::from_secs(150)));
    }

    #[test]
    fn of_several_late_times_the_newest_is_run_if_it_is_in_time() {
        let mut schedule = schedule(vec![entry("a", 10 * SECOND, Duration::ZERO)], 95);
        let turns = schedule.take(Timestamp::from_millis(120_500));
        let [Turn::Missed { after, until, .. }, Turn::Run { due, .. }] = turns.as_slice() else {
            panic!("{turns:?}")
        };
        assert_eq!(dues_between(*after, *until, 10 * SECOND, Duration::ZERO, 100).0, 2);
        assert_eq!(due.secs(), 120);
    }

    #[test]
    fn a_reload_keeps_what_did_not_change() {
        let mut schedule = schedule(
            vec![entry("a", 10 * SECOND, Duration::ZERO), entry("b", SECOND, Duration::ZERO)],
            95,
        );
        let changed = Entry { fingerprint: 2, ..entry("b", 60 * SECOND, Duration::ZERO) };
        schedule.replace(
            vec![entry("a", 10 * SECOND, Duration::ZERO), changed],
            Timestamp::from_secs(104),
        );
        assert_eq!(
            schedule.next_of("a"),
            Some(Timestamp::from_secs(100)),
            "its due time was not taken yet"
        );
        assert_eq!(schedule.next_of("b"), Some(Timestamp::from_secs(120)));
    }

    #[test]
    fn after_the_clock_was_set_back_probing_goes_on_at_once() {
        let mut schedule = schedule(vec![entry("a", 10 * SECOND, Duration::ZERO)], 10_000);
        schedule.rewind(Timestamp::from_secs(95));
        assert_eq!(schedule.next(), Some(Timestamp::from_secs(100)));
    }

    #[test]
    fn probes_and_regions_are_spread_over_the_period() {
        let mut slots = [0_u32; 10];
        for probe in 0..1000 {
            let offset = offset_of(&format!("probe-{probe}"), &"eu-west-1".into(), 10 * SECOND);
            slots[usize::try_from(offset.as_secs()).unwrap()] += 1;
        }
        assert!(slots.iter().all(|slot| (60..140).contains(slot)), "{slots:?}");
        let here = offset_of("a", &"eu-west-1".into(), 3600 * SECOND);
        assert_ne!(here, offset_of("a", &"us-east-1".into(), 3600 * SECOND));
    }

    #[test]
    fn the_thread_tells_what_is_due_and_stops_when_told() {
        let (told, hear) = std::sync::mpsc::sync_channel(100);
        let mut schedule = Schedule::default();
        schedule
            .replace(vec![entry("a", Duration::from_millis(200), Duration::ZERO)], clock::now());
        let timekeeper =
            Timekeeper::start(schedule, move |tick| drop(told.try_send(tick))).unwrap();
        let tick = hear.recv().unwrap();
        assert!(matches!(tick, Tick::Due(turns) if turns.len() == 1));
        timekeeper.stop();
        while hear.try_recv().is_ok() {}
        assert!(hear.recv().is_err(), "the thread is gone");
    }

    proptest::proptest! {
        #[test]
        fn every_due_time_is_told_exactly_once(every in 1_u64..5000, offset in 0_u64..5000, jumps in proptest::collection::vec(0_u64..20_000, 1..40)) {
            let (every, offset) = (Duration::from_millis(every), Duration::from_millis(offset));
            let start = Timestamp::from_secs(1000);
            let mut schedule = Schedule::default();
            schedule.replace(vec![entry("a", every, offset)], start);
            let (mut now, mut told) = (start, 0);
            for jump in jumps {
                now = now + Duration::from_millis(jump);
                for turn in schedule.take(now) {
                    told += match turn {
                        Turn::Run { .. } => 1,
                        Turn::Missed { after, until, .. } => dues_between(after, until, every, offset, 0).0,
                    };
                }
            }
            proptest::prop_assert_eq!(told, dues_between(start, now, every, offset, 0).0);
        }
    }
}
