// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

mod farewell;
mod inspect;
mod pause;
mod tap;
mod unwind;
mod work;

use std::{fmt, iter};

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemory;
use vsock_muxer::{Action, Driven, Muxer, Readiness, Token};
use vsock_proto::Tick;

use crate::direct::DirectTypes;
use crate::event::Events;
use crate::features::Features;
use crate::fields::Fields;
use crate::notification::Notifications;
use crate::rx::Reserved;
use crate::stream_io::Scratch;
use crate::tap::TapSlot;
use crate::{
    ActivateError, DeviceCounters, DeviceFault, DeviceState, FeatureError, Outcome, QueueName,
    Queues, RestoreError, VsockDeviceBuilder,
};

/// Where the device stands between two resets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Inactive,
    /// It was activated, and has not looked at its queues yet. In queues that were used before, the
    /// driver may have been left without a notification. Whether they were cannot be told: their
    /// indices may have come round to zero.
    Starting,
    Active,
    /// The driver is paused, and its queues are left alone.
    Paused,
    Broken(DeviceFault),
}

/// A virtio vsock device: a [`Muxer`] on virtqueues.
///
/// It owns neither queues nor memory, and no descriptor; it reads no clock and starts no thread.
/// Its owner passes events in and carries out what comes back:
///
/// | what happens | what to call |
/// |---|---|
/// | the driver kicks a queue, whichever | [`process`](Self::process) |
/// | a descriptor that an [`Action`] named is ready | [`on_event`](Self::on_event), then [`process`](Self::process) |
/// | [`Outcome::next`] of the last call is not [`OnEvent`](crate::NextCall::OnEvent) | [`process`](Self::process), without sleeping before |
/// | the [`deadline`](Self::deadline) has come | [`on_timeout`](Self::on_timeout), then [`process`](Self::process) |
/// | the driver has accepted features (`FEATURES_OK`) | [`ack_features`](Self::ack_features) |
/// | the driver is ready (`DRIVER_OK`) | [`activate`](Self::activate), then [`process`](Self::process) |
/// | the driver has reset the device | [`reset`](Self::reset) |
/// | the guest goes on without its connections | [`transport_reset`](Self::transport_reset), then [`process`](Self::process) |
/// | a snapshot is loaded | [`restore`](Self::restore), then [`process`](Self::process) |
/// | the guest is paused; it goes on | [`pause`](Self::pause); [`resume`](Self::resume), then [`process`](Self::process) |
/// | the device stops and its guest goes on | [`farewell`](Self::farewell), then [`process`](Self::process) until it no longer [owes any](Self::owes_farewells) |
/// | the device is about to be dropped | [`reset`](Self::reset) |
///
/// and after each of them [`next_action`](Self::next_action) until there is none, and
/// [`deadline`](Self::deadline) for the timer. The crate's documentation has a complete example.
///
/// A panic of a stream, of a backend or of guest memory in one of these calls passes through, and
/// breaks an active device as a fault of its queues does: see
/// [`FaultCause::Panic`](crate::FaultCause::Panic).
pub struct VsockDevice<M: GuestMemory> {
    muxer: Muxer,
    features: Features,
    budget: usize,
    phase: Phase,
    events: Events,
    notifications: Notifications,
    direct: DirectTypes<M>,
    scratch: Scratch,
    reserved: Vec<Reserved>,
    tap: TapSlot,
    counters: DeviceCounters,
}

impl<M: GuestMemory> VsockDevice<M> {
    /// Begins to make a device for the guest of this muxer.
    #[must_use]
    pub const fn builder(muxer: Muxer) -> VsockDeviceBuilder<M> {
        VsockDeviceBuilder::new(muxer)
    }

    fn new(builder: VsockDeviceBuilder<M>) -> Self {
        Self {
            muxer: builder.muxer,
            features: Features::new(builder.transport_features),
            budget: builder.budget,
            phase: Phase::Inactive,
            events: Events::default(),
            notifications: Notifications::new(builder.poll_budget),
            direct: builder.direct,
            scratch: Scratch::default(),
            reserved: Vec::new(),
            tap: TapSlot::default(),
            counters: DeviceCounters::default(),
        }
    }

    /// Takes the features that the driver has accepted: before [`activate`](Self::activate), which
    /// puts them in force. Without this the driver has accepted none, which is no error: it has
    /// stream sockets, and is notified by the queues' flags.
    ///
    /// What is accepted while the device is active shows in
    /// [`acked_features`](Self::acked_features) and [`state`](Self::state), and changes nothing of
    /// how it works.
    ///
    /// # Errors
    ///
    /// Bits that were not offered; nothing has changed then.
    pub fn ack_features(&mut self, bits: u64) -> Result<(), FeatureError> {
        self.features.ack(bits, &self.muxer)
    }

