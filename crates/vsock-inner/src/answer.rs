// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The line with which a device confirms a request as text: `OK <number>\n`.
//!
//! It is parsed where it is written, at the device end, and never enters the pipe. So the opener's
//! descriptors become ready only for the guest's bytes, no matter how the line is split.

/// The longest accepted line, including its newline.
const MAX_LINE: usize = 32;
/// How the line begins.
const OK: &[u8] = b"OK ";

/// The part of a line that has arrived so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Answer {
    len: usize,
    number: Option<u32>,
}

/// The state of a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Parsed {
    Unfinished,
    Confirmed,
    /// The bytes are not such a line.
    Bad,
}

impl Answer {
    /// Consumes bytes up to the end of the line, or up to the first wrong one. Returns how many.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> (usize, Parsed) {
        for (at, byte) in bytes.iter().enumerate() {
            match self.take_byte(*byte) {
                Parsed::Unfinished => {}
                end => return (at + 1, end),
            }
        }
        (bytes.len(), Parsed::Unfinished)
    }

    fn take_byte(&mut self, byte: u8) -> Parsed {
        let expected = OK.get(self.len);
        self.len += 1;
        match (expected, byte) {
            // Still within `OK `.
            (Some(expected), byte) if byte == *expected => Parsed::Unfinished,
            // Complete, if there is at least one digit.
            (None, b'\n') if self.number.is_some() => Parsed::Confirmed,
            (None, b'0'..=b'9') if self.len < MAX_LINE => {
                // A number that does not fit in 32 bits is not a port.
                let longer = self.number.unwrap_or(0).checked_mul(10);
                self.number = longer.and_then(|number| number.checked_add(u32::from(byte - b'0')));
                match self.number {
                    Some(_) => Parsed::Unfinished,
                    None => Parsed::Bad,
                }
            }
            _ => Parsed::Bad,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::{Answer, Parsed};

    proptest! {
        #[test]
        fn a_line_can_be_split_anywhere(
            number in any::<u32>(),
            cut in 0..20_usize,
            rest in "[a-z]{0,4}",
        ) {
            let line = format!("OK {number}\n");
            let (first, second) = line.split_at(cut.min(line.len()));
            let mut answer = Answer::default();
            let whole = second.is_empty();
            let (taken, parsed) = answer.take(first.as_bytes());
            assert_eq!((taken, parsed == Parsed::Confirmed), (first.len(), whole));
            if !whole {
                let more = format!("{second}{rest}");
                let (taken, parsed) = answer.take(more.as_bytes());
                assert_eq!((taken, parsed), (second.len(), Parsed::Confirmed));
            }
        }
    }
}
