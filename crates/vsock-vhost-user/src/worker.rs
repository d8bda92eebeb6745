// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device with its queues, memory and event loop, shared by its two threads.
//!
//! The device thread takes steps: each one handles a batch of events, moves bytes, and carries out
//! the device's actions. Between two steps, the front-end thread applies the front-end's requests.
//! Both hold the worker's lock, so neither may do anything here that can block: files and mappings
//! that are no longer used are returned to the caller, to be dropped without the lock.

use std::fs::File;
use std::io;
use std::sync::Arc;

use virtio_queue::{Error as QueueError, QueueT};
use vsock_backend_api::VsockBackend;
use vsock_epoll::{DriverEvents, Handover, LoopError, MuxerDriver};
use vsock_muxer::NextCall;
use vsock_proto::Tick;
use vsock_virtio::{F_EVENT_IDX, QueueName, Queues, VsockDevice};

use crate::error::VhostUserError;
use crate::journal::{Journal, say};
use crate::lifecycle::Lifecycle;
use crate::memory::{MappedMemory, holds_queue};
use crate::session::{Interruption, QUEUES, Session};
use crate::signal::Signaller;
use crate::vring::{Addresses, Discarded, Enablement, KICK, KickChange, Vring};

mod inspect;

/// The index of an existing queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct QueueIndex(usize);

impl QueueIndex {
    pub(crate) fn new(index: u32) -> Option<Self> {
        let index = usize::try_from(index).ok()?;
        (index < QUEUES).then_some(Self(index))
    }

    pub(crate) const fn number(self) -> usize {
        self.0
    }

    /// Whether the device needs this queue to serve the driver.
    fn carries_packets(self) -> bool {
        [QueueName::Rx, QueueName::Tx]
            .map(QueueName::index)
            .contains(&self.0)
    }
}

impl From<QueueIndex> for usize {
    fn from(index: QueueIndex) -> Self {
        index.0
    }
}

/// The result of stopping a queue.
#[derive(Debug)]
pub(crate) struct StoppedQueue {
    /// The device's position in the available ring.
    pub(crate) base: u16,
    pub(crate) discarded: Discarded,
}

/// The memory and descriptors of a front-end that has disconnected. Releasing them can take a long
/// time.
#[must_use = "drop it without the worker's lock"]
#[derive(Debug)]
pub(crate) struct Remains {
    _memory: Option<Arc<MappedMemory>>,
    _descriptors: [Discarded; QUEUES],
}

/// The device, with everything that it needs to serve a driver.
pub(crate) struct Worker {
    journal: Arc<Journal>,
    session: Session,
    pub(crate) lifecycle: Lifecycle,
    event_loop: MuxerDriver,
    signaller: Signaller,
    vrings: [Vring; QUEUES],
    /// Whether the device has started to use the event queue.
    event_queue_runs: bool,
    /// How often kicks have woken the device.
    kicks: u64,
    /// The guest's memory, while a front-end shares it.
    memory: Option<Arc<MappedMemory>>,
}

impl Worker {
    pub(crate) fn new(
        device: VsockDevice<MappedMemory>,
        queue_size: u16,
        event_loop: MuxerDriver,
        journal: Arc<Journal>,
    ) -> Result<Self, VhostUserError> {
        let vring = || {
            Vring::new(queue_size, Arc::clone(&journal))
                .map_err(|_| VhostUserError::QueueSize(queue_size))
        };
        Ok(Self {
            session: Session::new(),
            lifecycle: Lifecycle::new(device, Arc::clone(&journal)),
            event_loop,
            signaller: Signaller::new(&journal),
            vrings: [vring()?, vring()?, vring()?],
            journal,
            event_queue_runs: false,
            kicks: 0,
            memory: None,
        })
    }

    /// Detaches from a front-end that has disconnected. Its guest may still run: the next front-end
    /// shows that.
    pub(crate) fn end(&mut self) -> Remains {
        Remains {
            _descriptors: self.reset_device(),
            _memory: self.memory.take(),
        }
    }

