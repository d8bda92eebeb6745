// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One step of the device: what has happened goes in, what can be moved is moved, what is to be done
//! is done. One step for a whole batch of events.

use std::io::ErrorKind;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::MutexGuard;

use vhost::vhost_user::VhostUserVirtioFeatures;
use vhost_user_backend::{VringState, VringT};
use virtio_queue::QueueT;
use vm_memory::{GuestAddressSpace, GuestMemoryMmap};
use vsock_backend_api::VsockBackend;
use vsock_inner::VsockInnerStream;
use vsock_muxer::{Counters, Muxer};
use vsock_proto::{Config, GuestCid, Tick};
use vsock_virtio::{DeviceCounters, Outcome, QueueName, Queues, VsockDevice};

use crate::builder::Served;
use crate::poller::Poller;
use crate::vring::{Memory, Vring};
use crate::{DeviceError, UnixVsockStream};

type Locked<'v> = MutexGuard<'v, VringState<Memory>>;

/// Where the device stands between two visits of a front-end's driver.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// The driver has not started the queues, or has stopped them.
    Stopped,
    Running,
    /// The queues cannot be used. Nothing helps until the driver stops them.
    Broken,
}

/// The device, and what it waits with.
pub(crate) struct Worker {
    device: VsockDevice<GuestMemoryMmap>,
    poller: Poller,
    state: State,
    /// What the driver accepts, from the next start of the queues on.
    features: u64,
    /// The guest's memory, while there is a front-end.
    memory: Option<Memory>,
}

impl Worker {
    pub(crate) fn new(
        guest: GuestCid,
        config: Config,
        backends: Vec<Served>,
    ) -> Result<Self, DeviceError> {
        let mut muxer = Muxer::new(guest, config);
        for Served { backend, ports } in backends {
            match ports {
                Some(ports) => muxer.add_backend_for(backend, &ports)?,
                None => muxer.add_backend(backend)?,
            };
        }
        let device = VsockDevice::builder(muxer)
            .transport_features(VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits())
            .direct::<VsockInnerStream>(0)
            .direct::<UnixVsockStream>(0)
            .build();
        Ok(Self {
            device,
            poller: Poller::new().map_err(DeviceError::Resources)?,
            state: State::Stopped,
            features: 0,
            memory: None,
        })
    }

    /// A front-end may come, with this memory.
    pub(crate) fn begin(&mut self, memory: Memory) {
        self.memory = Some(memory);
    }

    /// The front-end has gone, and the guest with it.
    pub(crate) fn end(&mut self) {
        self.stop();
        self.features = 0;
        self.memory = None;
    }

    /// The device ends: gives up its backends, of which nothing is watched any more.
    pub(crate) fn release(&mut self) -> Vec<Box<dyn VsockBackend>> {
        self.end();
        let now = self.poller.now();
        let backends = self.device.muxer_mut().remove_backends(now);
        self.carry_out(now);
        backends
    }

    /// Takes what the driver has accepted of what was offered.
    pub(crate) fn accept_features(&mut self, features: u64) {
        self.features = features;
    }

    /// A queue is taken back. A device without all of them has been reset.
    pub(crate) fn stop_queue(&mut self, index: usize) {
        if [QueueName::Rx, QueueName::Tx]
            .map(QueueName::index)
            .contains(&index)
        {
            self.stop();
        }
    }

    /// Something has happened: a kick, or an event of the poller.
    pub(crate) fn step(&mut self, polled: bool, vrings: &[Vring]) {
        let now = self.poller.now();
        let happened = !polled || self.poll(now);
        let is_due = self.device.deadline().is_some_and(|at| at <= now);
        if is_due {
            self.device.on_timeout(now);
        }
        // The timer is not set anew for a later deadline. What it was set for is over, and to look at the
        // queues now would break a batch.
        if (happened || is_due)
            && let [rx, tx, ..] = vrings
        {
            self.serve(now, &mut rx.get_mut(), &mut tx.get_mut());
        }
        self.carry_out(now);
    }

