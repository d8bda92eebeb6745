// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The aims of our devices, as ratios to vhost-device-vsock.
//!
//! They apply to two cores that are otherwise idle. Another revision as the reference has no aims.

use crate::device::{LIBRARY, PROGRAM};
use crate::row::{End, Work};

/// What the median of a ratio should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Aim {
    AtLeast(f64),
    AtMost(f64),
}

use Aim::{AtLeast, AtMost};

impl Aim {
    pub(crate) fn is_reached(self, ratio: f64) -> bool {
        match self {
            AtLeast(least) => ratio >= least,
            AtMost(most) => ratio <= most,
        }
    }
}

/// Returns the aim of a device for one figure of some work, if there is one.
pub(crate) type AimOf = fn(Work, &str) -> Option<Aim>;

/// Takes the aim of the program or that of the library.
fn of_device(device: &str, program: f64, library: f64) -> Option<f64> {
    match device {
        PROGRAM => Some(program),
        LIBRARY => Some(library),
        _ => None,
    }
}

/// Bytes or operations per second.
pub(crate) fn rate(work: Work, device: &str) -> Option<Aim> {
    let (program, library) = match work {
        Work::Bulk {
            from: End::Host,
            piece: 512,
            ..
        } => (3.5, 3.5),
        Work::Turns { .. } => (1.5, 3.0),
        Work::Connects { .. } => (1.5, 2.5),
        Work::Bulk { .. } | Work::Requests { .. } => (1.0, 1.0),
        Work::Packets { .. } | Work::Idle { .. } => return None,
    };
    of_device(device, program, library).map(AtLeast)
}

/// CPU time of the device per byte or operation. Round trips are where polling costs most.
pub(crate) fn cpu(work: Work, device: &str) -> Option<Aim> {
    let (program, library) = match work {
        Work::Turns { .. } => (1.0, 1.0),
        Work::Idle { .. } => return None,
        _ => (0.5, 0.35),
    };
    of_device(device, program, library).map(AtMost)
}

/// The median latency of packets.
pub(crate) fn p50(work: Work, device: &str) -> Option<Aim> {
    latency(work, device, 1.0)
}

/// The latency that 99 of 100 packets do not exceed.
pub(crate) fn p99(work: Work, device: &str) -> Option<Aim> {
    latency(work, device, 1.1)
}

fn latency(work: Work, device: &str, most: f64) -> Option<Aim> {
    let most = of_device(device, most, most).map(AtMost);
    most.filter(|_| matches!(work, Work::Packets { .. }))
}

#[cfg(test)]
mod tests {
    use super::{Aim, cpu, p50, rate};
    use crate::device::{LIBRARY, PROGRAM, VHOST_DEVICE_VSOCK};
    use crate::row::{End, Work};

    #[test]
    fn only_our_devices_have_aims() {
        let turns = Work::Turns {
            from: End::Guest,
            count: 1,
        };
        assert_eq!(rate(turns, PROGRAM), Some(Aim::AtLeast(1.5)));
        assert_eq!(rate(turns, LIBRARY), Some(Aim::AtLeast(3.0)));
        assert_eq!(rate(turns, VHOST_DEVICE_VSOCK), None);
        assert_eq!(p50(turns, PROGRAM), None);
        let cpu = cpu(turns, LIBRARY).unwrap();
        assert!(cpu.is_reached(1.0) && !cpu.is_reached(1.01));
    }
}
