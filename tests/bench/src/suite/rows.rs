// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::time::Duration;

use vsock_inner::{Capacity, VsockInnerConfig};

use crate::suite::{Group, Job, Workload, loops};
use crate::transport::{
    BareRing, Channel, ChannelDoor, Duplex, Guest, Inner, InnerDoor, Pipe, Pollable, Transport,
    UnixDoor, UnixPair,
};
use crate::workload::{connect, copies, duplex, ping_pong, stream};
use vsock_report::Place;

pub(crate) const UNIX: &str = "unix pair";
pub(crate) const INNER_256K: &str = "vsock-inner 256 KiB";
pub(crate) const INNER_1M: &str = "vsock-inner 1 MiB";
pub(crate) const INNER_NO_SPIN: &str = "vsock-inner, no spin";
pub(crate) const RING_256K: &str = "bare ring 256 KiB";
pub(crate) const RING_1M: &str = "bare ring 1 MiB";
pub(crate) const INNER: &str = "vsock-inner";
const GUEST: &str = "vsock-inner, guest memory";
const BOUNCED: &str = "vsock-inner, bounced";
const PIPE: &str = "pipe";
const CHANNEL: &str = "channel of vectors";
const DUPLEX: &str = "tokio duplex";
const UNIX_LISTENER: &str = UNIX; // the reference of its table, too
const COPIES_256K: &str = "two copies 256 KiB";
const COPIES_1M: &str = "two copies 1 MiB";

const KIB_256: usize = 256 << 10;
const MIB: usize = 1 << 20;

/// The sizes of a write, with the names of their cases.
const SIZES: [(&str, usize); 4] = [
    ("64 B", 64),
    ("1 KiB", 1 << 10),
    ("4 KiB", 4 << 10),
    ("64 KiB", 64 << 10),
];

/// Everything, in the order of the tables; `place` is where the two threads of a run may run.
pub(crate) fn all_groups(place: Place) -> Vec<Group> {
    let mut groups = Vec::new();
    for (case, size) in SIZES {
        groups.push(group(Workload::Stream, case, streams(place, size)));
    }
    for (case, size) in SIZES {
        groups.push(group(
            Workload::ToEpoll,
            case,
            streams_to_epoll(place, size),
        ));
    }
    for (case, size) in SIZES {
        let rows = streams_from_epoll(place, size);
        groups.push(group(Workload::FromEpoll, case, rows));
    }
    groups.push(group(Workload::PingPong, "64 B", ping_pongs(place)));
    let with_epoll = ping_pongs_with_epoll(place);
    groups.push(group(Workload::PingPongEpoll, "64 B", with_epoll));
    groups.push(group(Workload::Connect, "bare", connects(false)));
    groups.push(group(Workload::Connect, "on epoll", connects(true)));
    for (case, size) in SIZES {
        let rows = streams_on_one_core(size);
        groups.push(group(Workload::OneCoreStream, case, rows));
    }
    let rows = ping_pongs_on_one_core();
    groups.push(group(Workload::OneCorePingPong, "64 B", rows));
    groups.extend(loops::groups(place));
    groups
}

type Rows = Vec<(&'static str, Job)>;

fn group(workload: Workload, case: &'static str, rows: Rows) -> Group {
    Group {
        workload,
        case,
        rows,
    }
}

fn inner(capacity: usize) -> Inner {
    Inner(config(capacity))
}

/// Of 256 KiB, with a device that serves guest memory.
fn guest(bounce: bool) -> Guest {
    Guest {
        config: config(KIB_256),
        bounce,
    }
}

fn config(capacity: usize) -> VsockInnerConfig {
    VsockInnerConfig::default()
        .to_device(Capacity::Bytes(capacity))
        .to_application(Capacity::Bytes(capacity))
}

fn no_spin() -> Inner {
    Inner(VsockInnerConfig::default().spin_budget(Duration::ZERO))
}

fn blocking<T: Transport + 'static>(transport: T, place: Place, size: usize) -> Job {
    Box::new(move |bytes| stream::blocking(&transport, place, size, bytes))
}

fn streams(place: Place, size: usize) -> Rows {
    let mut rows = streams_of_products(place, size);
    let ring = |capacity| blocking(BareRing { capacity }, place, size);
    let copies = |capacity| -> Job { Box::new(move |bytes| copies::twice(capacity, size, bytes)) };
    rows.extend([
        (RING_256K, ring(KIB_256)),
        (RING_1M, ring(MIB)),
        (COPIES_256K, copies(KIB_256)),
        (COPIES_1M, copies(MIB)),
    ]);
    rows
}

/// The rows that sleep when there is nothing to do.
fn streams_of_products(place: Place, size: usize) -> Rows {
    let duplex = Duplex { capacity: KIB_256 };
    vec![
        (UNIX, blocking(UnixPair, place, size)),
        (PIPE, blocking(Pipe, place, size)),
        (
            DUPLEX,
            Box::new(move |bytes| duplex::stream(&duplex, place, size, bytes)),
        ),
        (CHANNEL, blocking(Channel, place, size)),
        (INNER_256K, blocking(inner(KIB_256), place, size)),
        (INNER_1M, blocking(inner(MIB), place, size)),
    ]
}