    pub(crate) fn features(&self) -> u64 {
        self.device.device_features()
    }

    pub(crate) fn config(&self, offset: u32, data: &mut [u8]) {
        self.device.read_config(offset.into(), data);
    }

    pub(crate) fn is_active(&self) -> bool {
        self.device.is_active()
    }

    pub(crate) fn counters(&self) -> (Counters, DeviceCounters) {
        (self.device.muxer().counters(), self.device.counters())
    }

    /// Takes what has happened to the host's streams; returns whether anything has.
    fn poll(&mut self, now: Tick) -> bool {
        let (poller, device) = (&mut self.poller, &mut self.device);
        poller.retry(now);
        poller
            .poll(|token, ready| device.on_event(now, token, ready))
            .unwrap_or_else(|error| {
                log::error!("cannot wait for the host's streams: {error}");
                true
            })
    }

    /// Moves what can be moved, if the driver has started its queues.
    fn serve(&mut self, now: Tick, rx: &mut Locked<'_>, tx: &mut Locked<'_>) {
        let Some(memory) = self.memory.as_ref().map(GuestAddressSpace::memory) else {
            return;
        };
        if !(runs(rx) && runs(tx)) || self.state == State::Broken {
            return;
        }
        let outcome = {
            let mut queues = Queues {
                rx: rx.get_queue_mut(),
                tx: tx.get_queue_mut(),
                event: None,
            };
            self.process(now, &memory, &mut queues)
        };
        if outcome.notify_rx {
            call(rx);
        }
        if outcome.notify_tx {
            call(tx);
        }
        if outcome.more {
            self.poller.wake();
        }
    }

    fn process(&mut self, now: Tick, mem: &GuestMemoryMmap, queues: &mut Queues<'_>) -> Outcome {
        if self.state == State::Stopped {
            let started = self.start(now, mem, queues);
            self.state = if started {
                State::Running
            } else {
                State::Broken
            };
            if !started {
                return Outcome::default();
            }
        }
        match self.device.process(now, mem, queues) {
            Ok(outcome) => outcome,
            Err(fault) => {
                log::error!("the guest's queues are broken, it must reset the device: {fault}");
                self.state = State::Broken;
                Outcome::default()
            }
        }
    }

    fn start(&mut self, now: Tick, mem: &GuestMemoryMmap, queues: &mut Queues<'_>) -> bool {
        if let Err(error) = self.device.ack_features(self.features) {
            log::error!("the guest cannot be served: {error}");
            return false;
        }
        if let Err(error) = self.device.activate(now, mem, queues) {
            log::error!("the guest cannot be served: {error}");
            return false;
        }
        log::debug!("the guest's driver is up, features {:#x}", self.features);
        true
    }

    fn stop(&mut self) {
        if self.state != State::Stopped {
            let now = self.poller.now();
            self.device.reset(now);
            self.state = State::Stopped;
            self.carry_out(now);
        }
    }

    /// Does what the device wants done.
    fn carry_out(&mut self, now: Tick) {
        while let Some(action) = self.device.next_action() {
            self.poller.apply(action);
        }
        if let Err(error) = self.poller.arm(now, self.device.deadline()) {
            log::error!("cannot set the timer: {error}");
        }
    }
}

impl AsRawFd for Worker {
    fn as_raw_fd(&self) -> RawFd {
        self.poller.as_raw_fd()
    }
}

/// Whether the driver has started a queue, and the front-end lets it run.
fn runs(vring: &VringState<Memory>) -> bool {
    vring.is_enabled() && vring.get_queue().ready()
}

/// Lets the guest know that buffers of a queue were used.
fn call(vring: &VringState<Memory>) {
    match vring.signal_used_queue() {
        // So many calls are pending that one more makes no difference.
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(error) => log::warn!("cannot notify the guest: {error}"),
        Ok(()) => {}
    }
}
