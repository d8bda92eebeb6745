// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a device releases when it stops, without any help from its owner.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use rustix::fs::{FlockOperation, flock};
use vhost::vhost_user::message::FrontendReq;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;
use vsock_compliance::poll::{Deadline, Stopwatch, wait_until};
use vsock_driver::lingering;
use vsock_proto::Op;
use vsock_tests::alone::alone;
use vsock_vhost_user::{
    UnixBackend, UnixSeqpacketBackend, VhostUserError, VhostUserVsock, VhostUserVsockBuilder,
};

use crate::guest::{GENEROUS, Guest};
use crate::host::{Host, STOP, Scripted, ScriptedStream, act, on_drop};
use crate::ring::BUFFER;
use crate::vmm::{FEATURES, RX, Vmm, header};

/// Adds both backends over Unix sockets.
fn both(path: &Path, builder: VhostUserVsockBuilder) -> VhostUserVsockBuilder {
    builder
        .backend(Box::new(UnixBackend::bind(path).unwrap()))
        .backend(Box::new(UnixSeqpacketBackend::bind(path).unwrap()))
}

/// Starts a host thread that waits for a connection, and returns how the wait ends.
fn accepting(host: &Host) -> Receiver<io::Result<()>> {
    let listener = host.connector.listen(1).unwrap();
    let (accepts, accepted) = mpsc::channel();
    thread::spawn(move || accepts.send(listener.accept().map(drop)));
    accepted
}

/// Checks that the CID becomes free when the call that blocks the device has ended.
#[track_caller]
fn assert_frees(cid: u64, socket: &Path) {
    let freed = || VhostUserVsockBuilder::new(cid, socket).spawn().is_ok();
    wait_until(Deadline::after(GENEROUS), freed).unwrap();
}

#[test]
fn a_stop_ends_the_waits_of_host_threads_and_removes_the_sockets_of_backends() {
    // Backends are dropped in this order, so the file is removed before the listener ends.
    let host = Host::with(both);
    let accepted = accepting(&host);
    let (connects, connected) = mpsc::channel();
    let connect = || {
        let (connector, connects) = (host.connector.clone(), connects.clone());
        thread::spawn(move || connects.send(connector.connect_to(52).map(drop)));
    };
    connect();
    host.device.stopper().stop();
    let end = accepted.recv_timeout(GENEROUS).unwrap();
    assert_eq!(end.unwrap_err().kind(), ErrorKind::NotConnected);
    assert!(!host.path("vm.vsock").exists());
    // A later call does not wait either.
    connect();
    for _ in 0..2 {
        let end = connected.recv_timeout(GENEROUS).unwrap();
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
    assert_eq!(host.device.counters().packets_from_guest, 0);
    assert!(host.device.socket().exists());
    host.device.join().unwrap();
}

/// Checks that the wait has ended because the device panicked.
#[track_caller]
fn assert_panicked(accepted: &Receiver<io::Result<()>>, device: VhostUserVsock) {
    let end = accepted.recv_timeout(GENEROUS).unwrap();
    assert_eq!(end.unwrap_err().kind(), ErrorKind::NotConnected);
    let ended = device.join().unwrap_err();
    assert!(matches!(ended, VhostUserError::Panicked), "{ended}");
}

/// Creates a descriptor that is ready as soon as it is watched.
fn readable() -> Option<UnixStream> {
    let (readable, peer) = UnixStream::pair().unwrap();
    drop(peer);
    Some(readable)
}

#[test]
fn t102_a_panic_of_the_device_thread_is_reported_and_ends_the_waits_of_host_threads() {
    let host = Host::with_backend(Scripted {
        watched: readable(),
        on_accept: act(|| panic!("on purpose")),
        ..Scripted::default()
    });
    let accepted = accepting(&host);
    // The device may panic before it has answered the last request.
    let mut vmm = host.vmm();
    let _started = vmm.start(FEATURES);
    assert_panicked(&accepted, host.device);
}

/// Panics, unless the thread is already panicking.
fn panic_once() {
    assert!(thread::panicking(), "on purpose");
}

/// The call that panics.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Where {
    Connect,
    Write,
    DropOfStream,
    DropOfBackend,
}

fn panicking(at: Where) -> Scripted {
    let connect = move || {
        assert_ne!(at, Where::Connect, "on purpose");
        ScriptedStream {
            on_write: act(move || assert_ne!(at, Where::Write, "on purpose")),
            on_drop: on_drop(move || {
                if at == Where::DropOfStream {
                    panic_once();
                }
            }),
        }
    };
    Scripted {
        on_connect: Some(Box::new(connect)),
        on_drop: on_drop(move || {
            if at == Where::DropOfBackend {
                panic_once();
            }
        }),
        ..Scripted::default()
    }
}

