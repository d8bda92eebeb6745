// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One step of the device: what has happened goes in, what can be moved is moved, what is to be done
//! is done. One step for a whole batch of events.

use std::fs::File;
use std::io;
use std::sync::Arc;

use vm_memory::GuestMemoryMmap;
use vsock_backend_api::VsockBackend;
use vsock_epoll::{DriverEvents, Handover, LoopError, MuxerDriver};
use vsock_muxer::{MuxerCounters, NextCall};
use vsock_proto::Tick;
use vsock_virtio::{DeviceCounters, QueueName, Queues, VsockDevice};

use crate::error::VhostUserError;
use crate::journal::{Journal, say};
use crate::lifecycle::Lifecycle;
use crate::signal::Signaller;
use crate::vring::{Discarded, Enablement, KickChange, StoppedQueue, Vring};

/// Receive, transmit and event queue; some front-ends keep the last one for themselves.
pub(crate) const QUEUES: usize = 3;

/// The number of a queue that exists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct QueueIndex(usize);

impl QueueIndex {
    pub(crate) fn new(index: u32) -> Option<Self> {
        let index = usize::try_from(index).ok()?;
        (index < QUEUES).then_some(Self(index))
    }

    /// Whether a device without this queue can do nothing.
    fn carries_packets(self) -> bool {
        [QueueName::Rx, QueueName::Tx]
            .map(QueueName::index)
            .contains(&self.0)
    }
}

/// What belonged to a front-end that has gone: memory and descriptors. To let it go may take long.
#[must_use = "to be dropped without the lock"]
#[derive(Debug)]
pub(crate) struct Remains {
    _memory: Option<Arc<GuestMemoryMmap>>,
    _descriptors: [Discarded; QUEUES],
}

/// The device, and what it waits with.
pub(crate) struct Worker {
    journal: Arc<Journal>,
    lifecycle: Lifecycle,
    event_loop: MuxerDriver,
    signaller: Signaller,
    vrings: [Vring; QUEUES],
    /// The guest's memory, while a front-end shares it.
    memory: Option<Arc<GuestMemoryMmap>>,
}

impl Worker {
    pub(crate) fn new(
        device: VsockDevice<GuestMemoryMmap>,
        queue_size: u16,
        event_loop: MuxerDriver,
        journal: Arc<Journal>,
    ) -> Result<Self, VhostUserError> {
        let vring = || {
            Vring::new(queue_size, Arc::clone(&journal))
                .map_err(|_| VhostUserError::QueueSize(queue_size))
        };
        Ok(Self {
            lifecycle: Lifecycle::new(device, Arc::clone(&journal)),
            event_loop,
            signaller: Signaller::new(&journal),
            vrings: [vring()?, vring()?, vring()?],
            journal,
            memory: None,
        })
    }

    /// The front-end has gone, and the guest with it.
    pub(crate) fn end(&mut self) -> Remains {
        self.stop();
        self.lifecycle.accept_features(0);
        let (event_loop, signaller) = (&mut self.event_loop, &mut self.signaller);
        Remains {
            _memory: self.memory.take(),
            _descriptors: self
                .vrings
                .each_mut()
                .map(|vring| vring.reset(event_loop, signaller)),
        }
    }

    /// The device ends: gives up its backends. [`settle`](Self::settle) comes next.
    pub(crate) fn remove_backends(&mut self) -> Vec<Box<dyn VsockBackend>> {
        let now = self.event_loop.now();
        self.lifecycle.device.muxer_mut().remove_backends(now)
    }

    /// Lets go what is no longer needed.
    pub(crate) fn settle(&mut self) {
        let now = self.event_loop.now();
        self.carry_out(now);
    }

    /// Takes what the driver has accepted of what was offered.
    pub(crate) fn accept_features(&mut self, features: u64) {
        self.lifecycle.accept_features(features);
    }

    /// Takes the guest's memory; returns the one before.
    #[must_use = "to be dropped without the lock"]
    pub(crate) fn set_memory(
        &mut self,
        memory: Arc<GuestMemoryMmap>,
    ) -> Option<Arc<GuestMemoryMmap>> {
        self.memory.replace(memory)
    }

