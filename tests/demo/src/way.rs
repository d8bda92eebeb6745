// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What connects the host component and the service.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vsock_epoll::{AcceptLimits, BackendSubscriber, More};
use vsock_inner::{VsockInnerBackend, VsockInnerStream, VsockInnerWriter};
use vsock_muxer_harness::guest::GuestConfig;
use vsock_proto::Config;

use crate::rig::Rig;
use crate::service::{Service, in_guest, on_event_loop};

/// The port of the service, on whichever side it is.
const PORT: u32 = 1024;
/// A connection takes a handful of turns of the device.
const MOST_TURNS: usize = 1000;
const TURN: Duration = Duration::from_millis(20);

/// From the host component to the service and back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    /// Through a backend, as a VMM has it.
    Inner,
    /// Over a socket pair.
    UnixPair,
    /// Through a muxer, by `connect_to`; the guest listens.
    HostBegins,
    /// Through a muxer; the guest connects to a component that has a listener.
    GuestBegins,
}

/// A connection: the host component's two halves, and the service.
pub(crate) struct Connected {
    pub(crate) writer: Box<dyn HostWriter>,
    pub(crate) reader: Box<dyn Read + Send>,
    pub(crate) service: Service,
}

impl Way {
    pub(crate) const ALL: [Self; 4] = [
        Self::Inner,
        Self::UnixPair,
        Self::HostBegins,
        Self::GuestBegins,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Inner => "vsock-inner",
            Self::UnixPair => "Unix socket pair",
            Self::HostBegins => "simulated guest, host connects",
            Self::GuestBegins => "simulated guest, guest connects",
        }
    }

    pub(crate) fn connect(self) -> io::Result<Connected> {
        match self {
            Self::Inner => inner(),
            Self::UnixPair => {
                let (host, device) = UnixStream::pair()?;
                Ok(Connected {
                    writer: Box::new(host.try_clone()?),
                    reader: Box::new(host),
                    service: on_event_loop(Box::new(device))?,
                })
            }
            Self::HostBegins => host_begins(),
            Self::GuestBegins => guest_begins(),
        }
    }
}

fn inner() -> io::Result<Connected> {
    let backend = VsockInnerBackend::new()?;
    let connector = backend.get_connector();
    let mut device = None;
    let take = |stream| {
        device = Some(stream);
        More::Accept
    };
    let subscriber = BackendSubscriber::new(Box::new(backend), take, AcceptLimits::default());
    let mut subscriber = subscriber.map_err(io::Error::other)?;
    let host = connector.connect_stream()?;
    subscriber.dispatch().map_err(io::Error::other)?;
    drop(subscriber);
    let device = device.ok_or(ErrorKind::ConnectionRefused)?;
    Ok(connected(host, on_event_loop(device)?))
}

fn host_begins() -> io::Result<Connected> {
    let backend = VsockInnerBackend::new()?;
    let connector = backend.get_connector();
    let mut rig = Rig::new(Config::default(), GuestConfig::default())?;
    rig.guest.listen(PORT, 8).map_err(io::Error::other)?;
    rig.add_backend(Box::new(backend))?;
    let host = connector.start_connect_to(PORT)?;
    let socket = turn_until(&mut rig, |rig| rig.guest.accept(PORT))?;
    turn_until(&mut rig, |_| host.is_connected().then_some(()))?;
    Ok(connected(host, in_guest(rig, socket)))
}

fn guest_begins() -> io::Result<Connected> {
    let backend = VsockInnerBackend::new()?;
    let listener = backend.listen(PORT)?;
    listener.set_nonblocking(true)?;
    let mut rig = Rig::new(Config::default(), GuestConfig::default())?;
    rig.add_backend(Box::new(backend))?;
    let socket = rig.guest.connect(rig.now(), PORT);
    let host = turn_until(&mut rig, |_| listener.accept().ok())?;
    Ok(connected(host, in_guest(rig, socket)))
}

/// Turns the device until something is there.
fn turn_until<T>(rig: &mut Rig, mut find: impl FnMut(&mut Rig) -> Option<T>) -> io::Result<T> {
    for _ in 0..MOST_TURNS {
        if let Some(found) = find(rig) {
            return Ok(found);
        }
        rig.turn(TURN)?;
    }
    Err(ErrorKind::TimedOut.into())
}

fn connected(host: VsockInnerStream, service: Service) -> Connected {
    let (reader, writer) = host.into_split();
    Connected {
        writer: Box::new(writer),
        reader: Box::new(reader),
        service,
    }
}

/// The writing half of the host component.
pub(crate) trait HostWriter: Write + Send {
    /// Ends the direction.
    fn finish(&mut self) -> io::Result<()>;
}

impl HostWriter for VsockInnerWriter {
    fn finish(&mut self) -> io::Result<()> {
        self.shutdown()
    }
}

impl HostWriter for UnixStream {
    fn finish(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}
