// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The service behind the device's end: an event manager whose subscriber sends back what comes, as a
//! muxer would serve the stream for a guest.

use std::io;

use event_manager::{EventManager, SubscriberId, SubscriberOps};
use vsock_backend_api::VsockStream;
use vsock_epoll::services;
use vsock_epoll::{StreamLimits, StreamSubscriber};

/// What stands behind the device's end. Today an echo on an event loop; a guest can take its place.
pub(crate) trait Service: Send {
    /// Serves the stream until the host component has ended it.
    fn serve(&mut self, stream: Box<dyn VsockStream>) -> io::Result<()>;
}

/// Sends back what comes.
pub(crate) struct Echo {
    manager: EventManager<StreamSubscriber<services::Echo>>,
    id: SubscriberId,
}

impl Echo {
    pub(crate) fn new() -> io::Result<Self> {
        let subscriber = StreamSubscriber::new(services::Echo::new(), StreamLimits::default());
        let mut manager = EventManager::new().map_err(io::Error::other)?;
        let id = manager.add_subscriber(subscriber.map_err(io::Error::other)?);
        Ok(Self { manager, id })
    }

    fn subscriber(&mut self) -> io::Result<&mut StreamSubscriber<services::Echo>> {
        let subscriber = self.manager.subscriber_mut(self.id);
        let subscriber = subscriber.map_err(io::Error::other)?;
        match subscriber.take_error() {
            Some(error) => Err(io::Error::other(error)),
            None => Ok(subscriber),
        }
    }
}

impl Service for Echo {
    fn serve(&mut self, stream: Box<dyn VsockStream>) -> io::Result<()> {
        let added = self.subscriber()?.streams().add(stream, ());
        added.map_err(|error| io::Error::other(error.refusal))?;
        while !self.subscriber()?.streams().is_empty() {
            self.manager.run().map_err(io::Error::other)?;
        }
        match self.subscriber()?.counters().errors {
            0 => Ok(()),
            _ => Err(io::Error::other("the stream has failed before its end")),
        }
    }
}