    /// `RESET_DEVICE`: returns the device to its initial state. The memory stays until the
    /// front-end replaces it or disconnects.
    pub(crate) fn reset_device(&mut self) -> [Discarded; QUEUES] {
        self.interrupt(Interruption::Reset);
        self.session.forget_set_up();
        self.event_queue_runs = false;
        let (event_loop, signaller) = (&mut self.event_loop, &mut self.signaller);
        self.vrings
            .each_mut()
            .map(|vring| vring.reset(event_loop, signaller))
    }

    /// `RESET_OWNER`: disables every queue and closes the connections. The set-up stays.
    pub(crate) fn reset_owner(&mut self) -> io::Result<()> {
        self.interrupt(Interruption::Reset);
        self.event_queue_runs = false;
        self.enable_all(Enablement::Disabled)
    }

    /// Removes the backends when the device ends. Call [`settle`](Self::settle) next.
    pub(crate) fn remove_backends(&mut self) -> Vec<Box<dyn VsockBackend>> {
        let now = self.event_loop.now();
        self.lifecycle.device_mut().muxer_mut().remove_backends(now)
    }

    /// Carries out the actions that are left, which unregister and close everything.
    pub(crate) fn settle(&mut self) {
        let now = self.event_loop.now();
        self.carry_out(now);
    }

    pub(crate) const fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Sets the guest's memory; returns the previous one.
    #[must_use = "drop it without the worker's lock"]
    pub(crate) fn set_memory(&mut self, memory: Arc<MappedMemory>) -> Option<Arc<MappedMemory>> {
        self.memory.replace(memory)
    }

    /// Returns the number of a running queue that is not in this memory, if there is one.
    pub(crate) fn cut_off(&mut self, memory: &MappedMemory) -> Option<usize> {
        let mut vrings = self.vrings.iter_mut();
        vrings.position(|vring| vring.runs() && !holds_queue(memory, vring.queue_mut()))
    }

    /// Replaces the call of a queue. Notifies the driver of a running queue through it, because a
    /// notification through the previous one may have been lost.
    pub(crate) fn set_call(&mut self, index: QueueIndex, call: Option<File>) -> Discarded {
        let vring = &mut self.vrings[index.0];
        let discarded = vring.set_call(call);
        if vring.runs() {
            vring.signal(&mut self.signaller);
        }
        discarded
    }

    /// Sets the size of a queue. A different size counts as a new set-up.
    pub(crate) fn set_size(&mut self, index: QueueIndex, size: u16) -> Result<(), QueueError> {
        if self.vrings[index.0].layout().size != size {
            self.leave(index);
        }
        self.vrings[index.0].set_size(size)
    }

    /// Sets the addresses of a queue. Different addresses count as a new set-up; with the same
    /// addresses a running queue continues.
    pub(crate) fn set_addresses(
        &mut self,
        index: QueueIndex,
        at: &Addresses,
    ) -> Result<(), QueueError> {
        if self.vrings[index.0].addresses() != *at {
            self.leave(index);
        }
        self.vrings[index.0].set_addresses(at)
    }

    /// Replaces the kick of a queue. A kick starts the queue; a running queue is treated as if it
    /// had been stopped first.
    pub(crate) fn set_kick(&mut self, index: QueueIndex, kick: Option<File>) -> KickChange {
        if kick.is_some() {
            self.leave(index);
        }
        self.vrings[index.0].set_kick(kick, &mut self.event_loop)
    }

    pub(crate) fn set_enablement(
        &mut self,
        index: QueueIndex,
        enablement: Enablement,
    ) -> io::Result<()> {
        let set = self.vrings[index.0].set_enablement(enablement, &mut self.event_loop);
        if enablement == Enablement::Disabled {
            self.leave(index);
        }
        set
    }

