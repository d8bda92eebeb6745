// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the service does over any protocol, and how it counts its calls and connections.

use sha2::{Digest, Sha256};
use tokio::sync::watch;
use vsock_guest_program::pattern::Pattern;

use crate::counts::Counts;
use crate::message::{Amount, Piece, Summary};

/// The text of every refusal, which is not all ASCII.
pub(crate) const REFUSED: &str = "refused, as requested: \u{201c}no\u{201d} 100 %";

/// The service's counters, shared by all calls and connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load(watch::Sender<Counts>);

impl Load {
    /// Counts a call until the guard is dropped.
    pub(crate) fn begin(&self) -> Call {
        self.0.send_modify(|counts| counts.begun += 1);
        Call {
            load: self.clone(),
            finished: false,
        }
    }

    /// Counts a connection until the guard is dropped.
    pub(crate) fn connected(&self) -> Open {
        self.0.send_modify(|counts| counts.connected += 1);
        Open(self.clone())
    }

    /// Waits until the counters satisfy `state`.
    pub(crate) async fn reach(&self, state: impl Fn(&Counts) -> bool) {
        let mut counts = self.0.subscribe();
        // This cannot fail, because the sender exists.
        drop(counts.wait_for(state).await);
    }

    pub(crate) fn counts(&self) -> Counts {
        *self.0.borrow()
    }
}

/// A call in progress. A call whose guard is dropped before it has finished was cancelled.
#[derive(Debug)]
pub(crate) struct Call {
    load: Load,
    finished: bool,
}

impl Call {
    pub(crate) fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let finished = self.finished;
        self.load.0.send_modify(|counts| match finished {
            true => counts.finished += 1,
            false => counts.cancelled += 1,
        });
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Open(Load);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.0.send_modify(|counts| counts.closed += 1);
    }
}

impl Amount {
    /// Returns the pieces in order. Each byte is known from its position.
    pub(crate) fn pieces(self) -> impl Iterator<Item = Piece> + Send + use<> {
        let size = u64::from(self.piece.max(1));
        (0..self.bytes.div_ceil(size)).map(move |number| {
            let at = number * size;
            let len = size.min(self.bytes - at);
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
            Pattern::new(self.seed).fill(&mut bytes, at);
            Piece { number, bytes }
        })
    }

    /// Returns the expected summary.
    pub(crate) fn summary(self) -> Summary {
        let mut tally = Tally::default();
        self.pieces().for_each(|piece| tally.add(&piece.bytes));
        tally.summary()
    }
}

/// A running summary of a stream.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    bytes: u64,
    digest: Sha256,
}

impl Tally {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.digest.update(bytes);
    }

    pub(crate) fn summary(self) -> Summary {
        Summary {
            bytes: self.bytes,
            sha256: self.digest.finalize().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Amount, Load};

    #[test]
    fn the_last_piece_is_the_rest() {
        let amount = Amount {
            bytes: 10,
            piece: 4,
            seed: 1,
        };
        let sizes: Vec<_> = amount.pieces().map(|piece| piece.bytes.len()).collect();
        assert_eq!(sizes, [4, 4, 2]);
        let whole = Amount {
            piece: 10,
            ..amount
        };
        assert_eq!(whole.summary(), amount.summary());
    }

    #[test]
    fn a_call_that_does_not_finish_is_cancelled() {
        let load = Load::default();
        load.begin().finish();
        drop(load.begin());
        let open = load.connected();
        let counts = load.counts();
        assert_eq!((counts.begun, counts.finished, counts.cancelled), (2, 1, 1));
        assert!(counts.is_served() && !counts.is_closed());
        drop(open);
        assert!(load.counts().is_closed());
    }
}
