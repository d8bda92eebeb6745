// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What was measured, for people: tables for a terminal, charts, and the parts of the page in the
//! documentation.

pub(crate) mod chart;
pub(crate) mod page;
pub(crate) mod table;

use vsock_report::{Spread, digits};

use crate::results::{Cell, Results};
use crate::suite::Unit;

/// Returns a rate as people read it: bytes per second, or the time of one operation.
pub(crate) fn rate(unit: Unit, per_second: f64) -> String {
    match unit {
        Unit::Bytes if per_second > 1e9 => format!("{} GB/s", digits(per_second / 1e9)),
        Unit::Bytes => format!("{} MB/s", digits(per_second / 1e6)),
        Unit::Operations if per_second > 1e6 => format!("{} ns", digits(1e9 / per_second)),
        Unit::Operations => format!("{} us", digits(1e6 / per_second)),
    }
}

/// Returns the ratio of a cell's rate to that of another row of its case, taken in each round.
pub(crate) fn compared(results: &Results, cell: &Cell, with: &str) -> Option<Spread> {
    let reference = results.cell(cell.workload, &cell.case, with)?;
    Spread::of_ratios(&cell.rates(), &reference.rates())
}

/// Returns a median, and the smallest and largest value of the rounds.
pub(crate) fn ratio(spread: Spread) -> String {
    let [least, median, most] = [spread.least, spread.median, spread.most].map(digits);
    format!("{median} ({least}..{most})")
}

#[cfg(test)]
mod tests {
    use super::rate;
    use crate::suite::Unit;

    #[test]
    fn a_rate_has_the_unit_that_keeps_it_short() {
        assert_eq!(rate(Unit::Operations, 5e6), "200 ns");
        assert_eq!(rate(Unit::Operations, 1e5), "10.0 us");
        assert_eq!(rate(Unit::Bytes, 2.5e9), "2.50 GB/s");
        assert_eq!(rate(Unit::Bytes, 2.5e8), "250 MB/s");
    }
}