    /// A queue, for what does not concern the loop.
    pub(crate) fn vring(&mut self, index: QueueIndex) -> &mut Vring {
        &mut self.vrings[index.0]
    }

    pub(crate) fn set_kick(&mut self, index: QueueIndex, kick: Option<File>) -> KickChange {
        self.vrings[index.0].set_kick(kick, &mut self.event_loop)
    }

    pub(crate) fn set_enablement(
        &mut self,
        index: QueueIndex,
        enablement: Enablement,
    ) -> io::Result<()> {
        self.vrings[index.0].set_enablement(enablement, &mut self.event_loop)
    }

    /// Lets every queue run: of a front-end that does not say it of each.
    pub(crate) fn enable_all(&mut self) -> io::Result<()> {
        let event_loop = &mut self.event_loop;
        self.vrings
            .iter_mut()
            .try_for_each(|vring| vring.set_enablement(Enablement::Enabled, event_loop))
    }

    /// A queue is taken back. A device without one that carries packets has been reset.
    pub(crate) fn stop_queue(&mut self, index: QueueIndex) -> StoppedQueue {
        let stopped = self.vrings[index.0].stop(&mut self.event_loop, &mut self.signaller);
        if index.carries_packets() {
            self.stop();
        }
        stopped
    }

    /// For the thread that takes steps.
    pub(crate) fn events(&self) -> DriverEvents {
        self.event_loop.events()
    }

    /// Something has happened, or the thread has looked because the device polls.
    pub(crate) fn step(&mut self, events: &mut DriverEvents) {
        let now = self.event_loop.now();
        let device = &mut self.lifecycle.device;
        if self.event_loop.dispatch(now, events, device) {
            events.set_next_call(self.serve(now));
        }
        self.carry_out(now);
    }

    /// The device is to end while its guest goes on: begins to reset the guest's connections.
    pub(crate) fn begin_farewell(&mut self, events: &mut DriverEvents) {
        let now = self.event_loop.now();
        self.lifecycle.device.farewell(now);
        events.set_next_call(self.serve(now));
        self.carry_out(now);
    }

    /// Whether the guest does not know yet of the end of all its connections, and may learn of it.
    pub(crate) fn owes_farewells(&self) -> bool {
        self.lifecycle.owes_farewells()
    }

    pub(crate) fn features(&self) -> u64 {
        self.lifecycle.device.device_features()
    }

    pub(crate) fn config(&self, offset: u32, data: &mut [u8]) {
        self.lifecycle.device.read_config(offset.into(), data);
    }

    pub(crate) fn is_active(&self) -> bool {
        self.lifecycle.device.is_active()
    }

    pub(crate) fn counters(&self) -> MuxerCounters {
        self.lifecycle.device.muxer().counters()
    }

    pub(crate) fn queue_counters(&self) -> DeviceCounters {
        self.lifecycle.device.counters()
    }

    /// Moves what can be moved, if the driver has started its queues. Returns when to call it again.
    fn serve(&mut self, now: Tick) -> NextCall {
        let Some(memory) = &self.memory else {
            return NextCall::OnEvent;
        };
        let [rx, tx, _] = &mut self.vrings;
        if !(rx.runs() && tx.runs()) {
            return NextCall::OnEvent;
        }
        let mut queues = Queues {
            rx: rx.queue_mut(),
            tx: tx.queue_mut(),
            event: None,
        };
        let outcome = self.lifecycle.process(now, memory, &mut queues);
        if outcome.notify_rx {
            rx.signal(&mut self.signaller);
        }
        if outcome.notify_tx {
            tx.signal(&mut self.signaller);
        }
        outcome.next
    }

    fn stop(&mut self) {
        let now = self.event_loop.now();
        self.lifecycle.stop(now);
        self.carry_out(now);
    }

    /// Does what the device wants done, and tells what was left out of the log.
    fn carry_out(&mut self, now: Tick) {
        let journal = &self.journal;
        let device = &mut self.lifecycle.device;
        self.event_loop
            .carry_out(now, device, |handover| match handover {
                // A socket that may take its time to close closes elsewhere.
                Handover::Close(stream) => drop(stream),
                Handover::Failed(error) => tell(journal, &error),
            });
        if let Some(wait) = self.journal.tell()
            && let Err(error) = self.event_loop.wake_by(now.saturating_add(wait))
        {
            tell(&self.journal, &error);
        }
    }
}