    pub(crate) fn enable_all(&mut self, enablement: Enablement) -> io::Result<()> {
        let event_loop = &mut self.event_loop;
        self.vrings
            .iter_mut()
            .try_for_each(|vring| vring.set_enablement(enablement, event_loop))
    }

    /// `GET_VRING_BASE`: stops a queue.
    pub(crate) fn stop_queue(&mut self, index: QueueIndex) -> StoppedQueue {
        self.leave(index);
        let vring = &mut self.vrings[index.0];
        // If the queue has not run since the front-end set its base, return that base.
        let told = self.session.base(index.0);
        StoppedQueue {
            base: told.unwrap_or_else(|| vring.position()),
            discarded: vring.stop(&mut self.event_loop, &mut self.signaller),
        }
    }

    pub(crate) fn events(&self) -> DriverEvents {
        self.event_loop.events()
    }

    /// Handles events, or polls for the device if there are none.
    pub(crate) fn step(&mut self, events: &mut DriverEvents) {
        let now = self.event_loop.now();
        let kicks = events.own().filter(|number| *number == KICK);
        self.kicks += kicks.count() as u64;
        // Skip the queues if there was only a timer, for something that is no longer due.
        if self.event_loop.dispatch(now, events, &mut self.lifecycle) {
            events.set_next_call(self.serve(now));
        }
        self.carry_out(now);
    }

    /// Begins to reset the guest's connections, because the device stops while its guest continues
    /// to run.
    pub(crate) fn begin_farewell(&mut self, events: &mut DriverEvents) {
        let now = self.event_loop.now();
        self.lifecycle.farewell(now);
        events.set_next_call(self.serve(now));
        self.carry_out(now);
    }

    /// Whether the guest still has to receive RSTs, and its driver can receive them.
    pub(crate) fn owes_farewells(&self) -> bool {
        self.session.serves() && self.lifecycle.device().owes_farewells()
    }

    pub(crate) fn connections(&self) -> usize {
        self.lifecycle.device().muxer().connections().count()
    }

    /// Moves bytes, if the driver has started its queues. Returns when to call this again.
    fn serve(&mut self, now: Tick) -> NextCall {
        let Some(memory) = &self.memory else {
            return NextCall::OnEvent;
        };
        // Serve while both packet queues run: a driver that the session serves already, or one that
        // it may begin with. Broken rings are neither.
        let runs = self.packet_queues_run();
        let beginning = self.session.beginning();
        if !runs || !(beginning.is_some() || self.session.serves()) {
            return NextCall::OnEvent;
        }
        let [rx, tx, event] = &mut self.vrings;
        let lends_event_queue = event.runs();
        let event_queue_begins = lends_event_queue && !self.event_queue_runs;
        self.event_queue_runs = lends_event_queue;
        if event_queue_begins {
            event.go_to_used_index(memory);
            self.session.take_base(QueueName::Event.index());
            let event_idx = self.session.features() & F_EVENT_IDX != 0;
            event.queue_mut().set_event_idx(event_idx);
        }
        // Before the device starts, find its position in the rings. A device that already serves
        // them continues at its own position, whatever the guest writes to the used index.
        let beginning = beginning.map(|beginning| {
            let rings = [&mut *rx, &mut *tx].map(|ring| ring.go_to_used_index(memory));
            (beginning, rings)
        });
        let mut queues = Queues {
            rx: rx.queue_mut(),
            tx: tx.queue_mut(),
            event: lends_event_queue.then(|| event.queue_mut()),
        };
        let lifecycle = &mut self.lifecycle;
        // The session decides which driver this is, and the lifecycle carries that out.
        let is_up = beginning.is_none_or(|(beginning, rings)| {
            let start = self.session.start(beginning, rings);
            let features = self.session.features();
            lifecycle.start(now, start, features, memory, &mut queues)
        });
        let outcome = if is_up {
            lifecycle.process(now, memory, &mut queues)
        } else {
            None
        };
        let Some(outcome) = outcome else {
            // The error was logged. Do not try again until the front-end changes something.
            self.session.broken();
            return NextCall::OnEvent;
        };
        if outcome.notify_rx {
            rx.signal(&mut self.signaller);
        }
        if outcome.notify_tx {
            tx.signal(&mut self.signaller);
        }
        // Another device that served this queue before may have had a notification pending.
        if outcome.notify_event || event_queue_begins {
            event.signal(&mut self.signaller);
        }
        outcome.next
    }

