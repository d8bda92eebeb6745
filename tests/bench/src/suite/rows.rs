// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;
use std::time::Duration;

use vsock_inner::{Capacity, VsockInnerConfig};

use crate::suite::{Group, Job, Workload, loops, tasks};
use crate::transport::{
    BareRing, Channel, ChannelEndpoint, Duplex, Endpoint, Guest, Inner, InnerEndpoint, Pipe,
    Pollable, Transport, UnixEndpoint, UnixPair,
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
pub(crate) const DUPLEX: &str = "tokio duplex";
const COPIES_256K: &str = "two copies 256 KiB";
const COPIES_1M: &str = "two copies 1 MiB";

pub(crate) const KIB_256: usize = 256 << 10;
const MIB: usize = 1 << 20;

/// The sizes of a write, with the names of their cases.
pub(crate) const SIZES: [(&str, usize); 4] = [
    ("64 B", 64),
    ("1 KiB", 1 << 10),
    ("4 KiB", 4 << 10),
    ("64 KiB", 64 << 10),
];

/// Returns everything, in the order of the tables. `place` selects the cores of a run's threads.
pub(crate) fn all_groups(place: Place) -> Vec<Group> {
    let mut groups = Vec::new();
    let mut group = |workload, case, rows| {
        groups.push(Group {
            workload,
            case,
            rows,
        });
    };
    for (case, size) in SIZES {
        group(Workload::Stream, case, streams(place, size));
    }
    for (case, size) in SIZES {
        let rows = streams_on_epoll(OnEpoll::Reader(size), place);
        group(Workload::ToEpoll, case, rows);
    }
    for (case, size) in SIZES {
        let rows = streams_on_epoll(OnEpoll::Writer(size), place);
        group(Workload::FromEpoll, case, rows);
    }
    let mut rows = ping_pongs(place);
    let ring = BareRing { capacity: KIB_256 };
    rows.push((RING_256K, blocking(Blocking::PingPong, ring, place)));
    group(Workload::PingPong, "64 B", rows);
    let mut rows = on_epoll(OnEpoll::PingPong, place);
    rows.push((INNER_NO_SPIN, epoll(OnEpoll::PingPong, no_spin(), place)));
    group(Workload::PingPongEpoll, "64 B", rows);
    group(Workload::Connect, "bare", connects(false));
    group(Workload::Connect, "on epoll", connects(true));
    for (case, size) in SIZES {
        let rows = streams_that_sleep(Place::OneCore, size);
        group(Workload::OneCoreStream, case, rows);
    }
    let rows = ping_pongs(Place::OneCore);
    group(Workload::OneCorePingPong, "64 B", rows);
    groups.extend(loops::groups(place));
    groups.extend(tasks::groups());
    groups
}

type Rows = Vec<(&'static str, Job)>;

fn inner(capacity: usize) -> Inner {
    Inner(config(capacity))
}

/// Returns a stream of 256 KiB with a device that moves the bytes to and from guest memory.
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

/// The job of two blocking ends.
#[derive(Clone, Copy)]
enum Blocking {
    Stream(usize),
    PingPong,
}

fn blocking<T: Transport + 'static>(work: Blocking, transport: T, place: Place) -> Job {
    Box::new(move |units| match work {
        Blocking::Stream(size) => stream::blocking(&transport, place, size, units),
        Blocking::PingPong => ping_pong::blocking(&transport, place, units),
    })
}

/// Returns the rows that users could choose, which sleep when they have nothing to do.
fn products(work: Blocking, place: Place) -> Rows {
    let transport = Duplex(KIB_256);
    let duplex = move |units| match work {
        Blocking::Stream(size) => duplex::stream(transport, place, size, units),
        Blocking::PingPong => duplex::ping_pong(transport, place, units),
    };
    vec![
        (UNIX, blocking(work, UnixPair, place)),
        (PIPE, blocking(work, Pipe, place)),
        (DUPLEX, Box::new(duplex)),
        (CHANNEL, blocking(work, Channel, place)),
        (INNER_256K, blocking(work, inner(KIB_256), place)),
    ]
}

fn streams(place: Place, size: usize) -> Rows {
    let mut rows = streams_that_sleep(place, size);
    let ring = |capacity| blocking(Blocking::Stream(size), BareRing { capacity }, place);
    let copies = |capacity| -> Job { Box::new(move |bytes| copies::twice(capacity, size, bytes)) };
    rows.extend([
        (RING_256K, ring(KIB_256)),
        (RING_1M, ring(MIB)),
        (COPIES_256K, copies(KIB_256)),
        (COPIES_1M, copies(MIB)),
    ]);
    rows
}

fn streams_that_sleep(place: Place, size: usize) -> Rows {
    let work = Blocking::Stream(size);
    let mut rows = products(work, place);
    rows.push((INNER_1M, blocking(work, inner(MIB), place)));
    rows
}

fn ping_pongs(place: Place) -> Rows {
    let mut rows = products(Blocking::PingPong, place);
    let no_spin = blocking(Blocking::PingPong, no_spin(), place);
    rows.push((INNER_NO_SPIN, no_spin));
    rows
}

/// The job of an end on epoll.
#[derive(Clone, Copy)]
enum OnEpoll {
    Reader(usize),
    Writer(usize),
    PingPong,
}

fn epoll<T: Transport<End: Pollable> + 'static>(work: OnEpoll, transport: T, place: Place) -> Job {
    Box::new(move |units| match work {
        OnEpoll::Reader(size) => stream::to_epoll(&transport, place, size, units),
        OnEpoll::Writer(size) => stream::from_epoll(&transport, place, size, units),
        OnEpoll::PingPong => ping_pong::with_epoll(&transport, place, units),
    })
}

fn on_epoll(work: OnEpoll, place: Place) -> Rows {
    vec![
        (UNIX, epoll(work, UnixPair, place)),
        (PIPE, epoll(work, Pipe, place)),
        (CHANNEL, epoll(work, Channel, place)),
        (INNER_256K, epoll(work, inner(KIB_256), place)),
    ]
}

fn streams_on_epoll(work: OnEpoll, place: Place) -> Rows {
    let mut rows = on_epoll(work, place);
    rows.extend([
        (INNER_1M, epoll(work, inner(MIB), place)),
        (GUEST, epoll(work, guest(false), place)),
        (BOUNCED, epoll(work, guest(true), place)),
    ]);
    rows
}

fn connects(on_epoll: bool) -> Rows {
    fn job<D: Endpoint + 'static>(on_epoll: bool, open: fn() -> io::Result<D>) -> Job {
        Box::new(move |count| {
            if on_epoll {
                connect::with_epoll(open()?, count)
            } else {
                connect::bare(open()?, count)
            }
        })
    }
    let inner = || InnerEndpoint::open(VsockInnerConfig::default());
    vec![
        (UNIX, job(on_epoll, UnixEndpoint::open)),
        (CHANNEL, job(on_epoll, ChannelEndpoint::open)),
        (INNER, job(on_epoll, inner)),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{UNIX, all_groups};
    use vsock_report::Place;

    #[test]
    fn every_cell_has_a_unique_name_and_every_group_its_reference_first() {
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
    fn every_cell_does_the_requested_work() {
        for group in all_groups(Place::Free) {
            for (row, job) in &group.rows {
                let sample = job(3000).unwrap_or_else(|e| panic!("{}: {e}", group.cell_name(row)));
                assert!(sample.units >= 3000, "{}", group.cell_name(row));
                assert!(!sample.elapsed.is_zero(), "{}", group.cell_name(row));
            }
        }
    }
}
