// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The echo service at the far end: on an event loop, as a muxer would serve the stream for a
//! guest, or in a simulated guest.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use event_manager::{EventManager, SubscriberId, SubscriberOps};
use vsock_backend_api::VsockStream;
use vsock_epoll::services;
use vsock_epoll::{StreamLimits, StreamSubscriber};
use vsock_muxer::MuxerCounters;
use vsock_muxer_harness::guest::{GuestRead, SocketId, SocketState};
use vsock_proto::ShutdownFlags;

use crate::rig::Rig;

/// How much the guest's program reads at once.
const PIECE: usize = 64 * 1024;
/// How long a device sleeps before it looks whether it is to stop.
const NAP: Duration = Duration::from_millis(20);

/// Serves one connection until the host component has ended it, or until it is told to stop;
/// answers what passed between device and guest, if there is one.
pub(crate) type Service = Box<dyn FnOnce(&AtomicBool) -> io::Result<Option<MuxerCounters>> + Send>;

/// Sends back what comes on the device's end of a stream.
pub(crate) fn on_event_loop(stream: Box<dyn VsockStream>) -> io::Result<Service> {
    let subscriber = StreamSubscriber::new(services::Echo::new(), StreamLimits::default());
    let mut manager = EventManager::new().map_err(io::Error::other)?;
    let id = manager.add_subscriber(subscriber.map_err(io::Error::other)?);
    Ok(Box::new(move |_| {
        let added = subscriber_of(&mut manager, id)?.streams().add(stream, ());
        added.map_err(|error| io::Error::other(error.refusal))?;
        while !subscriber_of(&mut manager, id)?.streams().is_empty() {
            manager.run().map_err(io::Error::other)?;
        }
        match subscriber_of(&mut manager, id)?.counters().errors {
            0 => Ok(None),
            _ => Err(io::Error::other("the stream has failed before its end")),
        }
    }))
}

type EchoSubscriber = StreamSubscriber<services::Echo>;

fn subscriber_of(
    manager: &mut EventManager<EchoSubscriber>,
    id: SubscriberId,
) -> io::Result<&mut EchoSubscriber> {
    let subscriber = manager.subscriber_mut(id).map_err(io::Error::other)?;
    match subscriber.take_error() {
        Some(error) => Err(io::Error::other(error)),
        None => Ok(subscriber),
    }
}

/// Runs the device, and a program of the guest that sends back what comes on its socket.
pub(crate) fn in_guest(mut rig: Rig, socket: SocketId) -> Service {
    Box::new(move |stop| {
        let mut echo = GuestEcho {
            socket,
            backlog: Vec::new(),
            ended: false,
        };
        // ORDER: Relaxed; partner: the store in `job::run`, which has nothing else to tell.
        while !stop.load(Ordering::Relaxed) {
            rig.turn(NAP)?;
            echo.serve(&mut rig);
        }
        Ok(Some(rig.counters()))
    })
}

struct GuestEcho {
    socket: SocketId,
    backlog: Vec<u8>,
    ended: bool,
}

impl GuestEcho {
    fn serve(&mut self, rig: &mut Rig) {
        let guest = &mut rig.guest;
        while guest.state(self.socket) == Some(SocketState::Connected) && !self.ended {
            if self.backlog.is_empty() {
                match guest.read(self.socket, PIECE) {
                    Ok(GuestRead::Bytes(bytes)) => self.backlog = bytes,
                    Ok(GuestRead::End) => {
                        self.ended = guest.shutdown(self.socket, ShutdownFlags::SEND).is_ok();
                        return;
                    }
                    _ => return,
                }
            }
            match guest.write(self.socket, &self.backlog) {
                Ok(0) | Err(_) => return,
                Ok(written) => drop(self.backlog.drain(..written)),
            }
        }
    }
}
