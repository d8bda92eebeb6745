// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use vsock_muxer::MuxerCounters;
use vsock_proto::GuestCid;
use vsock_sockets::{NamedListener, SocketFileRemover};
use vsock_virtio::{DeviceCounters, PacketTap};

use crate::capture::Capture;
use crate::error::VhostUserError;
use crate::inspector::Inspector;
use crate::shared::Shared;
use crate::status::StatusHandle;
use crate::stopper::Stopper;

/// A device that runs on threads of its own, and serves one VMM after the other.
///
/// Dropping it stops it, as [`stop`](Self::stop) does.
#[must_use = "dropping it stops the device"]
pub struct VhostUserVsock {
    pub(crate) shared: Arc<Shared>,
    pub(crate) socket: PathBuf,
    /// Removes its file when it goes.
    pub(crate) _listener: Option<NamedListener>,
    /// For the socket files of backends that cannot be dropped, because something blocks a thread.
    pub(crate) file_removers: Vec<SocketFileRemover>,
    pub(crate) stopper: Stopper,
    pub(crate) thread: Option<JoinHandle<Result<(), VhostUserError>>>,
}

impl VhostUserVsock {
    /// Ends the device: its connections are reset, its sockets removed, its threads have ended. It
    /// takes two seconds at most.
    ///
    /// # Errors
    ///
    /// - [`VhostUserError::Panicked`]: it has ended before, by a panic.
    /// - [`VhostUserError::NotEnded`]: something blocks a thread of it.
    pub fn stop(self) -> Result<(), VhostUserError> {
        self.stopper.stop();
        self.join()
    }

    /// Waits until the device has ended: by a [`Stopper`], by an error, or because the
    /// [only VMM](crate::VhostUserVsockBuilder::vmm) that it was for has gone. From a stop on it
    /// waits for two seconds at most.
    ///
    /// # Errors
    ///
    /// - [`VhostUserError::Panicked`]: a thread of it has panicked.
    /// - [`VhostUserError::NotEnded`]: it was stopped, and something blocks a thread of it.
    pub fn join(mut self) -> Result<(), VhostUserError> {
        self.wait()
    }

    /// What stops the device from another thread.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// What tells from another thread what the device is doing.
    ///
    /// ```
    /// use vsock_vhost_user::VhostUserVsockBuilder;
    ///
    /// # let directory = std::env::temp_dir().join(format!("vsock-status-{}", std::process::id()));
    /// # std::fs::create_dir_all(&directory)?;
    /// let device = VhostUserVsockBuilder::new(32, directory.join("vhost.sock")).spawn()?;
    /// let handle = device.status_handle();
    /// let status = handle.status().expect("the device is there");
    /// assert!(!status.has_vmm && status.connections == 0);
    /// device.stop()?;
    /// assert_eq!(handle.status(), None);
    /// # std::fs::remove_dir_all(&directory)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn status_handle(&self) -> StatusHandle {
        StatusHandle::new(&self.shared, self.stopper.clone())
    }

    /// The guest's CID.
    #[must_use]
    pub fn guest_cid(&self) -> GuestCid {
        self.shared.claim.cid()
    }

    /// Where it listens for the VMM: the path that [`VhostUserVsockBuilder::new`] was given.
    ///
    /// [`VhostUserVsockBuilder::new`]: crate::VhostUserVsockBuilder::new
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whether the guest's driver is up: it has started its queues, and the device serves them.
    /// That ends when the driver or the VMM takes a queue back, as for a reboot, when the VMM goes,
    /// and when a queue breaks the rules.
    ///
    /// It may have changed by the time of the answer. Like the counters, it is not for a backend or
    /// a stream to ask while the device calls it: that would wait for itself. There is no need to
    /// ask before connecting: what the host begins waits for the driver, within its timeout.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.shared.worker().is_active()
    }

    /// What has been counted of connections and packets since the device was made, over all
    /// front-ends.
    #[must_use]
    pub fn counters(&self) -> MuxerCounters {
        self.shared.worker().counters()
    }

    /// What has been counted of queues since the device was made, over all front-ends.
    #[must_use]
    pub fn queue_counters(&self) -> DeviceCounters {
        self.shared.worker().queue_counters()
    }

    /// Shows every packet of the guest to a capture from now on, instead of to the one before. It
    /// goes on over reboots and front-ends, until [`stop_capture`](Self::stop_capture) or the end
    /// of the capture.
    pub fn start_capture(&self, capture: &Capture) {
        self.set_tap(Some(Box::new(capture.tap(self.guest_cid()))));
    }

    /// Shows packets to no capture any more; from then on it costs nothing.
    pub fn stop_capture(&self) {
        self.set_tap(None);
    }

    fn set_tap(&self, tap: Option<Box<dyn PacketTap>>) {
        let before = self.shared.worker().set_tap(tap);
        // Not under the lock.
        drop(before);
    }

    /// Asks the device for figures and connections, also when it is busy or has been blocked: an
    /// answer that does not come in time is an error.
    #[must_use]
    pub fn inspector(&self) -> Inspector {
        Inspector::new(self.guest_cid(), Arc::clone(&self.shared.inbox))
    }

    fn wait(&mut self) -> Result<(), VhostUserError> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        if let Err(error) = self.stopper.wait_for_end() {
            self.file_removers
                .iter()
                .for_each(SocketFileRemover::remove);
            return Err(error);
        }
        thread.join().unwrap_or(Err(VhostUserError::Panicked))
    }
}

impl Drop for VhostUserVsock {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Err(error) = self.wait() {
            log::error!("the device of guest {}: {error}", self.guest_cid());
        }
    }
}

impl fmt::Debug for VhostUserVsock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VhostUserVsock")
            .field("guest_cid", &self.guest_cid())
            .field("socket", &self.socket())
            .finish_non_exhaustive()
    }
}
