// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What was measured, for people: how figures are written, in tables and charts.

pub(crate) mod chart;
pub(crate) mod table;

use vsock_report::{Spread, digits};

use crate::suite::Unit;

/// A rate as people say it: bytes per second, or time per operation.
pub(crate) fn rate(unit: Unit, per_second: f64) -> String {
    match unit {
        Unit::Bytes => format!("{} MB/s", digits(per_second / 1e6)),
        Unit::Operations if per_second > 1e6 => format!("{} ns", digits(1e9 / per_second)),
        Unit::Operations => format!("{} us", digits(1e6 / per_second)),
    }
}

/// The median, and how far the rounds lie apart.
pub(crate) fn ratio(spread: Spread) -> String {
    let [least, median, most] = [spread.least, spread.median, spread.most].map(digits);
    format!("{median} x ({least} .. {most})")
}

#[cfg(test)]
mod tests {
    use super::rate;
    use crate::suite::Unit;

    #[test]
    fn short_operations_are_told_in_nanoseconds() {
        assert_eq!(rate(Unit::Operations, 5e6), "200 ns");
        assert_eq!(rate(Unit::Operations, 1e5), "10.0 us");
        assert_eq!(rate(Unit::Bytes, 2.5e9), "2500 MB/s");
    }
}
