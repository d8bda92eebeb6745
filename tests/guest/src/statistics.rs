// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a few runs say together.

/// The middle of some values; none of none.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(values[values.len() / 2 - 1], upper))
}

/// The middle of the ratios, round by round: what the machine did to both of a round cancels out.
pub(crate) fn median_ratio(values: &[f64], references: &[f64]) -> Option<f64> {
    let ratios = values.iter().zip(references);
    median(ratios.map(|(value, reference)| value / reference).collect())
}

#[cfg(test)]
mod tests {
    use super::{median, median_ratio};

    #[test]
    fn the_middle_of_an_even_number_lies_between_two() {
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![3.0, 9.0, 1.0]), Some(3.0));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        assert_eq!(
            median_ratio(&[2.0, 20.0, 8.0], &[1.0, 10.0, 2.0]),
            Some(2.0)
        );
    }
}
