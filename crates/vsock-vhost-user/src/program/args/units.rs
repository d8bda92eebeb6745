// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Parsers for numbers, sizes and durations as an operator writes them.

use std::ops::RangeInclusive;
use std::time::Duration;

use clap::Arg;
use thiserror::Error;

/// The value name of options for `true` or `false`: see [`with_optional_bool`].
pub(crate) const BOOL: &str = "BOOL";

/// The error for an invalid value: says what was expected.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum UnitError {
    #[error("expected a number from {0} to {1}")]
    Number(u32, u32),
    #[error("expected a size from {0} to {1} bytes, such as 65536, 64KiB or 1M")]
    Size(u32, u32),
    #[error("expected a time with a unit, such as 500ms, 5s, 2min or 1h{}", at_least(*.0))]
    Duration(Duration),
    #[error("expected FIRST-LAST, two ports from 0 to 4294967294 in ascending order")]
    Ports,
}

/// Returns the condition on a duration, if there is one.
fn at_least(shortest: Duration) -> String {
    if shortest.is_zero() {
        String::new()
    } else {
        format!(", of at least {shortest:?}")
    }
}

/// Units of sizes, in lower case. `kb` is left out because it is ambiguous.
const SIZES: [(&str, u64); 8] = [
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("g", 1 << 30),
    ("gib", 1 << 30),
];

/// Units of durations, with their lengths in microseconds.
const DURATIONS: [(&str, u64); 5] = [
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("min", 60 * 1_000_000),
    ("h", 60 * 60 * 1_000_000),
];

/// Lets an option for a [`BOOL`] be given without its value, which is then `true`. Returns other
/// options unchanged.
pub(crate) fn with_optional_bool(option: Arg) -> Arg {
    let names = option.get_value_names().unwrap_or_default();
    if !names.iter().any(|name| name == BOOL) {
        return option;
    }
    option
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
}

/// Returns a parser for numbers in this range.
pub(crate) fn number<T: TryFrom<u32>>(
    range: RangeInclusive<u32>,
) -> impl Fn(&str) -> Result<T, UnitError> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| UnitError::Number(*range.start(), *range.end()))
    }
}

/// Returns a parser for sizes whose value in bytes is in this range.
pub(crate) fn size(range: RangeInclusive<u32>) -> impl Fn(&str) -> Result<u32, UnitError> + Clone {
    move |text| {
        let bytes = scaled(&text.to_ascii_lowercase(), &SIZES);
        let bytes = bytes.and_then(|bytes| u32::try_from(bytes).ok());
        bytes
            .filter(|bytes| range.contains(bytes))
            .ok_or_else(|| UnitError::Size(*range.start(), *range.end()))
    }
}

/// Returns a parser for durations of at least this length.
pub(crate) fn duration(shortest: Duration) -> impl Fn(&str) -> Result<Duration, UnitError> + Clone {
    move |text| {
        let duration = scaled(text, &DURATIONS).map(Duration::from_micros);
        duration
            .filter(|duration| *duration >= shortest)
            .ok_or(UnitError::Duration(shortest))
    }
}

/// Returns the number in `text` multiplied by the unit after it; `None` if either is invalid, or if
/// the product overflows.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_and_a_range() {
        let parse = size(1..=1 << 30);
        for (text, bytes) in [
            ("1", Some(1)),
            ("65536", Some(65_536)),
            ("64KiB", Some(65_536)),
            ("64k", Some(65_536)),
            ("1M", Some(1 << 20)),
            ("1 GiB", Some(1 << 30)),
            ("7B", Some(7)),
            ("0", None),
            ("2G", None),
            ("1KB", None),
            ("1.5M", None),
            ("-1", None),
            ("", None),
            ("K", None),
            ("99999999999999999999", None),
            ("18446744073709551615K", None),
            ("1\u{b5}", None),
        ] {
            let expected = bytes.ok_or(UnitError::Size(1, 1 << 30));
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn durations_have_units_and_a_least_length() {
        let shortest = Duration::from_millis(1);
        let parse = duration(shortest);
        for (text, duration) in [
            ("1ms", Some(shortest)),
            ("1000us", Some(shortest)),
            ("5s", Some(Duration::from_secs(5))),
            ("2min", Some(Duration::from_secs(120))),
            ("1h", Some(Duration::from_secs(3600))),
            ("999us", None),
            ("0s", None),
            ("5", None),
            ("5m", None),
            ("s", None),
            ("5000000000000000000h", None),
        ] {
            let expected = duration.ok_or(UnitError::Duration(shortest));
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn numbers_have_a_range() {
        let parse = number::<u16>(2..=65_535);
        assert_eq!(parse("2"), Ok(2));
        for text in ["1", "65536", "x", "", "-1", "0x10"] {
            assert_eq!(parse(text), Err(UnitError::Number(2, 65_535)), "{text}");
        }
    }
}
