// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vsock_backend_api::VsockBackend;
use vsock_epoll::MuxerDriver;
use vsock_inner::{VsockInnerBackend, VsockInnerConnector};
use vsock_muxer::{Muxer, MuxerState};
use vsock_proto::{Config, GuestCid, Tick};
use vsock_sockets::NamedListener;

use crate::access_platform::AccessPlatform;
use crate::cid_claim::CidClaim;
use crate::device::VhostUserVsock;
use crate::error::VhostUserError;
use crate::frontend_thread::FrontendThread;
use crate::inspector::Inbox;
use crate::io_thread::IoThread;
use crate::journal::Journal;
use crate::served::{Served, Serves};
use crate::shared::{Offer, Shared};
use crate::shared_file::SealedMemory;
use crate::stopper::{StopOnDrop, StopStage, Stopper};
use crate::thread::{Begin, DeviceThread, ThreadStart, start};
use crate::virtio_device::virtio_device;
use crate::vmms::Vmms;
use crate::worker::Worker;

/// The longest queue, unless it is set.
const QUEUE_SIZE: u16 = 1024;

/// How long the device polls after it has moved something, unless it is set.
const POLL_BUDGET: Duration = Duration::from_micros(30);

/// The longest queue that virtio knows (virtio 1.3, 2.7).
const MAX_QUEUE_SIZE: u16 = 1 << 15;

/// Makes a [`VhostUserVsock`].
pub struct VhostUserVsockBuilder {
    cid: u64,
    socket: PathBuf,
    config: Config,
    queue_size: u16,
    sealed_memory: SealedMemory,
    access_platform: AccessPlatform,
    poll_budget: Duration,
    backends: Vec<Served>,
    listener: Option<NamedListener>,
    vmm: Option<UnixStream>,
    thread_start: Option<ThreadStart>,
}

impl VhostUserVsockBuilder {
    /// A device for the guest with this CID, whose VMM will connect to `socket`.
    #[must_use]
    pub fn new(cid: u64, socket: impl Into<PathBuf>) -> Self {
        Self {
            cid,
            socket: socket.into(),
            config: Config::default(),
            queue_size: QUEUE_SIZE,
            sealed_memory: SealedMemory::default(),
            access_platform: AccessPlatform::default(),
            poll_budget: POLL_BUDGET,
            backends: Vec::new(),
            listener: None,
            vmm: None,
            thread_start: None,
        }
    }

