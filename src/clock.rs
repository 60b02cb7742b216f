//! What time it is: the only file that asks.

use std::collections::VecDeque;
use std::fmt;
use std::ops::{Add, Sub};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

/// A moment of the wall clock, in nanoseconds since 1970. Written as RFC 3339 in UTC with milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

/// The wall clock now. A clock set before 1970 reads as 1970.
#[expect(clippy::disallowed_methods, reason = "this is the one place that asks")]
pub fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

impl Timestamp {
    /// From nanoseconds since 1970.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// From milliseconds since 1970.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// From seconds since 1970.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since 1970.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since 1970.
    pub const fn millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Whole seconds since 1970.
    pub const fn secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment that RFC 3339 text names.
    pub fn parse(text: &str) -> Option<Self> {
        let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        u64::try_from(moment.unix_timestamp_nanos()).ok().map(Self)
    }

    /// The same moment as the standard library names it.
    pub fn system(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.0)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(moment: SystemTime) -> Self {
        let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, length: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, length: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = i64::try_from(self.secs()).unwrap_or(i64::MAX);
        let moment = OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| fmt::Error)?;
        let (year, month, day) = moment.to_calendar_date();
        let (hour, minute, second) = moment.to_hms();
        let millis = self.millis() % 1000;
        let month = u8::from(month);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom(format!("{text:?} is no RFC 3339 time")))
    }
}

/// A pair of readings taken together, so that what follows is timed by the steady clock and told in wall time:
/// a step of the wall clock during a run does not bend the run.
#[derive(Clone, Copy, Debug)]
pub struct Anchor {
    /// The wall clock when the anchor was dropped.
    pub wall: Timestamp,
    /// The steady clock at the same moment.
    pub steady: Instant,
}

impl Anchor {
    /// Both clocks, now.
    pub fn now() -> Self {
        Self { wall: now(), steady: Instant::now() }
    }

    /// How long ago that was.
    pub fn elapsed(&self) -> Duration {
        self.steady.elapsed()
    }

    /// The wall time of a moment of the steady clock.
    pub fn wall_at(&self, moment: Instant) -> Timestamp {
        self.wall + moment.saturating_duration_since(self.steady)
    }
}

/// How far this host's clock is ahead, in seconds, as the answers of targets tell: the median of the last ones, so that
/// one target whose own clock is wrong does not count.
#[derive(Clone, Debug, Default)]
pub struct Offset {
    told: VecDeque<f64>,
}

impl Offset {
    /// So many tellings make a median.
    const ENOUGH: usize = 5;
    /// And no more are kept.
    const MOST: usize = 31;

    /// Takes note of one telling. The answer is the offset, once enough have told.
    pub fn note(&mut self, seconds: f64) -> Option<f64> {
        if self.told.len() == Self::MOST {
            self.told.pop_front();
        }
        self.told.push_back(seconds);
        if self.told.len() < Self::ENOUGH {
            return None;
        }
        let mut sorted: Vec<_> = self.told.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_written_in_utc_with_milliseconds() {
        let moment = Timestamp::parse("2026-11-23T13:00:30.0015+01:00").unwrap();
        assert_eq!(moment.to_string(), "2026-11-23T12:00:30.001Z");
        assert_eq!(Timestamp::parse(&moment.to_string()).unwrap().millis(), moment.millis());
    }

    #[test]
    fn one_target_with_a_wrong_clock_does_not_set_ours() {
        let mut offset = Offset::default();
        let told: Vec<_> = [0.1, -0.2, 3600.0, 0.0, 0.2].map(|seconds| offset.note(seconds)).into();
        assert_eq!(told, [None, None, None, None, Some(0.1)]);
    }

    #[test]
    fn a_moment_before_another_is_no_time_after_it() {
        assert_eq!(Timestamp::from_secs(1).since(Timestamp::from_secs(2)), Duration::ZERO);
    }
}