#[test]
fn t132_a_panic_of_a_backend_or_a_stream_ends_the_waits() {
    for (at, stops) in [
        (Where::Connect, false),
        (Where::Write, false),
        (Where::DropOfStream, false),
        (Where::DropOfStream, true),
        (Where::DropOfBackend, true),
    ] {
        let host = Host::with_backend(panicking(at));
        let accepted = accepting(&host);
        let mut guest = host.boot();
        let connection = guest.request(2000, 7);
        if at != Where::Connect {
            guest.packet();
        }
        if at == Where::Write {
            guest.write(&connection, b"x");
        }
        if stops {
            host.device.stopper().stop();
        } else if at == Where::DropOfStream {
            guest.say(&connection, Op::Reset, 0, &[]);
        }
        assert_panicked(&accepted, host.device);
    }
}

/// A value that panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic_once();
    }
}

#[test]
fn t132_streams_and_backends_that_panic_when_dropped_end_only_their_device() {
    let (tells, dropped) = mpsc::channel();
    let bomb = || {
        Box::new(Scripted {
            on_drop: on_drop(panic_once),
            ..Scripted::default()
        })
    };
    // The payload of each stream's panic also panics when it is dropped.
    let streams = Scripted {
        on_connect: Some(Box::new(move || {
            let tells = tells.clone();
            ScriptedStream {
                on_drop: on_drop(move || {
                    let _told = tells.send(());
                    std::panic::panic_any(Bomb);
                }),
                ..ScriptedStream::default()
            }
        })),
        ..Scripted::default()
    };
    let host = Host::with(|_, builder| {
        builder
            .backend_for(bomb(), &[8])
            .backend_for(bomb(), &[9])
            .backend(Box::new(streams))
    });
    let accepted = accepting(&host);
    let mut guest = host.boot();
    for port in 2000..2010 {
        let (_, answer) = guest.connect(port, 7);
        assert_eq!(answer.op, u16::from(Op::Response));
    }
    host.device.stopper().stop();
    let socket = host.socket();
    assert_panicked(&accepted, host.device);
    assert_eq!(dropped.iter().count(), 10, "all were dropped");
    let again = VhostUserVsockBuilder::new(host.cid, &socket)
        .spawn()
        .unwrap();
    again.stop().unwrap();
}

#[test]
fn a_stop_ends_with_an_error_if_a_backend_blocks_it() {
    let ((entered, enters), (lets_go, let_go)) = (mpsc::channel(), mpsc::channel::<()>());
    let stuck = Scripted {
        watched: readable(),
        on_accept: act(move || {
            let _told = entered.send(());
            let _gone = let_go.recv();
        }),
        ..Scripted::default()
    };
    let host = Host::with(|path, builder| both(path, builder.backend(Box::new(stuck))));
    let (socket, cid) = (host.socket(), host.cid);
    let mut vmm = host.vmm();
    vmm.start(FEATURES).unwrap();
    enters.recv_timeout(GENEROUS).unwrap();
    let watch = Stopwatch::start();
    let ended = host.device.stop().unwrap_err();
    assert!(matches!(ended, VhostUserError::NotEnded(_)), "{ended}");
    assert!(ended.to_string().contains("moves bytes"), "{ended}");
    assert!(watch.elapsed() < 2 * STOP, "{:?}", watch.elapsed());
    assert_eq!(std::fs::read_dir(host.dir.path()).unwrap().count(), 0);
    // The front-end does not have to wait.
    let end = vmm.socket().read(&mut [0]).map_err(|error| error.kind());
    assert!(
        matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)),
        "{end:?}"
    );
    // As long as the device still runs, no other device can have its CID.
    let taken = VhostUserVsockBuilder::new(cid, &socket)
        .spawn()
        .unwrap_err();
    assert!(matches!(taken, VhostUserError::CidTaken(_)), "{taken}");
    drop(lets_go);
    assert_frees(cid, &socket);
}

/// Lets the device close a file that is slow to close; it is closed when this is dropped. The
/// caller must run [`alone`]: a copy in a program that another test starts would be the last one.
pub(crate) fn block_requests(vmm: &Vmm) -> TcpStream {
    let (near, far) = lingering(100 * GENEROUS);
    let request = [&header(FrontendReq::SET_VRING_ERR, 0, 8)[..], &[0; 8]].concat();
    let (first, rest) = request.split_at(1);
    let fds = [near.as_raw_fd()];
    let mut front_end = vmm.socket();
    front_end.send_with_fds(&[first], &fds).unwrap();
    // From here on, the device has the last descriptor.
    drop(near);
    front_end.write_all(rest).unwrap();
    far
}

