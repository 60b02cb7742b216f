//! A length of time, and a size, as people write them: `30s`, `1.5h`, `16KiB`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time that is more than none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(Duration);

/// A number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

/// Units of time, longest first, with their nanoseconds.
const TIMES: &[(&str, u64)] = &[
    ("w", 604_800_000_000_000),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Units of size, largest first, with their bytes.
const SIZES: &[(&str, u64)] = &[
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads `30s`, `1.5h` or `1m30s`; zero is a length here.
pub fn length(text: &str) -> Result<Duration, String> {
    let wrong = || {
        let hint = if text.trim().parse::<f64>().is_ok() {
            format!(": write its unit, such as {0}s or {0}ms", text.trim())
        } else {
            ": write a number and a unit (ms, s, m, h, d, w), such as 30s or 5m".to_owned()
        };
        format!("{text:?} is no length of time{hint}")
    };
    let mut rest = text.trim();
    let mut total: u128 = 0;
    let mut last = u64::MAX;
    while !rest.is_empty() {
        let (nanos, unit, after) = part(rest, TIMES).ok_or_else(wrong)?;
        if unit >= last {
            return Err(wrong());
        }
        last = unit;
        total += nanos;
        rest = after;
    }
    if last == u64::MAX {
        return Err(wrong());
    }
    let nanos =
        u64::try_from(total).map_err(|_| format!("{text:?} is too long: at most 584 years"))?;
    Ok(Duration::from_nanos(nanos))
}

/// Reads `16KiB` or `1.5MB`.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "{text:?} is no size: write a number and a unit (B, KiB, MiB, GiB, kB, MB, GB), such as 16KiB"
        )
    };
    let (bytes, _, rest) = part(text.trim(), SIZES).ok_or_else(wrong)?;
    if !rest.is_empty() {
        return Err(wrong());
    }
    u64::try_from(bytes).map_err(|_| wrong())
}

/// One number and its unit at the head of `text`: the amount, the unit's weight and what follows.
fn part<'a>(text: &'a str, units: &[(&str, u64)]) -> Option<(u128, u64, &'a str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at_checked(digits)?;
    let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (name, rest) = rest.split_at_checked(letters)?;
    let (_, weight) = units.iter().find(|(unit, _)| *unit == name)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || (number.contains('.') && fraction.is_empty()) {
        return None;
    }
    let mut amount = whole.parse::<u64>().ok().map(u128::from)? * u128::from(*weight);
    let mut step = u128::from(*weight);
    for digit in fraction.bytes() {
        step /= 10;
        amount += step * u128::from(digit.checked_sub(b'0').filter(|d| *d < 10)?);
    }
    Some((amount, *weight, rest))
}

impl Period {
    /// A period of so long, unless that is none at all.
    pub fn new(length: Duration) -> Option<Self> {
        (!length.is_zero()).then_some(Self(length))
    }

    /// So many milliseconds; one when told none.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(if millis == 0 { 1 } else { millis }))
    }

    /// So many seconds; a millisecond when told none.
    pub const fn from_secs(secs: u64) -> Self {
        Self::from_millis(secs.saturating_mul(1000))
    }

    /// The length.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl Size {
    /// So many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::new(length(text)?).ok_or_else(|| {
            format!("{text:?} is no time at all: write a length above zero, such as 30s")
        })
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        size(text).map(Self)
    }
}

/// Writes a length as people would: the largest unit that divides it, or seconds with a fraction.
pub fn show(length: Duration) -> String {
    let nanos = length.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let exact = TIMES.iter().find(|(_, weight)| nanos.is_multiple_of(u128::from(*weight)));
    match exact {
        Some((unit, weight)) if nanos / u128::from(*weight) < 10_000 => {
            format!("{}{unit}", nanos / u128::from(*weight))
        }
        _ => {
            let seconds = length.as_secs_f64();
            let (value, unit) = if seconds >= 1.0 {
                (seconds, "s")
            } else if seconds >= 0.001 {
                (seconds * 1e3, "ms")
            } else {
                (seconds * 1e6, "us")
            };
            let digits = if value >= 100.0 {
                0
            } else if value >= 10.0 {
                1
            } else {
                2
            };
            format!("{value:.digits$}{unit}")
        }
    }
}