    /// The driver is ready (`DRIVER_OK`): the device begins to serve its queues.
    ///
    /// Sets in the queues whether `VIRTIO_F_EVENT_IDX` was negotiated. Call
    /// [`process`](Self::process) next: the queues may be full already. It notifies the guest of
    /// both, in case the device that served them before owed it that; a driver must bear one for
    /// nothing.
    ///
    /// # Errors
    ///
    /// The device is active or broken, and was not reset; or a queue is unusable. It is then as
    /// it was.
    pub fn activate(
        &mut self,
        now: Tick,
        mem: &M,
        queues: &mut Queues<'_>,
    ) -> Result<(), ActivateError> {
        self.activate_with(self.features, now, mem, queues)
    }

    fn activate_with(
        &mut self,
        features: Features,
        now: Tick,
        mem: &M,
        queues: &mut Queues<'_>,
    ) -> Result<(), ActivateError> {
        if self.phase != Phase::Inactive {
            return Err(ActivateError::InUse);
        }
        self.set_up_all(features, mem, queues)?;
        self.notifications.restart();
        self.phase = Phase::Starting;
        self.muxer.activate(now, features.socket_types());
        Ok(())
    }

    /// The driver has reset the device, or is gone: every connection is closed, and the guest is
    /// told nothing. Backends stay. The queues are the caller's to reset.
    ///
    /// The accepted features are forgotten: the driver negotiates anew, and
    /// [`ack_features`](Self::ack_features) comes before the next [`activate`](Self::activate). The
    /// [actions](Self::next_action) that this yields unregister what was watched: before a device
    /// is dropped, it is reset and they are carried out.
    pub fn reset(&mut self, now: Tick) {
        self.muxer.reset(now);
        self.features.reset();
        self.quiet();
        self.phase = Phase::Inactive;
    }

    /// Every connection that the guest knows of is closed, and the guest is told that they are gone
    /// (`VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`): immediately if it has provided a buffer, else as
    /// soon as it does. From then until it has taken notice, which it does by making another buffer
    /// of the event queue available, it gets no packet: for half a second at most.
    ///
    /// Some front-ends start the event queue after the others, and what the guest opens before it
    /// gets the event ends by it. So both other queues wait for a buffer for the event, for 100 ms
    /// at most from the next [`process`](Self::process) on. A guest that has none by then is
    /// served, and gets the event later.
    ///
    /// [`process`](Self::process) publishes the event. A VMM that [pauses](Self::pause) a guest and
    /// resumes it in the same process does not need this: the connections are still there.
    pub fn transport_reset(&mut self, now: Tick) {
        if self.has_driver() {
            self.muxer.transport_reset(now);
            self.events.owe();
        }
    }

    /// Goes on in a new process where a device stopped whose [`state`](Self::state) was saved:
    /// accepts its features, activates itself if it was active, and owes the guest a
    /// [`transport_reset`](Self::transport_reset).
    ///
    /// The queues are those of the snapshot. Call [`process`](Self::process) next, and neither
    /// [`ack_features`](Self::ack_features) nor [`activate`](Self::activate): this has done both.
    ///
    /// # Errors
    ///
    /// The state has a version that this release does not know, or the error is one of
    /// [`ack_features`](Self::ack_features) or [`activate`](Self::activate). The device is then
    /// unchanged. The state and the queues may have any numbers: harmful ones are refused here, or
    /// are a fault of [`process`](Self::process).
    pub fn restore(
        &mut self,
        now: Tick,
        mem: &M,
        queues: &mut Queues<'_>,
        state: &DeviceState,
    ) -> Result<(), RestoreError> {
        state.check_version()?;
        if self.phase != Phase::Inactive {
            return Err(ActivateError::InUse.into());
        }
        let mut features = self.features;
        features.ack(state.acked_features, &self.muxer)?;
        if state.active {
            self.activate_with(features, now, mem, queues)?;
            self.events.owe();
        }
        self.features = features;
        self.muxer.restore(now, &state.muxer)?;
        Ok(())
    }

