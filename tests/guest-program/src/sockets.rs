// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The sockets that jobs have opened, by number.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use nix::poll::poll;
use nix::sys::eventfd::EventFd;
use socket2::{Domain, SockAddr, Type};

use crate::job::{Answer, End, Group, GuestSocket, Kind, Moved, Options, Socket};
use crate::option;

/// `VMADDR_CID_ANY`, to bind to.
const ANY: u32 = u32::MAX;
/// A listener's backlog.
const BACKLOG: i32 = 1024;
/// How long a connect waits: long enough to expose a device that does not answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Milliseconds between two attempts, where there is no event to wait for.
const AGAIN: u8 = 50;

/// One socket.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) socket: socket2::Socket,
    /// Signals an echo service on this socket that the socket is being closed.
    pub(crate) stop: Option<EventFd>,
    done: AtomicU64,
}

impl Entry {
    pub(crate) fn advance(&self, count: u64) {
        // ORDER: Relaxed; partner: the load in `progress`. The count guards no data.
        self.done.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn progress(&self) -> Answer {
        Answer::Moved(Moved {
            // ORDER: Relaxed; partner: the addition in `advance`.
            count: self.done.load(Ordering::Relaxed),
            wrong: None,
            end: End::Complete,
        })
    }
}

/// All open sockets.
#[derive(Debug, Default)]
pub(crate) struct Sockets(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    next: u32,
    entries: HashMap<Socket, Arc<Entry>>,
}

impl Sockets {
    pub(crate) fn listen(&self, port: u32, options: Options) -> anyhow::Result<Answer> {
        let socket = new(options)?;
        socket
            .bind(&SockAddr::vsock(ANY, port))
            .with_context(|| format!("cannot bind to port {port}"))?;
        socket.listen(BACKLOG)?;
        let stop = EventFd::new().context("cannot create an eventfd")?;
        self.add(socket, Some(stop))
    }

    pub(crate) fn accept(&self, listener: Socket) -> anyhow::Result<Answer> {
        let listener = self.entry(listener)?;
        let (socket, _) = listener.socket.accept().context("cannot accept")?;
        self.add(socket, None)
    }

    pub(crate) fn connect(&self, cid: u32, port: u32, options: Options) -> anyhow::Result<Answer> {
        self.add(connect(cid, port, options)?, None)
    }

    fn add(&self, socket: socket2::Socket, stop: Option<EventFd>) -> anyhow::Result<Answer> {
        let local = socket.local_addr()?.as_vsock_address();
        let (cid, port) = local.context("the socket has no address")?;
        let peer = socket.peer_addr().ok();
        let peer = peer.and_then(|peer| peer.as_vsock_address());
        let socket = self.add_all([(socket, stop)]).first;
        Ok(Answer::Opened(GuestSocket {
            socket,
            cid,
            port,
            peer,
        }))
    }

    /// Adds the sockets under consecutive numbers.
    pub(crate) fn add_all(
        &self,
        sockets: impl IntoIterator<Item = (socket2::Socket, Option<EventFd>)>,
    ) -> Group {
        let mut table = self.table();
        let first = Socket(table.next);
        for (socket, stop) in sockets {
            let number = Socket(table.next);
            table.next += 1;
            let done = AtomicU64::new(0);
            let entry = Entry { socket, stop, done };
            table.entries.insert(number, Arc::new(entry));
        }
        let count = table.next - first.0;
        Group { first, count }
    }

    pub(crate) fn finish(&self, socket: Socket) -> anyhow::Result<Answer> {
        let entry = self.entry(socket)?;
        let ended = entry.socket.shutdown(Shutdown::Write);
        ended.context("cannot end the direction")?;
        Ok(Answer::Done)
    }

    pub(crate) fn close(&self, group: Group) -> anyhow::Result<Answer> {
        let mut table = self.table();
        let removed: Vec<_> = group
            .sockets()
            .filter_map(|socket| table.entries.remove(&socket))
            .collect();
        drop(table);
        for entry in removed {
            if let Some(stop) = &entry.stop {
                stop.write(1)?;
            }
        }
        Ok(Answer::Done)
    }

    pub(crate) fn entry(&self, socket: Socket) -> anyhow::Result<Arc<Entry>> {
        let found = self.table().entries.get(&socket).cloned();
        found.with_context(|| format!("there is no socket {}", socket.0))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects a new socket.
pub(crate) fn connect(cid: u32, port: u32, options: Options) -> anyhow::Result<socket2::Socket> {
    let socket = new(options)?;
    if let Some(from) = options.from {
        socket
            .bind(&SockAddr::vsock(ANY, from))
            .with_context(|| format!("cannot bind to port {from}"))?;
    }
    socket
        .connect(&SockAddr::vsock(cid, port))
        .with_context(|| format!("cannot connect to port {port} of CID {cid}"))?;
    Ok(socket)
}

fn new(options: Options) -> anyhow::Result<socket2::Socket> {
    let kind = match options.kind {
        Kind::Stream => Type::STREAM,
        Kind::SeqPacket => Type::SEQPACKET,
    };
    let socket = socket2::Socket::new(Domain::VSOCK, kind, None)
        .with_context(|| format!("no vsock sockets of kind {:?}", options.kind))?;
    let connect_timeout = options
        .connect_timeout
        .map_or(CONNECT_LIMIT, Duration::from_millis);
    option::set_connect_timeout(&socket, connect_timeout).context("cannot set the timeout")?;
    if let Some(bytes) = options.buffer {
        option::set_buffer(&socket, bytes).context("cannot set the buffer's size")?;
    }
    Ok(socket)
}

/// Tries to bind to the port until it is free, because the driver has no event for that.
pub(crate) fn wait_until_free(port: u32) -> anyhow::Result<Answer> {
    loop {
        let socket = socket2::Socket::new(Domain::VSOCK, Type::STREAM, None)?;
        match socket.bind(&SockAddr::vsock(ANY, port)) {
            Ok(()) => return Ok(Answer::Done),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                poll(&mut [], AGAIN)?;
            }
            Err(error) => return Err(error).with_context(|| format!("cannot bind to port {port}")),
        }
    }
}
