// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the threads of a device share: the front-end's requests come on one, the guest's kicks and
//! the host's streams on another.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::VhostUserBackend;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use vsock_muxer::Counters;
use vsock_proto::{Config, GuestCid};
use vsock_virtio::DeviceCounters;

use crate::builder::Served;
use crate::claim::CidClaim;
use crate::vring::{Memory, Vring};
use crate::worker::Worker;
use crate::{DeviceError, Stopper};

/// Receive, transmit and event queue; some front-ends keep the last one for themselves.
const QUEUES: usize = 3;

/// The data of our descriptors in the worker's epoll. Up to [`QUEUES`] they are the queues', and one
/// more is the crate's own.
const POLLER: u64 = QUEUES as u64 + 1;
const DISMISSAL: u64 = POLLER + 1;

pub(crate) struct Shared {
    claim: CidClaim,
    queue_size: u16,
    features: u64,
    /// The descriptor of the poller in `worker`, which lives as long.
    poller: RawFd,
    /// Lets the worker end.
    dismissal: EventFd,
    stopper: Stopper,
    worker: Mutex<Worker>,
}

impl Shared {
    pub(crate) fn new(
        claim: CidClaim,
        config: Config,
        queue_size: u16,
        backends: Vec<Served>,
        stopper: Stopper,
    ) -> Result<Self, DeviceError> {
        let worker = Worker::new(claim.cid(), config, backends)?;
        Ok(Self {
            queue_size,
            features: worker.features(),
            poller: worker.as_raw_fd(),
            dismissal: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(DeviceError::Resources)?,
            stopper,
            worker: Mutex::new(worker),
            claim,
        })
    }

    pub(crate) fn cid(&self) -> GuestCid {
        self.claim.cid()
    }

    pub(crate) fn counters(&self) -> (Counters, DeviceCounters) {
        self.worker().counters()
    }

    pub(crate) fn is_active(&self) -> bool {
        self.worker().is_active()
    }

    /// Whether a thread has panicked, so that nothing here can be relied upon.
    pub(crate) fn has_panicked(&self) -> bool {
        self.worker.is_poisoned()
    }

    /// A front-end may come; this will be its guest's memory.
    pub(crate) fn begin(&self, memory: Memory) {
        self.worker().begin(memory);
    }

    /// The front-end has gone.
    pub(crate) fn end(&self) {
        self.worker().end();
        // Somebody wrote to it, to let the worker end; there is a next one.
        let _drained = self.dismissal.read();
    }

    /// The device has ended: its backends go.
    pub(crate) fn release(&self) {
        let backends = self.worker().release();
        // Not under the lock: what a backend does when it is dropped is its own affair, and it may ask
        // for the device's counters.
        drop(backends);
    }

    /// What wakes the worker for the host's streams: a descriptor, and its datum.
    pub(crate) fn poller(&self) -> (RawFd, u64) {
        (self.poller, POLLER)
    }

    /// What ends the worker.
    pub(crate) fn dismissal(&self) -> (RawFd, u64) {
        (self.dismissal.as_raw_fd(), DISMISSAL)
    }

    /// Lets the worker end.
    pub(crate) fn dismiss_worker(&self) {
        if let Err(error) = self.dismissal.write(1) {
            log::error!("guest {}: cannot end the worker: {error}", self.cid());
        }
    }

    fn worker(&self) -> MutexGuard<'_, Worker> {
        // After a panic the device ends; until then nobody is to panic for it.
        self.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VhostUserBackend for Shared {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        QUEUES
    }

    fn max_queue_size(&self) -> usize {
        self.queue_size.into()
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn acked_features(&self, features: u64) {
        self.worker().accept_features(features);
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
    }

    fn set_event_idx(&self, _enabled: bool) {
        // The device knows it from the features.
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        // The message that asks has at most 4 KiB.
        let mut data = vec![0; usize::try_from(size).unwrap_or(0)];
        self.worker().config(offset, &mut data);
        data
    }

    fn update_memory(&self, _memory: Memory) -> io::Result<()> {
        // It is the one of the session, with other regions in it.
        Ok(())
    }

    fn stop_vring(&self, queue_index: u32) -> io::Result<()> {
        let index = usize::try_from(queue_index).unwrap_or(usize::MAX);
        self.worker().stop_queue(index);
        Ok(())
    }

    fn handle_event(
        &self,
        device_event: u16,
        _evset: EventSet,
        vrings: &[Vring],
        _thread_id: usize,
    ) -> io::Result<()> {
        let event = u64::from(device_event);
        if event == DISMISSAL {
            // The only way to end this thread that leaves no descriptor behind.
            return Err(io::ErrorKind::Interrupted.into());
        }
        let _alarm = Alarm(&self.stopper);
        self.worker().step(event == POLLER, vrings);
        Ok(())
    }
}

/// Ends the connection to the front-end if the thread panics: it would wait for a dead device.
struct Alarm<'s>(&'s Stopper);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.end_session();
        }
    }
}