    /// Moves what can be moved: takes the guest's packets, fills its buffers, publishes events.
    ///
    /// To be called after a kick of any queue and after whatever was reported to the device,
    /// because each may set the others going: a packet asks for a reply, a buffer lets a reply go,
    /// and a reply that is gone lets the next packet in. A call for nothing costs a look at the
    /// queues. Before the device is active it does nothing.
    ///
    /// # Errors
    ///
    /// A queue breaks the rules. Every connection is closed then, and this is reported again and
    /// again until the device is reset; a VMM sets `DEVICE_NEEDS_RESET`.
    pub fn process(
        &mut self,
        now: Tick,
        mem: &M,
        queues: &mut Queues<'_>,
    ) -> Result<Outcome, DeviceFault> {
        match self.phase {
            Phase::Inactive | Phase::Paused => return Ok(Outcome::default()),
            Phase::Broken(fault) => return Err(fault),
            Phase::Starting | Phase::Active => {}
        }
        let mut result = self.unwinding(now, |device| device.work(now, mem, queues));
        match &mut result {
            Ok(outcome) => {
                if self.phase == Phase::Starting {
                    self.counters.rx.decided(0, !outcome.notify_rx);
                    self.counters.tx.decided(0, !outcome.notify_tx);
                    outcome.notify_rx = true;
                    outcome.notify_tx = true;
                }
                self.phase = Phase::Active;
            }
            Err(fault) => self.break_down(now, *fault),
        }
        result
    }

    /// An event loop reports that a descriptor is ready, by the token of its [`Action::Watch`].
    pub fn on_event(&mut self, now: Tick, token: Token, ready: Readiness) {
        self.unwinding(now, |device| device.muxer.on_event(now, token, ready));
    }

    /// Does what is due by now.
    pub fn on_timeout(&mut self, now: Tick) {
        self.events.on_timeout(now);
        self.unwinding(now, |device| device.muxer.on_timeout(now));
    }

    /// The next thing to do on the event loop.
    pub fn next_action(&mut self) -> Option<Action> {
        self.muxer.next_action()
    }

    /// The muxer, to add a backend or to route a port.
    pub const fn muxer_mut(&mut self) -> &mut Muxer {
        &mut self.muxer
    }

    /// The muxer.
    #[must_use]
    pub const fn muxer(&self) -> &Muxer {
        &self.muxer
    }

    /// When [`on_timeout`](Self::on_timeout) is to be called, and [`process`](Self::process) after
    /// it. A timer that is late by a millisecond does no harm.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        let deadlines = [self.muxer.deadline(), self.events.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// The features that the device offers. `VIRTIO_VSOCK_F_SEQPACKET` is one of them if a backend
    /// [has streams for it](Muxer::has_seqpacket), so backends are added before the driver asks.
    #[must_use]
    pub fn device_features(&self) -> u64 {
        self.features.offered(&self.muxer)
    }

    /// The features that the driver has accepted.
    #[must_use]
    pub const fn acked_features(&self) -> u64 {
        self.features.acked()
    }

    /// Reads the configuration space at any offset (virtio 1.3, 5.10.4): the guest's CID, and zeros
    /// after it. The driver can write nothing in it; a VMM ignores that it tries.
    pub fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = u64::from(self.muxer.guest_cid()).to_le_bytes();
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = config.into_iter().skip(skip).chain(iter::repeat(0));
        for (to, from) in data.iter_mut().zip(bytes) {
            *to = from;
        }
    }

    /// Whether the device serves its queues. One that is [paused](Self::pause) does not.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Active)
    }

    /// Nothing is owed to the guest any more, and nothing expected of it.
    fn quiet(&mut self) {
        self.notifications.restart();
        self.events = Events::Quiet;
    }

    /// What is to be saved in a snapshot.
    #[must_use]
    pub fn state(&self) -> DeviceState {
        DeviceState {
            version: DeviceState::VERSION,
            acked_features: self.features.acked(),
            active: self.has_driver(),
            muxer: self.muxer.save(),
        }
    }
}

impl<M: GuestMemory> Driven for VsockDevice<M> {
    fn on_event(&mut self, now: Tick, token: Token, ready: Readiness) {
        self.on_event(now, token, ready);
    }

    fn on_timeout(&mut self, now: Tick) {
        self.on_timeout(now);
    }

    fn next_action(&mut self) -> Option<Action> {
        self.next_action()
    }

    fn deadline(&self) -> Option<Tick> {
        self.deadline()
    }
}

impl<M: GuestMemory> fmt::Debug for VsockDevice<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VsockDevice")
            .field("features", &self.features)
            .field("phase", &self.phase)
            .field("events", &self.events)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl<M: GuestMemory> VsockDeviceBuilder<M> {
    /// The device, not yet active.
    #[must_use]
    pub fn build(self) -> VsockDevice<M> {
        VsockDevice::new(self)
    }
}

/// Checks a queue and tells it how notifications are suppressed.
fn set_up<M: GuestMemory>(
    mem: &M,
    queue: &mut Queue,
    name: QueueName,
    event_idx: bool,
) -> Result<(), ActivateError> {
    if !(queue.ready() && Fields::are_in_memory(mem, queue)) {
        return Err(ActivateError::InvalidQueue(name));
    }
    queue.set_event_idx(event_idx);
    Ok(())
}
