// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::ErrorKind;

use vsock_backend_api::VsockStream;
use vsock_muxer::GuestPayload;
use vsock_proto::Progress;

/// The payload of a packet, in plain memory.
///
/// ```
/// use vsock_muxer::GuestPayload;
/// use vsock_muxer_harness::guest::BytesPayload;
///
/// let mut payload = BytesPayload::new(b"hello");
/// let mut head = [0; 2];
/// payload.copy_to(&mut head);
/// assert_eq!((&head, payload.rest()), (b"he", &b"llo"[..]));
/// ```
#[derive(Clone, Debug)]
pub struct BytesPayload<'a> {
    rest: &'a [u8],
}

impl<'a> BytesPayload<'a> {
    /// These bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been taken yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl GuestPayload for BytesPayload<'_> {
    fn write_to(&mut self, stream: &mut dyn VsockStream) -> Progress {
        loop {
            return match stream.write(self.rest) {
                Ok(taken) => {
                    self.rest = &self.rest[taken..];
                    Progress::Done(taken)
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => continue,
                    ErrorKind::WouldBlock => Progress::Pending,
                    ErrorKind::BrokenPipe => Progress::Closed,
                    _ => Progress::Failed,
                },
            };
        }
    }

    fn copy_to(&mut self, dst: &mut [u8]) {
        let (next, rest) = self.rest.split_at(dst.len());
        dst.copy_from_slice(next);
        self.rest = rest;
    }
}
