// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A muxer and a simulated guest on real descriptors, in real time.
//!
//! Where the [simulation](crate::sim) replaces the host, this takes real backends: to try them, or to
//! measure. The thread that turns it is the device's.

use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vsock_backend_api::VsockBackend;
use vsock_muxer::{Action, Counters, Muxer, MuxerError, Readiness, Token};
use vsock_proto::{Config, Tick};

use crate::guest::{BytesPayload, Guest, GuestConfig};

/// Packets of the guest, and bytes to it, that a turn carries at most.
const TX_PACKETS: usize = 256;
const RX_BYTES: usize = 512 * 1024;
/// Events of one wake-up.
const EVENTS: usize = 64;

/// A muxer, its event loop, and its guest.
///
/// ```no_run
/// use std::time::Duration;
/// use vsock_backend_api::VsockBackend;
/// use vsock_muxer_harness::guest::GuestConfig;
/// use vsock_muxer_harness::rig::Rig;
/// use vsock_proto::Config;
///
/// # fn run(my_backend: Box<dyn VsockBackend>) -> std::io::Result<()> {
/// let mut rig = Rig::new(Config::default(), GuestConfig::default())?;
/// rig.add_backend(my_backend)?;
/// rig.guest.listen(1024, 8).map_err(std::io::Error::other)?;
/// loop {
///     rig.turn(Some(Duration::from_millis(100)))?;
///     while let Some(socket) = rig.guest.accept(1024) {
///         println!("a component has connected: {socket:?}");
///     }
/// }
/// # }
/// ```
pub struct Rig {
    /// The guest, to be used as its applications would.
    pub guest: Guest,
    muxer: Muxer,
    epoll: Epoll,
    registered: Vec<RawFd>,
    events: Vec<EpollEvent>,
    start: Instant,
}

impl fmt::Debug for Rig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rig").finish_non_exhaustive()
    }
}

impl Rig {
    /// A muxer that is active, and a guest that has booted.
    ///
    /// # Errors
    ///
    /// Those of `epoll_create1(2)`.
    pub fn new(config: Config, guest: GuestConfig) -> io::Result<Self> {
        let mut muxer = Muxer::new(guest.cid, config);
        muxer.activate(Tick::ZERO, guest.types);
        Ok(Self {
            guest: Guest::new(guest),
            muxer,
            epoll: Epoll::new()?,
            registered: Vec::new(),
            events: vec![EpollEvent::default(); EVENTS],
            start: Instant::now(),
        })
    }

    /// Gives the muxer a backend.
    ///
    /// # Errors
    ///
    /// Those of [`Muxer::add_backend`] and of `epoll_ctl(2)`.
    pub fn add_backend(&mut self, backend: Box<dyn VsockBackend>) -> io::Result<()> {
        self.muxer
            .add_backend(backend)
            .map_err(|error: MuxerError| io::Error::other(error))?;
        self.apply()
    }

    /// The time since the beginning.
    #[must_use]
    pub fn now(&self) -> Tick {
        Tick::ZERO.saturating_add(self.start.elapsed())
    }

    /// What the muxer has counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.muxer.counters()
    }

    /// One turn of the device: packets, readiness, buffers, deadlines. While there is nothing to do it
    /// waits, at most for so long. Returns whether anything happened.
    ///
    /// # Errors
    ///
    /// Those of `epoll_wait(2)` and `epoll_ctl(2)`.
    pub fn turn(&mut self, wait: Option<Duration>) -> io::Result<bool> {
        let mut busy = self.take_packets()?;
        busy |= self.transmit()?;
        busy |= self.guest.receive() > 0;
        let now = self.now();
        let deadline = self
            .muxer
            .deadline()
            .into_iter()
            .chain(self.guest.deadline())
            .min();
        let due = deadline.map(|at| at.since(now));
        let wait = if busy || self.guest.tx_len() > 0 {
            Some(Duration::ZERO)
        } else {
            wait.into_iter().chain(due).min()
        };
        busy |= self.dispatch(wait)?;
        let now = self.now();
        if due.is_some_and(|due| due.is_zero()) || deadline.is_some_and(|at| at <= now) {
            self.muxer.on_timeout(now);
            self.guest.on_timeout(now);
            self.apply()?;
        }
        Ok(busy)
    }

    fn take_packets(&mut self) -> io::Result<bool> {
        let now = self.now();
        let mut taken = 0;
        while taken < TX_PACKETS
            && self.muxer.can_take_packet()
            && let Some(packet) = self.guest.next_packet()
        {
            let mut payload = BytesPayload::new(&packet.payload);
            self.muxer.on_packet(now, &packet.header, &mut payload);
            taken += 1;
        }
        self.apply()?;
        Ok(taken > 0)
    }

    fn transmit(&mut self) -> io::Result<bool> {
        let now = self.now();
        let queue = self.guest.rx_queue();
        let before = queue.used();
        if self.muxer.wants_transmit() {
            self.muxer.transmit(now, queue, RX_BYTES);
        }
        let any = self.guest.rx_queue().used() > before;
        self.apply()?;
        Ok(any)
    }

    fn dispatch(&mut self, wait: Option<Duration>) -> io::Result<bool> {
        // A part of a millisecond is a whole one, or the loop would spin through it.
        let timeout = wait.map_or(-1, |wait| {
            i32::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
        });
        let count = match self.epoll.wait(timeout, &mut self.events) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        let now = self.now();
        for at in 0..count {
            let event = self.events[at];
            let set = event.event_set();
            let ready = Readiness {
                readable: set.intersects(EventSet::IN | EventSet::READ_HANG_UP),
                writable: set.contains(EventSet::OUT),
                hangup: set.intersects(EventSet::HANG_UP | EventSet::ERROR),
            };
            self.muxer.on_event(now, Token::from(event.data()), ready);
        }
        self.apply()?;
        Ok(count > 0)
    }

    fn apply(&mut self) -> io::Result<()> {
        while let Some(action) = self.muxer.next_action() {
            match action {
                Action::Watch {
                    token,
                    fd,
                    read,
                    write,
                } => self.watch(token, fd, read, write)?,
                Action::Unwatch { fd, .. } => self.unwatch(fd)?,
                Action::Close { fds, stream, .. } => {
                    for fd in fds.into_iter().flatten() {
                        self.unwatch(fd)?;
                    }
                    drop(stream);
                }
            }
        }
        Ok(())
    }

    fn watch(&mut self, token: Token, fd: RawFd, read: bool, write: bool) -> io::Result<()> {
        let mut set = EventSet::EDGE_TRIGGERED;
        if read {
            set |= EventSet::IN | EventSet::READ_HANG_UP;
        }
        if write {
            set |= EventSet::OUT;
        }
        let how = if self.registered.contains(&fd) {
            ControlOperation::Modify
        } else {
            self.registered.push(fd);
            ControlOperation::Add
        };
        self.epoll.ctl(how, fd, EpollEvent::new(set, token.into()))
    }

    fn unwatch(&mut self, fd: RawFd) -> io::Result<()> {
        self.registered.retain(|known| *known != fd);
        self.epoll
            .ctl(ControlOperation::Delete, fd, EpollEvent::default())
    }
}