    /// Waits for VMMs by a listener that is there already, in place of one at the path that
    /// [`new`](Self::new) has: with permissions of its own, or handed over by a service manager.
    ///
    /// ```
    /// use vsock_vhost_user::{NamedListener, SocketAccess, VhostUserVsockBuilder};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = std::env::temp_dir().join(format!("vsock-vmm-{}", std::process::id()));
    /// # std::fs::create_dir_all(&directory)?;
    /// let path = directory.join("vhost.sock");
    /// let access = SocketAccess::default().mode(0o660);
    /// let listener = NamedListener::bind_with(&path, access)?;
    /// let device = VhostUserVsockBuilder::new(30, &path).listener(listener).spawn()?;
    /// assert_eq!(device.socket(), path);
    /// device.stop()?;
    /// # std::fs::remove_dir_all(&directory)?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn listener(mut self, listener: NamedListener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Serves the VMM at the other end of this connection, which blocks, and no other: for a parent
    /// that has made both ends. Nothing listens at the path that [`new`](Self::new) has, and the
    /// device ends when the VMM has gone.
    ///
    /// ```
    /// use std::os::unix::net::UnixStream;
    /// use vsock_vhost_user::VhostUserVsockBuilder;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (device_end, vmm_end) = UnixStream::pair()?;
    /// let device = VhostUserVsockBuilder::new(33, "a pair").vmm(device_end).spawn()?;
    /// // The VMM gets the other end, and hangs up in the end.
    /// drop(vmm_end);
    /// device.join()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn vmm(mut self, connection: UnixStream) -> Self {
        self.vmm = Some(connection);
        self
    }

    /// What each thread of the device does first: for a program that confines its threads, or gives
    /// them processors or priorities of their own. Nothing by default.
    ///
    /// [`spawn`](Self::spawn) waits for it. If it fails, so does `spawn`, and there is no device.
    ///
    /// ```
    /// use vsock_vhost_user::{DeviceThread, VhostUserVsockBuilder};
    ///
    /// # let directory = std::env::temp_dir().join(format!("vsock-begin-{}", std::process::id()));
    /// # std::fs::create_dir_all(&directory)?;
    /// let device = VhostUserVsockBuilder::new(31, directory.join("vhost.sock"))
    ///     .on_thread_start(|thread| match thread {
    ///         DeviceThread::Data => Ok(println!("here the guest's bytes are moved")),
    ///         _ => Ok(()),
    ///     })
    ///     .spawn()?;
    /// # device.stop()?;
    /// # std::fs::remove_dir_all(&directory)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn on_thread_start(
        mut self,
        start: impl Fn(DeviceThread) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.thread_start = Some(Arc::new(start));
        self
    }

    /// The limits of the guest's connections.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// The longest queue that a VMM may set up: a power of two from 2 to 32,768, default 1,024.
    ///
    /// A front-end whose queues are longer is refused: its connection ends, and the guest's driver
    /// never comes up. QEMU sets up 128 entries, so with less it is not served.
    #[must_use]
    pub fn queue_size(mut self, entries: u16) -> Self {
        self.queue_size = entries;
        self
    }

    /// Whether the guest's memory must be sealed against shrinking (`F_SEAL_SHRINK` of a memfd;
    /// QEMU: `-object memory-backend-memfd,seal=on`). Not by default.
    ///
    /// A VMM that shortens a file whose bytes the device is about to touch kills the process, with
    /// all devices in it. Where not every VMM is trusted with that, its memory must be sealed; one
    /// that shares other memory is refused: its connection ends, and the log says what it lacks.
    #[must_use]
    pub fn sealed_memory(mut self, sealed: SealedMemory) -> Self {
        self.sealed_memory = sealed;
        self
    }

    /// Whether to offer `VIRTIO_F_ACCESS_PLATFORM`: see [`AccessPlatform`]. Off by default.
    #[must_use]
    pub fn access_platform(mut self, access_platform: AccessPlatform) -> Self {
        self.access_platform = access_platform;
        self
    }

    /// How long the device's thread looks for more, instead of sleeping, after it has moved
    /// something: default 30 us, and zero turns it off. See
    /// [`vsock_virtio::VsockDeviceBuilder::poll_budget`].
    #[must_use]
    pub fn poll_budget(mut self, budget: Duration) -> Self {
        self.poll_budget = budget;
        self
    }

    /// Adds a backend. The first that is added so gets the guest's connections to every port that
    /// no backend has [for itself](Self::backend_for), and of messages the first that has any.
    /// Where there is none, the guest is refused. What the host begins comes from every backend.
    #[must_use]
    pub fn backend(mut self, backend: Box<dyn VsockBackend>) -> Self {
        let serves = Serves::Rest;
        self.backends.push(Served { backend, serves });
        self
    }

    /// Adds a backend that gets the guest's connections to these ports, and to no others.
    #[must_use]
    pub fn backend_for(mut self, backend: Box<dyn VsockBackend>, ports: &[u32]) -> Self {
        let serves = Serves::Ports(ports.to_vec());
        self.backends.push(Served { backend, serves });
        self
    }

    /// Adds the backend for connections between the guest and other guests, as
    /// [`Muxer::add_sibling_backend`] does: a [`SiblingBackend`](crate::SiblingBackend), or one
    /// with rules of its own. Without one the guest reaches no other guest.
    #[must_use]
    pub fn sibling_backend(mut self, backend: Box<dyn VsockBackend>) -> Self {
        let serves = Serves::Siblings;
        self.backends.push(Served { backend, serves });
        self
    }

    /// Adds a backend for this process, as [`backend`](Self::backend) does: the connector opens
    /// streams to the guest, and listens for what the guest opens. With limits other than the usual
    /// ones, make it by [`VsockInnerBackend::with_config`] and add it by
    /// [`backend`](Self::backend).
    ///
    /// Its listeners get connections to ports that come to this backend, and only to those. After
    /// another one that was added without ports it has none: use
    /// [`in_process_for`](Self::in_process_for) there.
    ///
    /// # Errors
    ///
    /// Those of [`VsockInnerBackend::new`].
    pub fn in_process(self) -> io::Result<(Self, VsockInnerConnector)> {
        let backend = VsockInnerBackend::new()?;
        let connector = backend.get_connector();
        Ok((self.backend(Box::new(backend)), connector))
    }

    /// Adds a backend for this process, as [`backend_for`](Self::backend_for) does: the guest's
    /// connections to these ports go to the connector's listeners, whatever other backends there
    /// are.
    ///
    /// # Errors
    ///
    /// Those of [`VsockInnerBackend::new`].
    pub fn in_process_for(self, ports: &[u32]) -> io::Result<(Self, VsockInnerConnector)> {
        let backend = VsockInnerBackend::new()?;
        let connector = backend.get_connector();
        Ok((self.backend_for(Box::new(backend), ports), connector))
    }

    /// Makes the socket, and starts the device: it waits for a VMM, on a thread of its own.
    ///
    /// # Errors
    ///
    /// What is wrong with the CID, the queue size, the socket or the backends, or what the
    /// operating system lacks.
    pub fn spawn(mut self) -> Result<VhostUserVsock, VhostUserError> {
        let cid = GuestCid::try_from(self.cid).map_err(VhostUserError::Cid)?;
        let size = checked_size(self.queue_size)?;
        let claim = CidClaim::new(cid).ok_or(VhostUserError::CidTaken(cid))?;

        let listener = self.listen()?;
        let handle = listener.as_ref().map(NamedListener::handle);
        let mut event_loop =
            MuxerDriver::new().map_err(|error| VhostUserError::Resources(error.into()))?;
        let stopper = Stopper::new(handle.clone(), event_loop.waker());
        let inbox = Arc::new(Inbox::new(&mut event_loop)?);
        let file_removers = self
            .backends
            .iter()
            .filter_map(Served::file_remover)
            .collect();
        let journal = Arc::new(Journal::new(cid, event_loop.waker()));
        let muxer = muxer(cid, self.config, self.backends)?;
        let virtio = virtio_device(muxer, self.access_platform, self.poll_budget);
        let worker = Worker::new(virtio, size, event_loop, Arc::clone(&journal))?;
        let offer = Offer {
            features: worker.features(),
            queue_size: size,
            sealed_memory: self.sealed_memory,
            access_platform: self.access_platform,
        };
        let shared = Arc::new(Shared {
            claim,
            journal,
            offer,
            inbox,
            worker: Mutex::new(worker),
        });
        let io_thread = IoThread::new(Arc::clone(&shared), stopper.clone());
        let begin = self.thread_start;
        let data = Begin::new(DeviceThread::Data, begin.clone());
        let io_thread = start(format!("vsock-{cid}"), data, || io_thread.run())?;
        let frontends = FrontendThread {
            shared: Arc::clone(&shared),
            vmms: handle.map_or_else(|| Vmms::Connected(self.vmm), Vmms::Listening),
            stopper: stopper.clone(),
            io_thread,
        };
        let end = StopOnDrop {
            stopper: stopper.clone(),
            stage: StopStage::Ended,
        };
        let requests = Begin::new(DeviceThread::Requests, begin);
        let thread = start(format!("vmm-{cid}"), requests, move || {
            let _end = end;
            frontends.run()
        });
        Ok(VhostUserVsock {
            shared,
            stopper,
            socket: self.socket,
            _listener: listener,
            file_removers,
            thread: Some(thread?),
        })
    }

    /// What listens for VMMs; `None`: the only one is connected.
    fn listen(&mut self) -> Result<Option<NamedListener>, VhostUserError> {
        if self.vmm.is_some() {
            return Ok(None);
        }
        if let Some(listener) = self.listener.take() {
            return Ok(Some(listener));
        }
        let listener = NamedListener::bind(&self.socket).map_err(|source| {
            let path = self.socket.clone();
            VhostUserError::Socket { path, source }
        });
        listener.map(Some)
    }
}

