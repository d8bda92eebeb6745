// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Judges a stream or a backend by each sentence that the traits of `vsock-backend-api` promise.
//!
//! A [`Rule`] is a sentence, a name and a check. Add this crate to your `dev-dependencies`, and
//! write a test for each kind of thing that you have:
//!
//! | what you have | what you implement | what you call |
//! |---|---|---|
//! | a stream | [`PairSource`] | [`judge_streams`] |
//! | a stream that keeps messages apart | [`PairSource`] | [`judge_messages`] |
//! | a backend | [`BackendSource`] | [`judge_backends`] |
//!
//! # Ten lines
//!
//! Say how to get a connected pair, and have it judged; a run takes seconds. Here it is a pair of
//! Unix sockets. They differ from the contract in a number of sentences, and this test names one of
//! them:
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
//! let failure = report.failures().iter().find(|failure| failure.name() == "hup_is_never_reported");
//! let text = failure.expect("a socket reports EPOLLHUP").to_string();
//! assert!(text.contains("HUP is never reported."), "{text}");
//! ```
//!
//! A transport that differs on purpose lists the rules that it breaks, by the names that the report
//! prints, each with a reason. Then its test asserts that nothing else fails. It fails, too, if a
//! listed rule holds after all, so the list cannot go stale:
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
//! # What tests of a transport are made of
//!
//! - [`poll`]: readiness of real descriptors, and waits with a deadline.
//! - [`call`]: a call that may block, on a thread of its own.
//! - [`fd`]: what `/proc` tells about descriptors.
//! - [`pattern`]: bytes that tell where in a stream they belong; [`transfer`]: many of them through
//!   a connection, each side waiting in its own way.
//!
//! # Invariants
//!
//! - No rule sleeps to make something happen: it waits for the thing itself, with a deadline.
//! - This crate knows the traits of `vsock-backend-api`, and no transport.
//! - The rules about interrupted calls install a handler for `SIGRTMIN`, which does nothing.

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

// What the signatures of this crate name.
pub use vsock_backend_api;

/// How long a rule waits that is expected not to hold.
const EXCEPTED_TIMEOUT: Duration = Duration::from_millis(300);

/// Checks every rule of [`stream_rules`] from both ends.
///
/// The [`ComplianceReport`] is good if every rule holds or is inapplicable, but for those in
/// `exceptions`, none of which may hold from both ends.
#[must_use]
pub fn judge_streams(source: &dyn PairSource, exceptions: &[Exception]) -> ComplianceReport {
    judge_pairs(&stream_rules(), source, exceptions)
}

/// Checks every rule of [`message_rules`] from both ends, as [`judge_streams`] does those of
/// streams.
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
