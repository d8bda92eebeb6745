// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The limit of descriptors (`RLIMIT_NOFILE`).
//!
//! The soft limit that a program starts with, often 1,024, is for programs that use `select`; this
//! one may have as many descriptors as the hard one allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vsock_vhost_user::{Config, PassFdConfig, VsockInnerConfig};

/// Descriptors of a device without connections: 13 before a VMM comes, some 20 with one whose
/// memory is in one piece, and one for each further piece, of which there may be 508.
const DEVICE: u64 = 64 + 508;

/// Descriptors of the program without devices: standard streams, signals, and some for a moment.
const PROGRAM: u64 = 32;

/// Descriptors of a stream that was passed, without the one of its connection: the other end of the
/// socket pair, what was passed, and the other end of a pipe that is kept.
const PASSED: usize = 3;

/// Whom a guest may be connected to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reach {
    /// A connection is a socket: one descriptor.
    Host,
    /// A connection to another guest has two descriptors at each end, one of them to wait for
    /// space; and one that waits to be taken has one, also after its guest has given it up.
    HostAndGuests,
}

/// Raises the soft limit to the hard one, and warns if that is too low for what is configured:
/// these devices, to `passing` of which descriptors are passed.
pub(crate) fn raise<'a>(devices: impl Iterator<Item = (&'a Config, Reach)>, passing: usize) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        log::warn!(
            "cannot raise the limit of descriptors (RLIMIT_NOFILE) to the hard one: {error}"
        );
    }
    let needed = needed(devices).saturating_add(passed(passing));
    // No limit is enough.
    if let Some(limit) = getrlimit(Resource::Nofile)
        .current
        .filter(|limit| *limit < needed)
    {
        log::warn!(
            "the limit of descriptors is {limit}, and may be {needed} for what is configured: then \
             connections are refused. Raise the hard limit (ulimit -Hn, LimitNOFILE= of systemd), or \
             lower --max-connections"
        );
    }
}

/// What these devices may have at a time: connections, and clients that have not sent their
/// command.
fn needed<'a>(devices: impl Iterator<Item = (&'a Config, Reach)>) -> u64 {
    devices.fold(PROGRAM, |sum, (device, reach)| {
        let (each, pending) = match reach {
            Reach::Host => (1, 0),
            Reach::HostAndGuests => (2, VsockInnerConfig::default().pending),
        };
        let connections = device.max_connections().saturating_mul(each);
        let streams = [connections, device.max_handshakes(), pending];
        let streams = streams.map(|count| u64::try_from(count).unwrap_or(u64::MAX));
        let all = streams.into_iter().fold(DEVICE, u64::saturating_add);
        sum.saturating_add(all)
    })
}

/// The descriptors that devices may need for passed streams, and for clients that have yet to pass
/// one.
fn passed(devices: usize) -> u64 {
    let config = PassFdConfig::default();
    let each = config.max_streams.saturating_mul(PASSED);
    let each = each.saturating_add(config.max_waiting);
    u64::try_from(each.saturating_mul(devices)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t130_what_is_needed_is_the_sum_over_all_devices() {
        assert_eq!(needed([].into_iter()), PROGRAM);
        let config = |connections, handshakes| {
            let config = Config::builder().max_connections(connections);
            config.max_handshakes(handshakes).build().unwrap()
        };
        let sum = PROGRAM + 2 * DEVICE + 1000 + 200 + 2 * 30 + 4 + 1024;
        let (one, other) = (config(1000, 200), config(30, 4));
        let devices = [(&one, Reach::Host), (&other, Reach::HostAndGuests)];
        assert_eq!(needed(devices.into_iter()), sum);
        assert_eq!(passed(2), 2 * (3 * 1024 + 1024));
    }
}