/// A muxer, to which the backends belong from here on.
fn muxer(cid: GuestCid, config: Config, backends: Vec<Served>) -> Result<Muxer, VhostUserError> {
    let ports = config.host_ports();
    let mut muxer = Muxer::new(cid, config);
    let mut state = MuxerState::default();
    state.next_host_port = first_port(&ports);
    // It is of the version of this release, so it is not refused.
    let _known = muxer.restore(Tick::ZERO, &state);
    for Served { backend, serves } in backends {
        match serves {
            Serves::Rest => muxer.add_backend(backend)?,
            Serves::Ports(ports) => muxer.add_backend_for(backend, &ports)?,
            Serves::Siblings => muxer.add_sibling_backend(backend)?,
        };
    }
    Ok(muxer)
}

/// The port of the first connection of a host: anywhere among these. A device that was killed may
/// have left its guest with connections from the ports that it had, and a guest drops a REQUEST
/// from one of them silently.
fn first_port(ports: &Range<u32>) -> u32 {
    let count = u64::from(ports.end.saturating_sub(ports.start)).max(1);
    let offset = RandomState::new().hash_one(()) % count;
    ports
        .start
        .saturating_add(u32::try_from(offset).unwrap_or(0))
}

/// A size that a queue can have.
fn checked_size(size: u16) -> Result<u16, VhostUserError> {
    if (2..=MAX_QUEUE_SIZE).contains(&size) && size.is_power_of_two() {
        Ok(size)
    } else {
        Err(VhostUserError::QueueSize(size))
    }
}

impl fmt::Debug for VhostUserVsockBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VhostUserVsockBuilder")
            .field("cid", &self.cid)
            .field("socket", &self.socket)
            .field("config", &self.config)
            .field("queue_size", &self.queue_size)
            .field("sealed_memory", &self.sealed_memory)
            .field("access_platform", &self.access_platform)
            .field("poll_budget", &self.poll_budget)
            .field("backends", &self.backends.len())
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t98_a_device_that_starts_anew_begins_with_other_ports_than_the_one_before() {
        let cid = GuestCid::try_from(3).unwrap();
        let first = || {
            let muxer = muxer(cid, Config::default(), Vec::new()).unwrap();
            muxer.save().next_host_port
        };
        // By chance they are the same once in a billion billion times.
        let ports = [first(), first(), first()];
        assert!(ports.iter().any(|port| *port != ports[0]), "{ports:?}");
        let range = Config::default().host_ports();
        assert!(ports.iter().all(|port| range.contains(port)), "{ports:?}");
        assert_eq!(first_port(&(7..8)), 7);
    }
}
