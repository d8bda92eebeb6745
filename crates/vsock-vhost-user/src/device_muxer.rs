// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The muxer of a device.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use vsock_muxer::{Muxer, MuxerState};
use vsock_proto::{Config, GuestCid, Tick};

use crate::error::VhostUserError;
use crate::served::{Served, Serves};

/// Creates a muxer that owns the backends.
pub(crate) fn muxer(
    cid: GuestCid,
    config: Config,
    backends: Vec<Served>,
) -> Result<Muxer, VhostUserError> {
    let ports = config.host_ports();
    let mut muxer = Muxer::new(cid, config);
    let mut state = MuxerState::default();
    state.next_host_port = first_port(&ports);
    let _known = muxer.restore(Tick::ZERO, &state);
    for Served { backend, serves } in backends {
        match serves {
            Serves::Rest => muxer.add_backend(backend)?,
            Serves::Ports(ports) => muxer.add_backend_for(backend, &ports)?,
            Serves::Siblings => muxer.add_sibling_backend(backend)?,
        };
    }
    Ok(muxer)
}

/// Returns a random port of this range for the first connection of the host. A killed device may
/// have left its guest with connections from its ports, and a guest silently drops a REQUEST from
/// one of them.
fn first_port(ports: &Range<u32>) -> u32 {
    let count = u64::from(ports.end.saturating_sub(ports.start)).max(1);
    let offset = RandomState::new().hash_one(()) % count;
    ports
        .start
        .saturating_add(u32::try_from(offset).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t98_a_restarted_device_begins_with_other_ports_than_its_predecessor() {
        let cid = GuestCid::try_from(3).unwrap();
        let first = || {
            let muxer = muxer(cid, Config::default(), Vec::new()).unwrap();
            muxer.save().next_host_port
        };
        // The probability that all three are equal by chance is about 1 in 10^18.
        let ports = [first(), first(), first()];
        assert!(ports.iter().any(|port| *port != ports[0]), "{ports:?}");
        let range = Config::default().host_ports();
        assert!(ports.iter().all(|port| range.contains(port)), "{ports:?}");
        assert_eq!(first_port(&(7..8)), 7);
    }
}
