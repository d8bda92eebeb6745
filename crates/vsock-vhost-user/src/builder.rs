// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vsock_backend_api::VsockBackend;
use vsock_epoll::MuxerDriver;
use vsock_inner::{VsockInnerBackend, VsockInnerConnector};
use vsock_proto::{Config, GuestCid};
use vsock_sockets::{ListenerHandle, NamedListener};

use crate::access_platform::AccessPlatform;
use crate::cid_claim::CidClaim;
use crate::device::VhostUserVsock;
use crate::device_muxer::muxer;
use crate::error::VhostUserError;
use crate::frontend_thread::FrontendThread;
use crate::inspector::Inbox;
use crate::io_thread::IoThread;
use crate::journal;
use crate::served::{Served, Serves};
use crate::shared::{Offer, Shared};
use crate::shared_file::SealedMemory;
use crate::stopper::{StopOnDrop, StopStage, Stopper};
use crate::thread::{Begin, ThreadRole, ThreadStart, start};
use crate::virtio_device::virtio_device;
use crate::vmms::Vmms;
use crate::worker::Worker;

/// The default maximum queue size.
const QUEUE_SIZE: u16 = 1024;

/// The default time for which the device polls after work.
const POLL_BUDGET: Duration = Duration::from_micros(30);

/// The longest queue that virtio allows (virtio 1.3, 2.7).
const MAX_QUEUE_SIZE: u16 = 1 << 15;

/// A builder of a [`VhostUserVsock`].
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
    is_held: bool,
}

