// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;

use super::PIECE;
use crate::{StreamHandler, StreamId, Streams};

/// Sends all data back. If a peer does not read, its data is not read either.
pub struct Echo {
    buf: Vec<u8>,
}

impl Echo {
    /// Creates an echo service.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buf: vec![0; PIECE],
        }
    }
}

impl Default for Echo {
    fn default() -> Self {
        Self::new()
    }
}

impl StreamHandler for Echo {
    type State = ();

    fn readable(&mut self, streams: &mut Streams<()>, id: StreamId) {
        loop {
            let room = streams.room(id).min(self.buf.len());
            if room == 0 {
                streams.await_space(id);
                return streams.pause(id);
            }
            let read = streams.read(id, &mut self.buf[..room]);
            if read == 0 {
                return;
            }
            streams.write(id, &self.buf[..read]);
        }
    }

    fn writable(&mut self, streams: &mut Streams<()>, id: StreamId) {
        streams.resume(id);
    }
}

impl fmt::Debug for Echo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Echo").finish_non_exhaustive()
    }
}
