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

/// A device that runs on its own threads and serves one VMM after another.
///
/// Dropping it stops the device, as [`stop`](Self::stop) does.
#[must_use = "dropping it stops the device"]
pub struct VhostUserVsock {
    pub(crate) shared: Arc<Shared>,
    pub(crate) socket: PathBuf,
    /// Removes its socket file when dropped.
    pub(crate) _listener: Option<NamedListener>,
    /// Remove the socket files of backends that cannot be dropped because a thread is blocked.
    pub(crate) file_removers: Vec<SocketFileRemover>,
    pub(crate) stopper: Stopper,
    pub(crate) thread: Option<JoinHandle<Result<(), VhostUserError>>>,
}

impl VhostUserVsock {
    /// Stops the device: resets its connections, removes its sockets and ends its threads. This
    /// takes at most two seconds.
    ///
    /// # Errors
    ///
    /// - [`VhostUserError::Panicked`]: a thread of the device has panicked.
    /// - [`VhostUserError::NotEnded`]: something blocks a thread of the device.
    pub fn stop(self) -> Result<(), VhostUserError> {
        self.stopper.stop();
        self.join()
    }

    /// Waits until the device has ended, because of a [`Stopper`], an error, or because its
    /// [only VMM](crate::VhostUserVsockBuilder::vmm) has disconnected. After a stop, this waits for
    /// at most two seconds.
    ///
    /// This releases a [held](crate::VhostUserVsockBuilder::held) device, because nothing else can
    /// release it from now on.
    ///
    /// # Errors
    ///
    /// - [`VhostUserError::Panicked`]: a thread of the device has panicked.
    /// - [`VhostUserError::NotEnded`]: the device was stopped, and something blocks one of its
    ///   threads.
    pub fn join(mut self) -> Result<(), VhostUserError> {
        self.release();
        self.wait()
    }

    /// Lets a [held](crate::VhostUserVsockBuilder::held) device serve VMMs. Otherwise, this has no
    /// effect.
    pub fn release(&self) {
        self.stopper.release();
    }

    /// Returns a handle that stops the device from another thread.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Returns a handle to the status of the device, for use on another thread.
    ///
    /// ```
    /// use vsock_vhost_user::VhostUserVsockBuilder;
    ///
    /// # let directory = std::env::temp_dir().join(format!("vsock-status-{}", std::process::id()));
    /// # std::fs::create_dir_all(&directory)?;
    /// let device = VhostUserVsockBuilder::new(32, directory.join("vhost.sock")).spawn()?;
    /// let handle = device.status_handle();
    /// let status = handle.status().expect("the device exists");
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

    /// Returns the guest's CID.
    #[must_use]
    pub fn guest_cid(&self) -> GuestCid {
        self.shared.claim.cid()
    }

    /// Returns the path of the VMM's socket that was given to [`VhostUserVsockBuilder::new`].
    ///
    /// [`VhostUserVsockBuilder::new`]: crate::VhostUserVsockBuilder::new
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Returns whether the guest's driver is up: it has started its queues, and the device serves
    /// them. This ends when the driver or the VMM stops a queue, for example for a reboot, when the
    /// VMM disconnects, and when a queue violates the rules.
    ///
    /// The state may change immediately afterwards. There is no need to check it before connecting:
    /// a connection from the host waits for the driver, within its timeout. A backend or a stream
    /// must not call this or the counters while the device calls it; that would deadlock.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.shared.worker().is_active()
    }

    /// Returns the counters of connections and packets since the creation of the device, over all
    /// front-ends.
    #[must_use]
    pub fn counters(&self) -> MuxerCounters {
        self.shared.worker().counters()
    }

    /// Returns the counters of the queues since the creation of the device, over all front-ends.
    #[must_use]
    pub fn queue_counters(&self) -> DeviceCounters {
        self.shared.worker().queue_counters()
    }

    /// Captures every packet of the guest from now on, and replaces the previous capture. The
    /// capture continues across reboots and front-ends, until
    /// [`stop_capture`](Self::stop_capture) or its own end.
    pub fn start_capture(&self, capture: &Capture) {
        self.set_tap(Some(Box::new(capture.tap(self.guest_cid()))));
    }

    /// Stops capturing packets.
    pub fn stop_capture(&self) {
        self.set_tap(None);
    }

    fn set_tap(&self, tap: Option<Box<dyn PacketTap>>) {
        let before = self.shared.worker().set_tap(tap);
        // Drop the tap without the lock, because that may run foreign code.
        drop(before);
    }

    /// Returns a handle that asks the device for figures and connections. It also works with a busy
    /// or blocked device, because a missing answer is an error.
    #[must_use]
    pub fn inspector(&self) -> Inspector {
        Inspector::new(self.guest_cid(), Arc::clone(&self.shared.inbox))
    }

    fn wait(&mut self) -> Result<(), VhostUserError> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        // A blocked thread still owns the backends, so remove their socket files without them.
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
            log::error!(
                "cannot stop the device of guest {} cleanly: {error}",
                self.guest_cid()
            );
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
