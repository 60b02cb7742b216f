//! A number as its decimal digits say, compared without rounding.

use std::cmp::Ordering;

/// A number: its value is 0.DIGITS times ten to the power of `point`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    // Neither leading nor trailing zeros; empty is zero.
    digits: Box<str>,
    point: i64,
}

impl Decimal {
    /// Reads `-12`, `0.5` or `1e9`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (number, exponent) = match rest.split_once(['e', 'E']) {
            Some((number, exponent)) => (number, power(exponent)?),
            None => (rest, 0),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let numeric = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || number.ends_with('.') || !numeric(whole) || !numeric(fraction) {
            return None;
        }
        let digits = format!("{whole}{fraction}");
        let kept = digits.trim_start_matches('0');
        let leading = digits.len() - kept.len();
        let kept = kept.trim_end_matches('0');
        if kept.is_empty() {
            return Some(Self { negative: false, digits: "".into(), point: 0 });
        }
        let place = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
        let point = (place(whole.len()) - place(leading)).saturating_add(exponent);
        Some(Self { negative, digits: kept.into(), point })
    }

    fn sign(&self) -> i8 {
        match (self.digits.is_empty(), self.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }
}

/// An exponent; one beyond all bounds is as good as the bound.
fn power(text: &str) -> Option<i64> {
    const BOUND: i64 = i64::MAX / 4;
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let power = digits.parse::<i64>().unwrap_or(BOUND).min(BOUND);
    Some(if negative { -power } else { power })
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let magnitude =
            || self.point.cmp(&other.point).then_with(|| self.digits.cmp(&other.digits));
        match self.sign().cmp(&other.sign()) {
            Ordering::Equal if self.negative => magnitude().reverse(),
            Ordering::Equal => magnitude(),
            unlike @ (Ordering::Less | Ordering::Greater) => unlike,
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(left: &str, right: &str) -> Ordering {
        Decimal::parse(left).unwrap().cmp(&Decimal::parse(right).unwrap())
    }

    #[test]
    fn digits_count_however_many_there_are() {
        use Ordering::{Equal, Greater, Less};
        for (left, expected, right) in [
            ("123.40000000000005", Less, "123.5"),
            ("9007199254740993", Greater, "9007199254740992"),
            ("0.1", Equal, "0.10"),
            ("1e3", Equal, "1000"),
            ("-0", Equal, "0.000e7"),
            ("-2", Less, "-1.9"),
            ("-1", Less, "0"),
            ("1e-400", Greater, "0"),
            ("1e99999999999999999999", Greater, "9e400"),
            ("12", Greater, "1.2"),
            ("0.05", Less, "0.5"),
        ] {
            assert_eq!(order(left, right), expected, "{left} {right}");
        }
    }

    #[test]
    fn what_is_no_number_is_none() {
        for text in ["", "-", ".5", "5.", "1e", "1e+", "+1", "1_0", "0x1", "1.2.3", "NaN", "١"] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }

    /// The value times ten to the 30th, which is whole for what the strategy makes.
    fn scaled(text: &str) -> i128 {
        let (number, exponent) = text.split_once('e').unwrap_or((text, "0"));
        let exponent: i32 = exponent.parse().unwrap();
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits: i128 = format!("{whole}{fraction}").parse().unwrap();
        let places = 30 + exponent - i32::try_from(fraction.len()).unwrap();
        digits * 10_i128.pow(u32::try_from(places).unwrap())
    }

    proptest! {
        #[test]
        fn it_agrees_with_whole_numbers(
            left in "-?[0-9]{1,3}(\\.[0-9]{1,3})?(e-?[0-3])?",
            right in "-?[0-9]{1,3}(\\.[0-9]{1,3})?(e-?[0-3])?",
        ) {
            prop_assert_eq!(order(&left, &right), scaled(&left).cmp(&scaled(&right)));
        }
    }
}