#[test]
fn t119_a_file_that_is_slow_to_close_stops_no_byte_and_no_stop() {
    alone(|| {
        let host = Host::new();
        let (socket, cid) = (host.socket(), host.cid);
        let mut guest = host.boot();
        let far = block_requests(&guest.vmm);
        for port in 1..20 {
            host.assert_serves(&mut guest, port);
        }
        let watch = Stopwatch::start();
        let ended = host.device.stop().unwrap_err();
        assert!(watch.elapsed() < 2 * STOP, "{:?}", watch.elapsed());
        assert!(ended.to_string().contains("requests"), "{ended}");
        assert!(!socket.exists());
        drop(far);
        assert_frees(cid, &socket);
    });
}

#[test]
fn a_stop_names_a_backend_whose_drop_blocks() {
    let (lets_go, let_go) = mpsc::channel::<()>();
    let host = Host::with_backend(Scripted {
        on_drop: on_drop(move || {
            let _gone = let_go.recv();
        }),
        ..Scripted::default()
    });
    let ended = host.device.stop().unwrap_err();
    assert!(ended.to_string().contains("dropping a backend"), "{ended}");
    drop(lets_go);
}

#[test]
fn t133_a_stop_resets_the_connections_of_a_guest_that_has_room_for_it() {
    let host = Host::new();
    let listener = host.connector.listen(1).unwrap();
    let mut guest = host.boot();
    let mut accepted = Vec::new();
    for guest_port in 2000..2010 {
        let (_, answer) = guest.connect(guest_port, 1);
        assert_eq!(answer.op, u16::from(Op::Response));
        accepted.push(listener.accept().unwrap());
    }
    host.device.stop().unwrap();
    // The device has ended. Its last packets are in the guest's ring.
    let mut told: Vec<u32> = (2000..2010)
        .map(|_| guest.expect(Op::Reset).0.dst_port)
        .collect();
    told.sort_unstable();
    assert!(told.into_iter().eq(2000..2010));
    for mut stream in accepted {
        stream.read(&mut [0]).unwrap_err();
    }
}

#[test]
fn t133_a_guest_without_room_does_not_delay_a_stop() {
    let host = Host::new();
    let listener = host.connector.listen(1).unwrap();
    let mut vmm = host.vmm();
    vmm.start(FEATURES).unwrap();
    // One buffer, for the reply.
    vmm.rings[RX].offer(BUFFER, true);
    vmm.rings[RX].notify(0);
    let mut guest = Guest::of(vmm, host.cid);
    guest.request(2000, 1);
    let _accepted = listener.accept().unwrap();
    host.assert_stops();
}

/// An embedder's stream may write to a pipe or a socket whose reader has gone. If the process has
/// not changed the effect of `SIGPIPE`, the signal would end the process.
#[test]
fn a_stream_that_writes_to_a_closed_pipe_raises_no_signal() {
    let (tells, told) = mpsc::channel();
    let host = Host::with_backend(Scripted {
        on_connect: Some(Box::new(move || {
            let tells = tells.clone();
            ScriptedStream {
                on_write: act(move || {
                    let _told = tells.send(std::fs::read_to_string("/proc/thread-self/status"));
                }),
                ..ScriptedStream::default()
            }
        })),
        ..Scripted::default()
    });
    let mut guest = host.boot();
    let (connection, _) = guest.connect(2000, 7);
    guest.write(&connection, b"x");
    let status = told.recv_timeout(GENEROUS).unwrap().unwrap();
    let blocked = status
        .lines()
        .find_map(|line| line.strip_prefix("SigBlk:"))
        .unwrap();
    let blocked = u64::from_str_radix(blocked.trim(), 16).unwrap();
    let sigpipe = rustix::process::Signal::PIPE.as_raw() - 1;
    assert_eq!(blocked >> sigpipe & 1, 1, "{blocked:#x}");
}

#[test]
fn t126_a_directory_lock_that_is_never_released_does_not_delay_a_stop() {
    let host = Host::with(both);
    let directory = File::open(host.dir.path()).unwrap();
    flock(&directory, FlockOperation::LockExclusive).unwrap();
    host.assert_stops();
}

#[test]
fn t119_a_file_queued_by_a_waiting_front_end_does_not_delay_a_stop() {
    alone(|| {
        let host = Host::new();
        let mut vmm = host.vmm();
        vmm.start(FEATURES).unwrap();
        let (near, far) = lingering(100 * GENEROUS);
        let waits = UnixStream::connect(host.socket()).unwrap();
        waits
            .send_with_fds(&[&b"x"[..]], &[near.as_raw_fd()])
            .unwrap();
        drop(near);
        let (tells, ended) = mpsc::channel();
        let stop = thread::spawn(move || tells.send(host.device.stop()));
        let ended = ended.recv_timeout(2 * STOP);
        drop(far);
        stop.join().unwrap().unwrap();
        ended.unwrap().unwrap();
    });
}
