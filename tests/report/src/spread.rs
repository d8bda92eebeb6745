// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The median of some runs, and how far they differ.

/// The median of some runs, and how far they differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The smallest value.
    pub least: f64,
    /// The middle value. Of an even number of values, the mean of the two in the middle.
    pub median: f64,
    /// The largest value.
    pub most: f64,
}

impl Spread {
    /// Returns the spread of `values`, in any order; `None` if there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let upper = sorted[middle];
        let median = if sorted.len() % 2 == 1 {
            upper
        } else {
            f64::midpoint(sorted[middle - 1], upper)
        };
        Some(Self {
            least,
            median,
            most,
        })
    }

    /// Returns the spread of `value / reference`, run by run. What slowed both runs of a round down
    /// cancels out.
    #[must_use]
    pub fn of_ratios(values: &[f64], references: &[f64]) -> Option<Self> {
        let pairs = values.iter().zip(references);
        Self::of(pairs.map(|(value, reference)| value / reference))
    }
}

/// Returns the median of `values`; `None` if there are none.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    Spread::of(values).map(|spread| spread.median)
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_middle_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((spread.least, spread.median, spread.most), (1.0, 2.5, 4.0));
        assert_eq!(Spread::of([7.0, 9.0, 8.0]).unwrap().median, 8.0);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratios_are_taken_before_the_median() {
        // Both rows ten times slower in the second round: the ratio stays.
        let spread = Spread::of_ratios(&[20.0, 2.0, 30.0], &[10.0, 1.0, 10.0]).unwrap();
        assert_eq!((spread.least, spread.median, spread.most), (2.0, 2.0, 3.0));
    }
}
