// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Numbers with their nouns, for messages.

use std::fmt::Display;

/// Returns a number with its noun, in the plural unless the number is 1: "1 packet", "2 packets".
pub(crate) fn counted(count: impl Display, noun: &str) -> String {
    let count = count.to_string();
    let plural = if count == "1" { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_count_of_one_is_singular() {
        let texts = [0_u64, 1, 2, 11].map(|count| counted(count, "packet"));
        assert_eq!(texts, ["0 packets", "1 packet", "2 packets", "11 packets"]);
    }
}
