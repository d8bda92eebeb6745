// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use vsock_proto::Tick;

use crate::{Action, Muxer, Readiness, Token};

/// A component that an event loop drives: a [`Muxer`], or a device around one.
///
/// A loop written for this trait can drive either; `MuxerDriver` of the crate `vsock-epoll` is one.
/// The loop reports readiness and the time, and executes the returned actions in this order before
/// it waits again:
///
/// ```
/// use vsock_muxer::{Config, Driven, GuestCid, Muxer, Tick};
///
/// /// Returns how long the loop may sleep.
/// fn turn(device: &mut impl Driven, now: Tick) -> Option<std::time::Duration> {
///     device.on_timeout(now); // has no effect if nothing is due
///     while let Some(action) = device.next_action() {
///         println!("for the event loop: {action:?}");
///     }
///     device.deadline().map(|at| at.since(now))
/// }
///
/// let mut muxer = Muxer::new(GuestCid::try_from(3)?, Config::default());
/// assert_eq!(turn(&mut muxer, Tick::ZERO), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Driven {
    /// Reports that a descriptor is ready, by the token of its [`Action::Watch`]. An event of a
    /// closed stream has no effect.
    fn on_event(&mut self, now: Tick, token: Token, ready: Readiness);

    /// Does the work that is due by now.
    fn on_timeout(&mut self, now: Tick);

    /// Returns the next action for the event loop. Must be called until it returns `None`.
    fn next_action(&mut self) -> Option<Action>;

    /// Returns when [`on_timeout`](Self::on_timeout) must be called.
    fn deadline(&self) -> Option<Tick>;
}

impl Driven for Muxer {
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

/// When to call a device that moves packets again.
///
/// `MuxerDriver` of the crate `vsock-epoll` acts on this value. In your own loop, use it as
/// follows:
///
/// ```
/// use std::time::Duration;
/// use vsock_muxer::NextCall;
///
/// /// Returns how long the loop may wait for its descriptors if `left` remains until the deadline.
/// fn timeout(next: NextCall, left: Option<Duration>) -> Option<Duration> {
///     match next {
///         NextCall::OnEvent => left,
///         NextCall::Poll { .. } | NextCall::Immediately => Some(Duration::ZERO),
///     }
/// }
/// # assert_eq!(timeout(NextCall::OnEvent, None), None);
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum NextCall {
    /// After a notification from the guest, a descriptor event or the [deadline](Driven::deadline).
    /// The loop may sleep until then.
    #[default]
    OnEvent,
    /// Soon: the device is polling and has suppressed the guest's notifications. The loop must not
    /// sleep. It checks descriptors and the deadline without waiting, reports what it finds, and
    /// calls again, until the device returns another value.
    Poll {
        /// How long the device expects to poll. The time starts with the first call that finds
        /// nothing; work extends it.
        until: Tick,
    },
    /// After the guest is notified, and after all other work of this thread: the device has used up
    /// its budget, or has let a packet for the guest go first. No notification will follow for the
    /// rest. The loop must not sleep.
    Immediately,
}
