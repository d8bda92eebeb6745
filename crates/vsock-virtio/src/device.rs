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

/// The state of the device between two resets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Inactive,
    /// The device has been activated and has not looked at its queues yet. If another device used
    /// the queues before, that one may have left the driver without a notification. The indices do
    /// not show whether the queues are new, because they may have wrapped around to zero.
    Starting,
    Active,
    /// The driver is paused, and the device does not touch its queues.
    Paused,
    Broken(DeviceFault),
}

/// A virtio vsock device: a [`Muxer`] on virtqueues.
///
/// It owns no queues, memory or file descriptors, reads no clock and starts no thread. Its owner
/// passes events in and carries out the actions that it returns:
///
/// | event | call |
/// |---|---|
/// | the driver kicks any of the queues | [`process`](Self::process) |
/// | a descriptor that an [`Action`] named is ready | [`on_event`](Self::on_event), then [`process`](Self::process) |
/// | [`Outcome::next`] of the last call is not [`OnEvent`](crate::NextCall::OnEvent) | [`process`](Self::process), without sleeping first |
/// | the [`deadline`](Self::deadline) has passed | [`on_timeout`](Self::on_timeout), then [`process`](Self::process) |
/// | the driver has accepted features (`FEATURES_OK`) | [`ack_features`](Self::ack_features) |
/// | the driver is ready (`DRIVER_OK`) | [`activate`](Self::activate), then [`process`](Self::process) |
/// | the driver has reset the device | [`reset`](Self::reset) |
/// | the guest resumes without its connections | [`transport_reset`](Self::transport_reset), then [`process`](Self::process) |
/// | a snapshot is loaded | [`restore`](Self::restore), then [`process`](Self::process) |
/// | the guest is paused | [`pause`](Self::pause) |
/// | the paused guest resumes | [`resume`](Self::resume), then [`process`](Self::process) |
/// | the device stops and its guest continues to run | [`farewell`](Self::farewell), then [`process`](Self::process) while [`owes_farewells`](Self::owes_farewells) returns `true` |
/// | the device is about to be dropped | [`reset`](Self::reset) |
///
/// After each of these calls, call [`next_action`](Self::next_action) until it returns `None`, and
/// set the timer to [`deadline`](Self::deadline). The crate documentation has a complete example.
///
/// A panic of a stream, a backend or guest memory in one of these calls propagates to the caller
/// and breaks an active device, as a fault of its queues does: see
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
    /// Returns a builder of a device for this muxer's guest.
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

    /// Sets the features that the driver has accepted. Call this before
    /// [`activate`](Self::activate), which puts them in force.
    ///
    /// A driver may accept no features. It then has stream sockets, and notifications are
    /// suppressed with the queues' flags. Features that are set while the device is active appear
    /// in [`acked_features`](Self::acked_features) and [`state`](Self::state), but do not change
    /// how it works.
    ///
    /// # Errors
    ///
    /// `bits` contains features that the device does not offer. Nothing changes.
    pub fn ack_features(&mut self, bits: u64) -> Result<(), FeatureError> {
        self.features.ack(bits, &self.muxer)
    }

    /// Starts to serve the queues, because the driver is ready (`DRIVER_OK`).
    ///
    /// Sets in the queues whether `VIRTIO_F_EVENT_IDX` was negotiated. Call
    /// [`process`](Self::process) next, because the queues may contain chains already. That call
    /// notifies the guest of both packet queues, in case a device that served them before had a
    /// notification pending. Drivers have to accept spurious notifications.
    ///
    /// # Errors
    ///
    /// The device is in use and has not been reset, or a queue is unusable. The device is
    /// unchanged.
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
        // This can fail, or panic in guest memory, so nothing of the device changes before it.
        self.set_up_all(features, mem, queues)?;
        self.notifications.restart();
        self.phase = Phase::Starting;
        self.muxer.activate(now, features.socket_types());
        Ok(())
    }

    /// Resets the device, because the driver has reset it or is gone. Closes every connection
    /// without informing the guest. Backends stay. The caller resets the queues.
    ///
    /// The device forgets the accepted features. The driver negotiates again, so call
    /// [`ack_features`](Self::ack_features) before the next [`activate`](Self::activate). The
    /// [actions](Self::next_action) that this produces unregister all watched descriptors: before
    /// you drop a device, reset it and carry them out.
    pub fn reset(&mut self, now: Tick) {
        self.muxer.reset(now);
        self.features.reset();
        self.quiet();
        self.phase = Phase::Inactive;
    }

    /// Closes every connection of which the guest has a record, and sends the guest
    /// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`. Has no effect if there is no driver.
    ///
    /// [`process`](Self::process) publishes the event as soon as the guest provides a buffer for
    /// it. After that, the guest gets no packet until it acknowledges the event by making another
    /// buffer of the event queue available, but for at most half a second.
    ///
    /// The event also closes connections that the guest opens before it gets the event, and some
    /// front-ends start the event queue after the others. So both other queues wait for a buffer
    /// for the event, for at most 100 ms from the next [`process`](Self::process) on. A guest that
    /// has provided none by then is served, and gets the event later. A guest that is
    /// [paused](Self::pause) and resumed in the same process does not need this.
    pub fn transport_reset(&mut self, now: Tick) {
        if self.has_driver() {
            self.muxer.transport_reset(now);
            self.events.owe();
        }
    }

    /// Restores the [`state`](Self::state) of a device that was saved, usually in another process.
    /// Sets the accepted features, activates the device if it was active, and schedules a
    /// [`transport_reset`](Self::transport_reset) for the guest.
    ///
    /// `queues` are the queues of the snapshot. Call [`process`](Self::process) next. Do not call
    /// [`ack_features`](Self::ack_features) or [`activate`](Self::activate): this does both.
    ///
    /// # Errors
    ///
    /// This release does not support the version of the state, or
    /// [`ack_features`](Self::ack_features) or [`activate`](Self::activate) fails. The device is
    /// then unchanged. The state and the queues may contain any values: harmful ones are an error
    /// here or a fault of [`process`](Self::process).
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
        // Work on a copy: if the activation fails, the device must keep its features.
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

    /// Takes the guest's packets, fills its buffers and publishes events, as far as possible.
    ///
    /// Call this after a kick of any queue, and after each event that you passed to the device.
    /// One queue may depend on the other: a packet requires a reply, a buffer lets a reply leave,
    /// and the device takes further packets when replies have left. An unnecessary call costs a
    /// look at the queues. Does nothing unless the device is [active](Self::is_active).
    ///
    /// # Errors
    ///
    /// A queue violates the rules. The device has closed every connection, and each further call
    /// returns the same fault until the device is reset. A VMM sets `DEVICE_NEEDS_RESET`.
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

    /// Reports that a descriptor is ready, by the token of its [`Action::Watch`].
    pub fn on_event(&mut self, now: Tick, token: Token, ready: Readiness) {
        self.unwinding(now, |device| device.muxer.on_event(now, token, ready));
    }

    /// Carries out everything that is due by `now`.
    pub fn on_timeout(&mut self, now: Tick) {
        self.events.on_timeout(now);
        self.unwinding(now, |device| device.muxer.on_timeout(now));
    }

    /// Returns the next action for the event loop to carry out.
    pub fn next_action(&mut self) -> Option<Action> {
        self.muxer.next_action()
    }

    /// Returns the muxer, for example to add a backend or route a port.
    pub const fn muxer_mut(&mut self) -> &mut Muxer {
        &mut self.muxer
    }

    /// Returns the muxer.
    #[must_use]
    pub const fn muxer(&self) -> &Muxer {
        &self.muxer
    }

    /// Returns when to call [`on_timeout`](Self::on_timeout), and [`process`](Self::process) after
    /// it. A timer may be late by a millisecond.
    #[must_use]
    pub fn deadline(&self) -> Option<Tick> {
        let deadlines = [self.muxer.deadline(), self.events.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// Returns the features that the device offers. They include `VIRTIO_VSOCK_F_SEQPACKET` if a
    /// backend [has seqpacket streams](Muxer::has_seqpacket), so add all backends first.
    #[must_use]
    pub fn device_features(&self) -> u64 {
        self.features.offered(&self.muxer)
    }

    /// Returns the features that the driver has accepted.
    #[must_use]
    pub const fn acked_features(&self) -> u64 {
        self.features.acked()
    }

    /// Reads the configuration space at any offset (virtio 1.3, 5.10.4): the guest's CID, followed
    /// by zeros. It has no writable field, so a VMM ignores the driver's writes.
    pub fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = u64::from(self.muxer.guest_cid()).to_le_bytes();
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = config.into_iter().skip(skip).chain(iter::repeat(0));
        for (to, from) in data.iter_mut().zip(bytes) {
            *to = from;
        }
    }

    /// Returns whether the device serves its queues. A [paused](Self::pause) device does not.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Active)
    }

    /// Forgets pending notifications and events.
    fn quiet(&mut self) {
        self.notifications.restart();
        self.events = Events::Quiet;
    }

    /// Returns the state to save in a snapshot.
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
    /// Builds the device, which is not active yet.
    #[must_use]
    pub fn build(self) -> VsockDevice<M> {
        VsockDevice::new(self)
    }
}

/// Checks a queue and sets how its notifications are suppressed.
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
