// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! SHA-256, and how it is written.

use std::fmt;

use sha2::{Digest as _, Sha256};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::Digest;

    #[test]
    fn the_digest_is_that_of_the_standard() {
        let nothing = Digest::of(b"").to_string();
        assert!(nothing.starts_with("e3b0c44298fc1c14") && nothing.ends_with("7852b855"));
    }

    #[test]
    fn one_changed_bit_shows() {
        assert_ne!(Digest::of(&[0, 1]), Digest::of(&[0, 0]));
    }
}
