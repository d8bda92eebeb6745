// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use vsock_muxer::MuxerCounters;
use vsock_proto::GuestCid;
use vsock_virtio::DeviceCounters;

use crate::builder::Socket;
use crate::leftovers::Leftovers;
use crate::shared::Shared;
use crate::{DeviceError, Stopper};

/// A device that runs on threads of its own, and serves one VMM after the other.
///
/// Dropping it stops it, as [`stop`](Self::stop) does.
#[must_use = "dropping it stops the device"]
pub struct VsockDevice {
    pub(crate) shared: Arc<Shared>,
    /// Before `stopper`, which has the listener.
    pub(crate) socket: Socket,
    pub(crate) leftovers: Leftovers,
    pub(crate) stopper: Stopper,
    pub(crate) thread: Option<JoinHandle<Result<(), DeviceError>>>,
}

impl VsockDevice {
    /// Ends the device: its connections are reset, its sockets removed, its threads have ended. It takes
    /// two seconds at most.
    ///
    /// # Errors
    ///
    /// - [`DeviceError::Panicked`]: it has ended before, by a panic.
    /// - [`DeviceError::NotEnded`]: something holds a thread of it up.
    pub fn stop(self) -> Result<(), DeviceError> {
        self.stopper.stop();
        self.join()
    }

    /// Waits until the device has ended: by a [`Stopper`], or by an error. From a stop on it waits for
    /// two seconds at most.
    ///
    /// # Errors
    ///
    /// - [`DeviceError::Panicked`]: a thread of it has panicked.
    /// - [`DeviceError::NotEnded`]: it was stopped, and something holds a thread of it up.
    pub fn join(mut self) -> Result<(), DeviceError> {
        self.wait()
    }

    /// What stops the device from another thread.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// The guest's CID.
    #[must_use]
    pub fn guest_cid(&self) -> GuestCid {
        self.shared.cid()
    }

    /// Where it listens for the VMM.
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.socket.file.path()
    }

    /// Whether the guest's driver is up: it has started its queues, and the device serves them. That
    /// ends when the driver or the VMM takes a queue back, as for a reboot, when the VMM goes, and when
    /// a queue breaks the rules.
    ///
    /// It may have changed by the time of the answer. Like the counters, it is not for a backend or a stream
    /// to ask while the device calls it: that would wait for itself. Nobody has to ask before connecting: what the host
    /// begins waits for the driver, within its timeout.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.shared.is_active()
    }

    /// What has been counted of connections and packets since the device was made, over all
    /// front-ends.
    #[must_use]
    pub fn counters(&self) -> MuxerCounters {
        self.shared.counters().0
    }

    /// What has been counted of queues since the device was made, over all front-ends.
    #[must_use]
    pub fn queue_counters(&self) -> DeviceCounters {
        self.shared.counters().1
    }

    fn wait(&mut self) -> Result<(), DeviceError> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        if let Err(error) = self.stopper.wait_for_end() {
            self.leftovers.remove();
            return Err(error);
        }
        thread.join().unwrap_or(Err(DeviceError::Panicked))
    }
}

impl Drop for VsockDevice {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Err(error) = self.wait() {
            log::error!("the device of guest {}: {error}", self.guest_cid());
        }
    }
}

impl fmt::Debug for VsockDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VsockDevice")
            .field("guest_cid", &self.guest_cid())
            .field("socket", &self.socket())
            .finish_non_exhaustive()
    }
}
