// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The limit on open descriptors (`RLIMIT_NOFILE`).
//!
//! A program usually starts with a soft limit of 1,024, which protects programs that use `select`.
//! This program does not use it, so it raises the soft limit to the hard limit.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vsock_vhost_user::{Config, PassFdConfig, VsockInnerConfig};

/// The descriptors of a device without connections: 13 before a VMM connects, about 20 with a VMM
/// whose memory is one region, and one for each further region, up to 508.
const DEVICE: u64 = 64 + 508;

/// The descriptors of the program without devices: the standard streams, signals, and a few that
/// are open only for a moment.
const PROGRAM: u64 = 32;

/// The descriptors of a passed stream, in addition to its connection's: the other end of the socket
/// pair, the passed descriptor, and the other end of a pipe that is kept open.
const PASSED: usize = 3;

/// The destinations that a guest can connect to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reach {
    /// Only the host. A connection is one socket, so one descriptor.
    Host,
    /// The host and other guests. A connection to another guest has two descriptors at each end,
    /// one of them to wait for space. A connection that waits to be accepted has one, even after
    /// its guest has given up.
    HostAndGuests,
}

/// Raises the soft limit to the hard limit, and logs a warning if that is too low for these
/// devices. Descriptors can be passed to `passing` of them.
pub(crate) fn raise<'a>(devices: impl Iterator<Item = (&'a Config, Reach)>, passing: usize) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        log::warn!("cannot raise the soft limit on open descriptors (RLIMIT_NOFILE): {error}");
    }
    let needed = needed(devices).saturating_add(passed(passing));
    // `None` means unlimited.
    if let Some(limit) = getrlimit(Resource::Nofile)
        .current
        .filter(|limit| *limit < needed)
    {
        log::warn!(
            "the limit on open descriptors is {limit} and up to {needed} may be needed: when they \
             run out, connections are refused. Raise the hard limit (ulimit -Hn, or LimitNOFILE= \
             in systemd) or lower --max-connections"
        );
    }
}

/// Returns the descriptors that these devices may need at one time, for connections and for clients
/// that have not sent their command.
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

/// Returns the descriptors that this many devices may need for passed streams, and for clients that
/// have not passed a descriptor yet.
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
    fn t130_the_descriptors_of_all_devices_are_added_up() {
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