fn streams_on_one_core(size: usize) -> Rows {
    streams_of_products(Place::OneCore, size)
}

fn streams_to_epoll(place: Place, size: usize) -> Rows {
    fn job<T>(transport: T, place: Place, size: usize) -> Job
    where
        T: Transport<End: Pollable> + 'static,
    {
        Box::new(move |bytes| stream::to_epoll(&transport, place, size, bytes))
    }
    vec![
        (UNIX, job(UnixPair, place, size)),
        (PIPE, job(Pipe, place, size)),
        (CHANNEL, job(Channel, place, size)),
        (INNER_256K, job(inner(KIB_256), place, size)),
        (INNER_1M, job(inner(MIB), place, size)),
        (GUEST, job(guest(false), place, size)),
        (BOUNCED, job(guest(true), place, size)),
    ]
}

fn streams_from_epoll(place: Place, size: usize) -> Rows {
    fn job<T>(transport: T, place: Place, size: usize) -> Job
    where
        T: Transport<End: Pollable> + 'static,
    {
        Box::new(move |bytes| stream::from_epoll(&transport, place, size, bytes))
    }
    vec![
        (UNIX, job(UnixPair, place, size)),
        (PIPE, job(Pipe, place, size)),
        (CHANNEL, job(Channel, place, size)),
        (INNER_256K, job(inner(KIB_256), place, size)),
        (INNER_1M, job(inner(MIB), place, size)),
        (GUEST, job(guest(false), place, size)),
        (BOUNCED, job(guest(true), place, size)),
    ]
}

fn ping_pong_blocking<T: Transport + 'static>(transport: T, place: Place) -> Job {
    Box::new(move |rounds| ping_pong::blocking(&transport, place, rounds))
}

fn ping_pongs(place: Place) -> Rows {
    let ring = BareRing { capacity: KIB_256 };
    let mut rows = ping_pongs_of_products(place);
    rows.push((RING_256K, ping_pong_blocking(ring, place)));
    rows
}

fn ping_pongs_on_one_core() -> Rows {
    ping_pongs_of_products(Place::OneCore)
}

fn ping_pongs_of_products(place: Place) -> Rows {
    let duplex = Duplex { capacity: KIB_256 };
    vec![
        (UNIX, ping_pong_blocking(UnixPair, place)),
        (PIPE, ping_pong_blocking(Pipe, place)),
        (
            DUPLEX,
            Box::new(move |rounds| duplex::ping_pong(&duplex, place, rounds)),
        ),
        (CHANNEL, ping_pong_blocking(Channel, place)),
        (INNER_256K, ping_pong_blocking(inner(KIB_256), place)),
        (INNER_NO_SPIN, ping_pong_blocking(no_spin(), place)),
    ]
}

fn ping_pongs_with_epoll(place: Place) -> Rows {
    fn job<T>(transport: T, place: Place) -> Job
    where
        T: Transport<End: Pollable> + 'static,
    {
        Box::new(move |rounds| ping_pong::with_epoll(&transport, place, rounds))
    }
    vec![
        (UNIX, job(UnixPair, place)),
        (PIPE, job(Pipe, place)),
        (CHANNEL, job(Channel, place)),
        (INNER_256K, job(inner(KIB_256), place)),
        (INNER_NO_SPIN, job(no_spin(), place)),
    ]
}

fn connects(on_epoll: bool) -> Rows {
    let config = VsockInnerConfig::default();
    if on_epoll {
        vec![
            (
                UNIX_LISTENER,
                Box::new(|count| connect::with_epoll(UnixDoor::open()?, count)),
            ),
            (
                CHANNEL,
                Box::new(|count| connect::with_epoll(ChannelDoor::open()?, count)),
            ),
            (
                INNER,
                Box::new(move |count| connect::with_epoll(InnerDoor::open(config)?, count)),
            ),
        ]
    } else {
        vec![
            (
                UNIX_LISTENER,
                Box::new(|count| connect::bare(UnixDoor::open()?, count)),
            ),
            (
                CHANNEL,
                Box::new(|count| connect::bare(ChannelDoor::open()?, count)),
            ),
            (
                INNER,
                Box::new(move |count| connect::bare(InnerDoor::open(config)?, count)),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{UNIX, all_groups};
    use vsock_report::Place;

    #[test]
    fn every_cell_has_a_name_of_its_own_and_every_group_its_reference_first() {
        let groups = all_groups(Place::Free);
        let mut names = HashSet::new();
        for group in &groups {
            assert_eq!(group.rows[0].0, UNIX, "{}", group.cell_name(""));
            for (row, _) in &group.rows {
                assert!(names.insert(group.cell_name(row)), "{row} twice");
            }
        }
    }

    #[test]
    fn every_cell_does_what_it_is_asked_for() {
        for group in all_groups(Place::Free) {
            for (row, job) in &group.rows {
                let sample = job(3000).unwrap_or_else(|e| panic!("{}: {e}", group.cell_name(row)));
                assert!(sample.units >= 3000, "{}", group.cell_name(row));
                assert!(!sample.elapsed.is_zero(), "{}", group.cell_name(row));
            }
        }
    }
}