/// Writes a length as it was measured: to three digits, in the unit that fits.
pub fn brief(length: Duration) -> String {
    let seconds = length.as_secs_f64();
    let (value, unit) = match seconds {
        _ if seconds >= 0.9995 => (seconds, "s"),
        _ if seconds >= 0.000_999_5 => (seconds * 1e3, "ms"),
        _ => (seconds * 1e6, "us"),
    };
    let digits = match value {
        _ if unit == "us" || value >= 99.95 => 0,
        _ if value >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.digits$}{unit}")
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&show(self.0))
    }
}

impl fmt::Debug for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = SIZES.iter().find(|(unit, weight)| {
            unit.ends_with("iB") && self.0 != 0 && self.0.is_multiple_of(*weight)
        });
        match exact {
            Some((unit, weight)) => f.pad(&format!("{}{unit}", self.0 / weight)),
            None => f.pad(&format!("{}B", self.0)),
        }
    }
}

impl fmt::Debug for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! written_as_text {
    ($type:ident, $expecting:literal, $about:literal, $pattern:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $about, "pattern": $pattern })
            }
        }
    };
}

written_as_text!(
    Period,
    "a length of time in quotes, such as \"30s\"",
    "A length of time: a number and a unit (ms, s, m, h, d, w), such as 30s or 1m30s.",
    r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h|d|w))+$|\$\{"
);
written_as_text!(
    Size,
    "a size in quotes, such as \"16KiB\"",
    "A size: a number and a unit (B, KiB, MiB, GiB, kB, MB, GB), such as 16KiB.",
    r"^[0-9]+(\.[0-9]+)?(B|KiB|MiB|GiB|kB|KB|MB|GB)$|\$\{"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measured_length_has_three_digits() {
        for (seconds, text) in [
            (0.0, "0us"),
            (0.000_047_3, "47us"),
            (0.000_999_6, "1.00ms"),
            (0.048_12, "48.1ms"),
            (0.099_96, "100ms"),
            (1.204, "1.20s"),
            (61.5, "61.5s"),
            (754.0, "754s"),
        ] {
            assert_eq!(brief(Duration::from_secs_f64(seconds)), text);
        }
    }

    #[test]
    fn a_period_reads_as_it_is_written() {
        for (text, millis) in [
            ("200ms", 200),
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("14d", 1_209_600_000),
        ] {
            assert_eq!(
                text.parse::<Period>().unwrap().get(),
                Duration::from_millis(millis),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_period_says_what_to_write() {
        assert!("30".parse::<Period>().unwrap_err().contains("30s or 30ms"));
        assert!("soon".parse::<Period>().unwrap_err().contains("such as 30s or 5m"));
        assert!("0s".parse::<Period>().unwrap_err().contains("above zero"));
        for text in ["", "-1s", "1s1m", "1.s", ".5s", "1 s", "1sec", "99999999999999999999s"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_size_knows_both_families_of_units() {
        assert_eq!("16KiB".parse::<Size>().unwrap().bytes(), 16 * 1024);
        assert_eq!("1.5MB".parse::<Size>().unwrap().bytes(), 1_500_000);
        assert!("16".parse::<Size>().is_err());
        assert_eq!(Size::new(1 << 20).to_string(), "1MiB");
    }

    #[test]
    fn a_length_is_shown_as_people_write_it() {
        assert_eq!(show(Duration::from_secs(90)), "90s");
        assert_eq!(show(Duration::from_hours(1)), "1h");
        assert_eq!(show(Duration::from_micros(123_456)), "123ms");
        assert_eq!(show(Duration::from_nanos(1_234_567)), "1.23ms");
    }
}