    fn packet_queues_run(&self) -> bool {
        let [rx, tx, _] = &self.vrings;
        rx.runs() && tx.runs()
    }

    /// Stops using a queue until it runs again.
    fn leave(&mut self, index: QueueIndex) {
        if index.carries_packets() {
            self.interrupt(Interruption::Pause);
        } else {
            self.event_queue_runs = false;
        }
    }

    fn interrupt(&mut self, by: Interruption) {
        let [rx, tx, _] = &self.vrings;
        let effect = self.session.interrupt(by, [rx.position(), tx.position()]);
        let now = self.event_loop.now();
        self.lifecycle.interrupt(now, effect);
        self.carry_out(now);
        // If the queues still run, there may be no kick that makes the device serve them again.
        if self.packet_queues_run() {
            self.event_loop.wake();
        }
    }

    /// Carries out the device's actions, and logs refused connections and reports of messages that
    /// were left out.
    fn carry_out(&mut self, now: Tick) {
        let journal = &self.journal;
        self.event_loop
            .carry_out(now, &mut self.lifecycle, |handover| match handover {
                // A socket whose close may block is closed by a separate thread.
                Handover::Close(stream) => drop(stream),
                Handover::Failed(error) => tell(journal, &error),
            });
        self.tell_refusals();
        if let Some(wait) = self.journal.tell() {
            if let Err(error) = self.event_loop.wake_by(now.saturating_add(wait)) {
                tell(&self.journal, &error);
            }
        }
    }
}