/// Says what the kernel has refused, with its reason.
fn tell(journal: &Journal, error: &LoopError) {
    match error {
        LoopError::Watch { fd, source } => {
            say!(journal, Warn, "cannot watch descriptor {fd}: {source}");
        }
        LoopError::Unwatch { fd, source } => {
            say!(journal, Warn, "cannot unwatch descriptor {fd}: {source}");
        }
        LoopError::Timer(source) => say!(journal, Error, "cannot set the timer: {source}"),
        error => say!(journal, Error, "{error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::event::{EventfdFlags, eventfd};
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use virtio_queue::QueueT;
    use vm_memory::{Bytes, FileOffset, GuestAddress};
    use vsock_muxer::Muxer;
    use vsock_proto::{Config, GuestCid};

    use super::*;
    use crate::journal::testing::logged;
    use crate::vring::Addresses;

    const AVAILABLE: u64 = 0x1000;
    const USED: u64 = 0x2000;
    const STRIDE: u64 = 0x4000;
    const PACKET: u64 = 2 * STRIDE;
    const LEN: u64 = 3 * STRIDE;

    fn memory() -> Arc<GuestMemoryMmap> {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, LEN).unwrap();
        let file = FileOffset::new(file.into(), 0);
        let range = (GuestAddress(0), usize::try_from(LEN).unwrap(), Some(file));
        Arc::new(GuestMemoryMmap::from_ranges_with_files([range]).unwrap())
    }

    const GENEROUS: Duration = Duration::from_secs(20);

    fn journal(event_loop: &MuxerDriver) -> Journal {
        Journal::new(GuestCid::try_from(3).unwrap(), event_loop.waker())
    }

    fn worker(journal: Journal, event_loop: MuxerDriver) -> Worker {
        polling(journal, event_loop, Duration::ZERO)
    }

    fn polling(journal: Journal, event_loop: MuxerDriver, poll_budget: Duration) -> Worker {
        let muxer = Muxer::new(journal.guest(), Config::default());
        let device = VsockDevice::builder(muxer).poll_budget(poll_budget);
        Worker::new(device.build(), 16, event_loop, Arc::new(journal)).unwrap()
    }

    /// Takes a step for what happens within the time; returns how many events that were.
    fn step(worker: &mut Worker, events: &mut DriverEvents, timeout: Duration) -> usize {
        let happened = events.wait(Some(timeout)).unwrap();
        worker.step(events);
        happened
    }

    /// Starts a queue whose used ring is so far from its begin.
    fn start_queue(worker: &mut Worker, index: u32, used: u64) {
        let base = STRIDE * u64::from(index);
        let addresses = Addresses {
            descriptors: GuestAddress(base),
            available: GuestAddress(base + AVAILABLE),
            used: GuestAddress(base + used),
            used_index: 0,
        };
        let index = QueueIndex::new(index).unwrap();
        worker.vring(index).set_addresses(&addresses).unwrap();
        let kick = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let change = worker.set_kick(index, Some(kick.into()));
        change.watched.unwrap();
        let enabled = worker.set_enablement(index, Enablement::Enabled);
        enabled.unwrap();
    }

    /// A worker whose guest's queues run, and what its thread waits with.
    fn running(memory: &Arc<GuestMemoryMmap>) -> (Worker, DriverEvents) {
        running_and_polling(memory, Duration::ZERO)
    }

    fn running_and_polling(
        memory: &Arc<GuestMemoryMmap>,
        poll_budget: Duration,
    ) -> (Worker, DriverEvents) {
        let event_loop = MuxerDriver::new().unwrap();
        let mut worker = polling(journal(&event_loop), event_loop, poll_budget);
        drop(worker.set_memory(Arc::clone(memory)));
        worker.accept_features(1 << 32);
        for index in [0, 1] {
            start_queue(&mut worker, index, USED);
        }
        let events = worker.events();
        (worker, events)
    }

    fn sent(worker: &mut Worker) -> u16 {
        let index = QueueIndex::new(1).unwrap();
        worker.vring(index).queue_mut().next_avail()
    }

    /// The driver sends packets until there have been `count`, and does not kick.
    fn offer(memory: &GuestMemoryMmap, count: u16) {
        let descriptor = [PACKET.to_le_bytes(), [44, 0, 0, 0, 0, 0, 0, 0]].concat();
        memory
            .write_slice(&descriptor, GuestAddress(STRIDE))
            .unwrap();
        let index = GuestAddress(STRIDE + AVAILABLE + 2);
        memory.write_obj(count.to_le(), index).unwrap();
    }

    #[test]
    fn a_device_that_polls_is_served_without_a_kick_until_its_queue_is_stopped() {
        let memory = memory();
        let (mut worker, mut events) = running_and_polling(&memory, Duration::from_secs(3600));
        step(&mut worker, &mut events, Duration::ZERO);
        offer(&memory, 1);
        worker.event_loop.wake();
        step(&mut worker, &mut events, GENEROUS);
        offer(&memory, 2);
        assert_eq!(step(&mut worker, &mut events, GENEROUS), 0, "no kick");
        assert_eq!(sent(&mut worker), 2);
        drop(worker.stop_queue(QueueIndex::new(1).unwrap()));
        step(&mut worker, &mut events, GENEROUS);
        offer(&memory, 3);
        // It waits for an event, and looks at no queue after none.
        step(&mut worker, &mut events, Duration::from_millis(1));
        assert_eq!(sent(&mut worker), 2);
    }

    #[test]
    fn a_timer_for_what_is_over_does_not_look_at_the_queues() {
        let memory = memory();
        let (mut worker, mut events) = running(&memory);
        step(&mut worker, &mut events, Duration::ZERO);
        assert!(worker.is_active());
        offer(&memory, 1);
        assert_eq!(worker.lifecycle.device.deadline(), None, "nothing is due");

        let now = worker.event_loop.now();
        worker.event_loop.wake_by(now).unwrap();
        assert_eq!(step(&mut worker, &mut events, GENEROUS), 1);
        assert_eq!(sent(&mut worker), 0);

        worker.event_loop.wake();
        step(&mut worker, &mut events, Duration::ZERO);
        assert_eq!(sent(&mut worker), 1);
    }

    #[test]
    fn t131_the_timer_tells_what_was_left_out_of_the_log() {
        let event_loop = MuxerDriver::new().unwrap();
        let mut journal = journal(&event_loop);
        logged();
        for _ in 0..100 {
            say!(journal, Warn, "a line");
        }
        // Until a moment before it is time to tell.
        let wait = journal.tell().unwrap();
        journal.advance(wait - Duration::from_millis(50));
        logged();
        let mut worker = worker(journal, event_loop);
        let mut events = worker.events();
        // The thread that left lines out has woken the one that sets the timer; the timer is the other event.
        for _ in 0..2 {
            assert_eq!(step(&mut worker, &mut events, GENEROUS), 1);
        }
        assert_eq!(
            logged(),
            ["WARN guest 3: 90 lines like \"a line\" were left out"]
        );
    }

    #[test]
    fn t131_a_driver_that_sets_up_queues_which_cannot_be_used_does_not_fill_the_log() {
        let memory = memory();
        let (mut worker, mut events) = running(&memory);
        logged();
        for _ in 0..200 {
            drop(worker.stop_queue(QueueIndex::new(1).unwrap()));
            // Beyond the end of memory.
            start_queue(&mut worker, 1, LEN - STRIDE - 8);
            step(&mut worker, &mut events, Duration::ZERO);
            assert!(!worker.is_active());
        }
        let mut lines = logged();
        assert_eq!(lines.len(), 10);
        drop(worker);
        lines.append(&mut logged());
        let left_out = lines.pop().unwrap();
        let text = "cannot serve the driver: ";
        let expected = format!("ERROR guest 3: 190 lines like \"{text}{{error}}\" were left out");
        assert_eq!(left_out, expected);
        let expected = format!("ERROR guest 3: {text}");
        assert!(lines.iter().all(|line| line.starts_with(&expected)));
    }
}
