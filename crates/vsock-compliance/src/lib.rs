// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests a stream or a backend against every promise that the traits of `vsock-backend-api` make.
//!
//! A [`Rule`] consists of a promise, a name and a check. Add this crate to your `dev-dependencies`,
//! and write one test for each type that you implement:
//!
//! | To test | Implement | Call |
//! |---|---|---|
//! | a stream | [`PairSource`] | [`judge_streams`] |
//! | a stream with message boundaries | [`PairSource`] | [`judge_messages`] |
//! | a backend | [`BackendSource`] | [`judge_backends`] |
//!
//! # A complete test
//!
//! Define how to create a connected pair, and run all checks, which takes seconds. This example
//! tests a pair of Unix sockets. They break a number of rules, one of which the example shows:
//!
//! ```
//! use std::io;
//! use std::os::unix::net::UnixStream;
//! use vsock_compliance::{BoxedStream, ConnectionEnd, PairSource, judge_streams};
//!
//! struct Sockets;
//!
//! impl PairSource for Sockets {
//!     fn pair(&self) -> io::Result<(BoxedStream, BoxedStream)> {
//!         let (application, device) = UnixStream::pair()?;
//!         Ok((Box::new(application), Box::new(device)))
//!     }
//! }
//!
//! let report = judge_streams(&Sockets, &[]);
//! assert!(report.held().contains(&"a_drop_is_a_close"), "{report}");
//!
//! let mut failures = report.failures().iter();
//! let failure = failures.find(|failure| failure.name() == "hup_is_never_reported");
//! let text = failure.expect("a socket reports EPOLLHUP").to_string();
//! assert!(text.contains("HUP is never reported."), "{text}");
//! ```
//!
//! If a transport deviates from a rule on purpose, list the rule as an exception, by the name that
//! the report prints and with a reason. The test can then assert that nothing else fails. It also
//! fails if a listed rule holds, so the list cannot become outdated:
//!
//! ```no_run
//! # use vsock_compliance::{Exception, PairSource, judge_streams};
//! # fn test(my_transport: &dyn PairSource) {
//! let hup = Exception { name: "hup_is_never_reported", reason: "a socket reports EPOLLHUP" };
//! let report = judge_streams(my_transport, &[hup]);
//! assert!(report.is_good(), "{report}");
//! # }
//! ```
//!
//! # Tools for tests of a transport
//!
//! - [`poll`]: readiness of real descriptors, and waits with a deadline.
//! - [`call`]: calls that may block, on a separate thread.
//! - [`fd`]: information about descriptors from `/proc`.
//! - [`pattern`]: data in which each byte shows its position in the stream; [`transfer`]: sends
//!   much of it through a connection, with a way of waiting for each side.
//!
//! # Invariants
//!
//! - No rule sleeps to make something happen: it waits for the event itself, with a deadline.
//! - This crate depends on the traits of `vsock-backend-api`, and on no transport.
//! - The rules about interrupted calls install a handler for `SIGRTMIN` that does nothing.

#![forbid(unsafe_code)]

mod breach;
pub mod call;
pub mod fd;
mod messages;
pub mod pattern;
mod play;
pub mod poll;
mod report;
mod rule;
mod rules;
mod scene;
mod source;
mod step;
pub mod transfer;

use std::time::Duration;

pub use self::breach::{RuleBreach, Verdict};
pub use self::report::{ComplianceReport, Exception, RuleFailure};
pub use self::rule::{BackendRule, Rule, StreamRule};
pub use self::rules::{backend_rules, message_rules, stream_rules};
use self::scene::TIMEOUT;
pub use self::scene::{Pair, Scene};
pub use self::source::{
    BackendSource, BoxedStream, CapacityPromise, ConnectionEnd, Ends, Mode, PairSource,
    QueuedBytes, ServedBackend, WokenTasks, refusal_threshold,
};

// The types in the signatures of this crate.
pub use vsock_backend_api;

/// How long a rule waits if it is expected to fail.
const EXCEPTED_TIMEOUT: Duration = Duration::from_millis(300);

/// Checks every rule of [`stream_rules`] from both ends.
///
/// The [`ComplianceReport`] is good if every rule holds or is inapplicable, except for those in
/// `exceptions`, each of which must fail from at least one end.
#[must_use]
pub fn judge_streams(source: &dyn PairSource, exceptions: &[Exception]) -> ComplianceReport {
    judge_pairs(&stream_rules(), source, exceptions)
}

/// Checks every rule of [`message_rules`] from both ends, like [`judge_streams`].
#[must_use]
pub fn judge_messages(source: &dyn PairSource, exceptions: &[Exception]) -> ComplianceReport {
    judge_pairs(&message_rules(), source, exceptions)
}

fn judge_pairs(
    rules: &[StreamRule],
    source: &dyn PairSource,
    exceptions: &[Exception],
) -> ComplianceReport {
    ComplianceReport::of(rules, exceptions, |rule, exception| {
        let timeout = exception.map_or(TIMEOUT, |_| EXCEPTED_TIMEOUT);
        ConnectionEnd::BOTH
            .map(|near| (Some(near), rule.check(&Scene::new(source, near, timeout))))
            .into()
    })
}

/// Checks every rule of [`backend_rules`].
#[must_use]
pub fn judge_backends(source: &dyn BackendSource, exceptions: &[Exception]) -> ComplianceReport {
    ComplianceReport::of(&backend_rules(), exceptions, |rule, _| {
        vec![(None, rule.check(source))]
    })
}
