// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use vsock_proto::hybrid::MAX_LINE;

/// The bytes that a host client sent right behind its command and that were read with it. They are
/// the first of the connection's payload, and no more than a line may have.
#[derive(Debug)]
pub(crate) struct Early {
    bytes: Option<Box<[u8; MAX_LINE]>>,
    start: u8,
    end: u8,
}

impl Early {
    pub(crate) const NONE: Self = Self {
        bytes: None,
        start: 0,
        end: 0,
    };

    /// Keeps `rest`, of which there are at most [`MAX_LINE`] bytes.
    pub(crate) fn new(rest: &[u8]) -> Self {
        let mut bytes = [0; MAX_LINE];
        let end = u8::try_from(rest.len()).unwrap_or(0);
        match bytes.get_mut(..rest.len()) {
            Some(dst) if end > 0 => dst.copy_from_slice(rest),
            _ => return Self::NONE,
        }
        Self {
            bytes: Some(Box::new(bytes)),
            start: 0,
            end,
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes.is_none()
    }

    /// The next bytes, at most `max`.
    pub(crate) fn first(&self, max: usize) -> &[u8] {
        let rest = self
            .bytes
            .as_ref()
            .and_then(|bytes| bytes.get(usize::from(self.start)..usize::from(self.end)))
            .unwrap_or_default();
        rest.get(..max).unwrap_or(rest)
    }

    /// Drops the next `count` bytes, once they are with the guest.
    pub(crate) fn consume(&mut self, count: usize) {
        let count = u8::try_from(count).unwrap_or(u8::MAX);
        self.start = self.start.saturating_add(count);
        if self.start >= self.end {
            *self = Self::NONE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Early;

    #[test]
    fn bytes_leave_in_order_and_the_memory_with_the_last() {
        let mut early = Early::new(b"hello");
        assert_eq!(early.first(2), b"he");
        early.consume(2);
        assert_eq!(early.first(99), b"llo");
        early.consume(3);
        assert!(early.is_empty());
        assert_eq!(early.first(9), b"");
    }

    #[test]
    fn nothing_takes_no_memory() {
        assert!(Early::new(b"").is_empty());
    }
}
