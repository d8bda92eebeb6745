// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Orders to start and stop captures. A separate thread carries them out, because opening a file
//! and writing its last packets can take a while.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tokio::sync::oneshot;
use vsock_vhost_user::Inspector;

use super::Captures;
use super::outcome::{CaptureOutcome, CaptureRefusal};
use crate::program::thread;

/// The maximum number of waiting orders.
const CAPACITY: usize = 16;

/// An order for the thread.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CaptureOrder {
    Start,
    Stop,
}

type Result = std::result::Result<CaptureOutcome, CaptureRefusal>;

/// A handle that gives orders, from any task. The thread ends when all handles are dropped.
#[derive(Clone, Debug)]
pub(crate) struct CaptureControl(SyncSender<(CaptureOrder, oneshot::Sender<Result>)>);

impl CaptureControl {
    /// Starts the thread that carries out orders.
    ///
    /// # Errors
    ///
    /// The thread cannot be started or confined.
    pub(crate) fn start(captures: Arc<Captures>, guests: Vec<Inspector>) -> io::Result<Self> {
        let (orders, ordered) = sync_channel(CAPACITY);
        let confined = Arc::clone(&captures);
        thread::start(
            "captures",
            move || confined.confine(),
            move || {
                run(&ordered, &captures, &guests);
            },
        )?;
        Ok(Self(orders))
    }

    /// Gives an order and waits until it is carried out.
    pub(crate) async fn order(&self, order: CaptureOrder) -> Result {
        let (reply, outcome) = oneshot::channel();
        let given = self.0.try_send((order, reply));
        given.map_err(|_| CaptureRefusal::Busy)?;
        outcome.await.unwrap_or(Err(CaptureRefusal::Busy))
    }
}

fn run(
    ordered: &Receiver<(CaptureOrder, oneshot::Sender<Result>)>,
    captures: &Captures,
    guests: &[Inspector],
) {
    while let Ok((order, reply)) = ordered.recv() {
        // The client has disconnected, so the result would not reach it.
        if reply.is_closed() {
            continue;
        }
        let outcome = match order {
            CaptureOrder::Start => captures.start(guests).map(CaptureOutcome::Started),
            CaptureOrder::Stop => captures.stop().map(CaptureOutcome::Stopped),
        };
        // If the client has disconnected by now, the order stays carried out.
        let _sent = reply.send(outcome);
    }
}