impl VhostUserVsockBuilder {
    /// Creates a builder of a device for the guest with this CID, whose VMM connects to `socket`.
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
            is_held: false,
        }
    }

    /// Waits for VMMs on an existing listener instead of a new one at the path given to
    /// [`new`](Self::new), for example to set permissions.
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

    /// Serves only the VMM at the other end of this blocking connection, for a parent process that
    /// created both ends. The device ends when the VMM disconnects. It does not create a socket at
    /// the path given to [`new`](Self::new).
    ///
    /// ```
    /// use std::os::unix::net::UnixStream;
    /// use vsock_vhost_user::VhostUserVsockBuilder;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (device_end, vmm_end) = UnixStream::pair()?;
    /// let device = VhostUserVsockBuilder::new(33, "a pair").vmm(device_end).spawn()?;
    /// // Pass the other end to the VMM, which disconnects when it ends.
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

    /// Sets a function that each thread of the device runs first, for example to confine the
    /// thread, or to set its processors or priority.
    ///
    /// [`spawn`](Self::spawn) waits for it, and fails if it fails.
    ///
    /// ```
    /// use vsock_vhost_user::{ThreadRole, VhostUserVsockBuilder};
    ///
    /// # let directory = std::env::temp_dir().join(format!("vsock-begin-{}", std::process::id()));
    /// # std::fs::create_dir_all(&directory)?;
    /// let device = VhostUserVsockBuilder::new(31, directory.join("vhost.sock"))
    ///     .on_thread_start(|role| match role {
    ///         ThreadRole::Device => Ok(println!("this thread moves the guest's bytes")),
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
        start: impl Fn(ThreadRole) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.thread_start = Some(Arc::new(start));
        self
    }

    /// Sets the limits of the guest's connections. The default is that of [`Config`].
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Sets the longest queue that a VMM may set up: a power of two from 2 to 32,768. The default
    /// is 1,024.
    ///
    /// The device disconnects a front-end with longer queues, and the guest's driver never comes
    /// up. QEMU sets up 128 entries, so it needs at least this limit.
    #[must_use]
    pub fn queue_size(mut self, entries: u16) -> Self {
        self.queue_size = entries;
        self
    }

    /// Sets whether the guest's memory must be sealed against shrinking (`F_SEAL_SHRINK` of a
    /// memfd; QEMU: `-object memory-backend-memfd,seal=on`). By default, it need not be.
    ///
    /// If a VMM truncates a shared file and the device then accesses the missing bytes, the kernel
    /// kills the process with all its devices. Require sealed memory if you do not trust every VMM
    /// in this respect. The device disconnects a VMM that shares other memory, and logs why.
    #[must_use]
    pub fn sealed_memory(mut self, sealed: SealedMemory) -> Self {
        self.sealed_memory = sealed;
        self
    }

    /// Sets whether to offer `VIRTIO_F_ACCESS_PLATFORM`: see [`AccessPlatform`]. Off by default.
    #[must_use]
    pub fn access_platform(mut self, access_platform: AccessPlatform) -> Self {
        self.access_platform = access_platform;
        self
    }

    /// Sets how long the device thread polls for more work before it sleeps. The default is 30 us;
    /// zero turns polling off. See [`vsock_virtio::VsockDeviceBuilder::poll_budget`].
    #[must_use]
    pub fn poll_budget(mut self, budget: Duration) -> Self {
        self.poll_budget = budget;
        self
    }

    /// Adds a backend.
    ///
    /// The first backend added this way gets the guest's connections to all ports that no backend
    /// [has for itself](Self::backend_for). For seqpacket connections, it is the first one that
    /// supports messages. If there is no such backend, the guest's connection is refused. Every
    /// backend can open connections from the host to the guest.
    #[must_use]
    pub fn backend(mut self, backend: Box<dyn VsockBackend>) -> Self {
        let serves = Serves::Rest;
        self.backends.push(Served { backend, serves });
        self
    }

    /// Adds a backend that gets the guest's connections to these ports only.
    #[must_use]
    pub fn backend_for(mut self, backend: Box<dyn VsockBackend>, ports: &[u32]) -> Self {
        let serves = Serves::Ports(ports.to_vec());
        self.backends.push(Served { backend, serves });
        self
    }

    /// Adds the backend for connections between the guest and other guests, as
    /// [`vsock_muxer::Muxer::add_sibling_backend`] does: a
    /// [`SiblingBackend`](crate::SiblingBackend), or one with its own rules. Without such a
    /// backend, the guest cannot connect to other guests.
    #[must_use]
    pub fn sibling_backend(mut self, backend: Box<dyn VsockBackend>) -> Self {
        let serves = Serves::Siblings;
        self.backends.push(Served { backend, serves });
        self
    }

    /// Adds an in-process backend, as [`backend`](Self::backend) does. The connector opens streams
    /// to the guest and listens for the guest's connections. To change its limits, create it with
    /// [`VsockInnerBackend::with_config`] and add it with [`backend`](Self::backend).
    ///
    /// Its listeners get only connections to ports of this backend. If another backend was added
    /// with [`backend`](Self::backend) before, this one has no ports: use
    /// [`in_process_for`](Self::in_process_for) instead.
    ///
    /// # Errors
    ///
    /// As for [`VsockInnerBackend::new`].
    pub fn in_process(self) -> io::Result<(Self, VsockInnerConnector)> {
        let backend = VsockInnerBackend::new()?;
        let connector = backend.get_connector();
        Ok((self.backend(Box::new(backend)), connector))
    }

    /// Adds an in-process backend, as [`backend_for`](Self::backend_for) does. The guest's
    /// connections to these ports go to the connector's listeners, regardless of other backends.
    ///
    /// # Errors
    ///
    /// As for [`VsockInnerBackend::new`].
    pub fn in_process_for(self, ports: &[u32]) -> io::Result<(Self, VsockInnerConnector)> {
        let backend = VsockInnerBackend::new()?;
        let connector = backend.get_connector();
        Ok((self.backend_for(Box::new(backend), ports), connector))
    }

    /// Makes VMMs wait until the device is [released](VhostUserVsock::release). Their connections
    /// succeed in the meantime, but they get no reply. By default, a device serves VMMs as soon as
    /// it is spawned.
    ///
    /// Use this if a process must finish its start before any guest can use its resources. The
    /// clients of a guest can use up the descriptors, for example.
    ///
    /// [`join`](VhostUserVsock::join) releases the device too, and a drop ends it without serving a
    /// VMM. A held device does not notice that its [only VMM](Self::vmm) disconnects.
    ///
    /// ```
    /// use vsock_vhost_user::VhostUserVsockBuilder;
    ///
    /// # let directory = std::env::temp_dir().join(format!("vsock-held-{}", std::process::id()));
    /// # std::fs::create_dir_all(&directory)?;
    /// let device = VhostUserVsockBuilder::new(41, directory.join("vhost.sock"))
    ///     .held()
    ///     .spawn()?;
    /// // Open what else the process needs, and then:
    /// device.release();
    /// device.stop()?;
    /// # std::fs::remove_dir_all(&directory)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn held(mut self) -> Self {
        self.is_held = true;
        self
    }

    /// Creates the socket and starts the device, which waits for a VMM on its own threads.
    ///
    /// # Errors
    ///
    /// The CID, the queue size, the socket or the backends are invalid, or the operating system
    /// lacks a resource.
    pub fn spawn(mut self) -> Result<VhostUserVsock, VhostUserError> {
        let cid = GuestCid::try_from(self.cid).map_err(VhostUserError::Cid)?;
        let size = self.queue_size;
        if !(2..=MAX_QUEUE_SIZE).contains(&size) || !size.is_power_of_two() {
            return Err(VhostUserError::QueueSize(size));
        }
        let claim = CidClaim::new(cid).ok_or(VhostUserError::CidTaken(cid))?;

        // If the second thread cannot start, its `StopOnDrop` is dropped and stops the first one.
        let listener = self.listen()?;
        let handle = listener.as_ref().map(NamedListener::handle);
        let mut event_loop =
            MuxerDriver::new().map_err(|error| VhostUserError::Resources(error.into()))?;
        let stopper = self.stopper(handle.clone(), &event_loop);
        let inbox = Arc::new(Inbox::new(&mut event_loop)?);
        let file_removers = self.backends.iter().filter_map(Served::file_remover);
        let file_removers = file_removers.collect();
        let journal = Arc::new(journal::of_guest(cid, event_loop.waker()));
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
        let device_begin = Begin::new(ThreadRole::Device, begin.clone());
        let io_thread = start(format!("vsock-{cid}"), device_begin, || io_thread.run())?;
        let frontends = FrontendThread {
            shared: Arc::clone(&shared),
            vmms: handle.map_or_else(|| Vmms::Connected(self.vmm), Vmms::Listening),
            stopper: stopper.clone(),
            io_thread,
        };
        // However this thread ends, also by a panic, `wait_for_end` learns of it.
        let end = StopOnDrop {
            stopper: stopper.clone(),
            stage: StopStage::Ended,
        };
        let frontend_begin = Begin::new(ThreadRole::FrontEnd, begin);
        let thread = start(format!("vmm-{cid}"), frontend_begin, move || {
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

    fn stopper(&self, listener: Option<ListenerHandle>, event_loop: &MuxerDriver) -> Stopper {
        let stopper = Stopper::new(listener, event_loop.waker());
        if self.is_held {
            stopper.hold();
        }
        stopper
    }

    /// Returns the listener for VMMs, or `None` if the only VMM is already connected.
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