/// Logs an error of the event loop.
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
    use vm_memory::{Bytes, GuestAddress};
    use vsock_compliance::poll::Stopwatch;
    use vsock_driver::logged;
    use vsock_muxer::Muxer;
    use vsock_proto::{Config, GuestCid};

    use super::*;
    use crate::journal;
    use crate::memory::testing::mapped;

    const AVAILABLE: u64 = 0x1000;
    const USED: u64 = 0x2000;
    const STRIDE: u64 = 0x4000;
    const PACKET: u64 = 2 * STRIDE;
    const LEN: u64 = 3 * STRIDE;

    fn memory() -> Arc<MappedMemory> {
        mapped(LEN)
    }

    const GENEROUS: Duration = Duration::from_secs(20);

    fn guest() -> GuestCid {
        GuestCid::try_from(3).unwrap()
    }

    fn journal(event_loop: &MuxerDriver) -> Journal {
        journal::of_guest(guest(), event_loop.waker())
    }

    fn worker(journal: Journal, event_loop: MuxerDriver) -> Worker {
        polling(journal, event_loop, Duration::ZERO)
    }

    fn polling(journal: Journal, event_loop: MuxerDriver, poll_budget: Duration) -> Worker {
        let muxer = Muxer::new(guest(), Config::default());
        let device = VsockDevice::builder(muxer).poll_budget(poll_budget);
        Worker::new(device.build(), 16, event_loop, Arc::new(journal)).unwrap()
    }

    /// Waits for events, at most for `timeout`, and takes a step. Returns the number of events.
    fn step(worker: &mut Worker, events: &mut DriverEvents, timeout: Duration) -> usize {
        let happened = events.wait(Some(timeout)).unwrap();
        worker.step(events);
        happened
    }

    /// Starts a queue whose used ring has the offset `used`.
    fn start_queue(worker: &mut Worker, index: u32, used: u64) {
        let base = STRIDE * u64::from(index);
        let addresses = Addresses {
            descriptors: GuestAddress(base),
            available: GuestAddress(base + AVAILABLE),
            used: GuestAddress(base + used),
        };
        let index = QueueIndex::new(index).unwrap();
        worker.set_addresses(index, &addresses).unwrap();
        let kick = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let change = worker.set_kick(index, Some(kick.into()));
        change.watched.unwrap();
        let enabled = worker.set_enablement(index, Enablement::Enabled);
        enabled.unwrap();
    }

    /// Creates a worker whose packet queues run, and the events that its thread waits for.
    fn running(memory: &Arc<MappedMemory>) -> (Worker, DriverEvents) {
        running_and_polling(memory, Duration::ZERO)
    }

    fn running_and_polling(
        memory: &Arc<MappedMemory>,
        poll_budget: Duration,
    ) -> (Worker, DriverEvents) {
        let event_loop = MuxerDriver::new().unwrap();
        let mut worker = polling(journal(&event_loop), event_loop, poll_budget);
        drop(worker.set_memory(Arc::clone(memory)));
        worker.session_mut().accept_features(1 << 32);
        for index in [0, 1] {
            start_queue(&mut worker, index, USED);
        }
        let events = worker.events();
        (worker, events)
    }

    fn sent(worker: &mut Worker) -> u16 {
        worker.vrings[1].position()
    }

    /// Makes packets available without a kick, until their total number is `count`.
    fn offer(memory: &MappedMemory, count: u16) {
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
        // The device no longer polls: without an event it does not look at the queues.
        step(&mut worker, &mut events, Duration::from_millis(1));
        assert_eq!(sent(&mut worker), 2);
    }

    #[test]
    fn a_timer_that_is_not_due_does_not_check_the_queues() {
        let memory = memory();
        let (mut worker, mut events) = running(&memory);
        step(&mut worker, &mut events, Duration::ZERO);
        assert!(worker.is_active());
        offer(&memory, 1);
        assert_eq!(worker.lifecycle.device().deadline(), None, "nothing is due");

        let now = worker.event_loop.now();
        worker.event_loop.wake_by(now).unwrap();
        assert_eq!(step(&mut worker, &mut events, GENEROUS), 1);
        assert_eq!(sent(&mut worker), 0);

        worker.event_loop.wake();
        step(&mut worker, &mut events, Duration::ZERO);
        assert_eq!(sent(&mut worker), 1);
    }

    #[test]
    fn t131_the_timer_reports_lines_omitted_from_the_log() {
        let event_loop = MuxerDriver::new().unwrap();
        let mut journal = journal(&event_loop);
        logged();
        for _ in 0..100 {
            say!(journal, Warn, "a line");
        }
        // Until just before the report is due.
        let wait = journal.tell().unwrap();
        journal.advance(wait - Duration::from_millis(50));
        logged();
        let mut worker = worker(journal, event_loop);
        let mut events = worker.events();
        // The first event is the journal's wake-up, after which the worker sets the timer. The
        // second one is the timer. On a busy machine, there can be fewer or more.
        let watch = Stopwatch::start();
        let mut told = Vec::new();
        while told.is_empty() && watch.elapsed() < GENEROUS {
            step(&mut worker, &mut events, GENEROUS);
            told = logged();
        }
        assert!(watch.elapsed() < GENEROUS, "the timer was not set");
        assert_eq!(
            told,
            ["WARN guest 3: 90 lines like \"a line\" were left out"]
        );
    }

    #[test]
    fn t131_a_driver_that_sets_up_unusable_queues_does_not_fill_the_log() {
        let memory = memory();
        let (mut worker, mut events) = running(&memory);
        logged();
        for _ in 0..200 {
            drop(worker.stop_queue(QueueIndex::new(1).unwrap()));
            // The used ring extends beyond the end of memory.
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
