// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use vsock_proto::Tick;

use crate::{Action, Muxer, Readiness, Token};

/// What an event loop drives: a [`Muxer`], or a device around one.
///
/// A loop that is written for this drives both; `MuxerDriver` of the crate `vsock-epoll` is one. It
/// tells of readiness and of time, and carries out what comes back, in this order, before it waits
/// again:
///
/// ```
/// use vsock_muxer::{Config, Driven, GuestCid, Muxer, Tick};
///
/// /// Returns how long the loop may sleep.
/// fn turn(device: &mut impl Driven, now: Tick) -> Option<std::time::Duration> {
///     device.on_timeout(now); // called before it is due, it does nothing
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
    /// Tells that a descriptor is ready, by the token of its [`Action::Watch`]. An event of a
    /// stream that is gone does nothing.
    fn on_event(&mut self, now: Tick, token: Token, ready: Readiness);

    /// Does what is due by now.
    fn on_timeout(&mut self, now: Tick);

    /// The next thing to do on the event loop. Called until there is none.
    fn next_action(&mut self) -> Option<Action>;

    /// When [`on_timeout`](Self::on_timeout) is to be called.
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
/// `MuxerDriver` of the crate `vsock-epoll` takes this value and acts on it. For your own loop:
///
/// ```
/// use std::time::Duration;
/// use vsock_muxer::NextCall;
///
/// /// How long the loop may wait for its descriptors, with this much time left until the deadline.
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
    /// After a notification from the guest, a ready descriptor or the [deadline](Driven::deadline).
    /// Until then the loop may sleep.
    #[default]
    OnEvent,
    /// Soon: the device polls, and has asked the guest for no notifications. The loop must not
    /// sleep. It checks ready descriptors and the deadline without waiting, reports what it finds,
    /// and calls again, until the device returns something else.
    Poll {
        /// Until when the device expects something. The time starts with the first call that finds
        /// nothing; work extends it.
        until: Tick,
    },
    /// After the guest is notified, and after everything else that waits for this thread: the device
    /// has used its budget, or has let a packet for the guest go first. No notification will come
    /// for the rest. The loop must not sleep.
    Immediately,
}
