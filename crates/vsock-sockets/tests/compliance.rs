// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Compliance with the rules of the traits: TCP streams, the TCP backend, and the backend for
//! passed descriptors.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::any::Any;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::sockopt;
use tempfile::TempDir;
use vsock_compliance::{
    BackendSource, BoxedStream, ConnectionEnd, Exception, PairSource, RuleBreach, Scene,
    ServedBackend, judge_backends, stream_rules,
};
use vsock_sockets::{
    PassFdBackend, PassFdConfig, TcpBackend, TcpVsockStream, UnixVsockStream, VsockBackend,
    VsockBackendType,
};

/// The approximate size of the system's buffer for each direction of a socket.
const BUFFER: usize = 64 * 1024;

/// How long a rule can wait for an event.
const SOON: Duration = Duration::from_secs(20);

/// How often a rule may fail before the test does. On a busy machine, the system can deliver bytes
/// some time after their write has returned, and the rules for streams then see none. A defect
/// fails each time.
const ATTEMPTS: usize = 20;

/// Pairs of TCP sockets.
struct Pairs;

impl PairSource for Pairs {
    fn pair(&self) -> io::Result<(BoxedStream, BoxedStream)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let application = TcpStream::connect(listener.local_addr()?)?;
        let (device, _) = listener.accept()?;
        for socket in [&application, &device] {
            // With fixed sizes, the system does not enlarge the buffers: a full one stays full.
            sockopt::set_socket_recv_buffer_size(socket, BUFFER)?;
            sockopt::set_socket_send_buffer_size(socket, BUFFER)?;
        }
        Ok((
            Box::new(TcpVsockStream::new(application)),
            Box::new(TcpVsockStream::new(device)),
        ))
    }
}

/// The TCP backend and its clients.
struct Listening;

impl BackendSource for Listening {
    fn backend(&self) -> io::Result<ServedBackend> {
        let backend = TcpBackend::bind("127.0.0.1:0".parse().unwrap())?;
        let address = backend.local_addr();
        let connect = move || -> io::Result<BoxedStream> {
            Ok(Box::new(TcpVsockStream::new(TcpStream::connect(address)?)))
        };
        Ok(ServedBackend {
            backend: Box::new(backend),
            connect: Box::new(connect),
        })
    }
}

/// A backend for passed descriptors, with clients that use another command. Their first byte is
/// read here.
struct Passing;

struct Begun(PassFdBackend);

impl AsRawFd for Begun {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl VsockBackend for Begun {
    fn accept(&mut self) -> io::Result<BoxedStream> {
        let mut stream = self.0.accept()?;
        stream.read_exact(&mut [0])?;
        Ok(stream)
    }

    fn connect(&self, port: u32) -> io::Result<BoxedStream> {
        self.0.connect(port)
    }

    fn r#type(&self) -> VsockBackendType {
        self.0.r#type()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl BackendSource for Passing {
    fn backend(&self) -> io::Result<ServedBackend> {
        let dir = TempDir::new()?;
        let path = dir.path().join("vm");
        let backend = PassFdBackend::bind(&path, PassFdConfig::default())?;
        let connect = move || -> io::Result<BoxedStream> {
            let _kept = &dir;
            let client = UnixStream::connect(&path)?;
            (&client).write_all(b"C")?;
            Ok(Box::new(UnixVsockStream::new(client)))
        };
        Ok(ServedBackend {
            backend: Box::new(Begun(backend)),
            connect: Box::new(connect),
        })
    }
}

const fn except(name: &'static str, reason: &'static str) -> Exception {
    Exception { name, reason }
}

const INTERRUPTED: &str =
    "the call returns `Interrupted`, and the standard library's helpers retry";
const LATE: &str = "the peer's actions take effect after a moment, possibly in several steps";
const NOT_TOLD: &str =
    "the peer does not learn of a shutdown of Read, and a close looks like a shutdown of Write";
const EAGAIN: &str = "an expired timeout is `WouldBlock`, and the system's clock is coarse";
const ONCE: &str = "a reset is reported once, and to writers as `BrokenPipe`";
const CLEAN: &str = "a panic is not noticed";
const BY_HAND: &str = "the descriptor is the stream itself, so using it directly moves bytes";
const REPORTED: &str = "a shutdown and a drop are reported as RDHUP and HUP";
const SHARED: &str = "acknowledgements in the other direction free buffer space";

/// The rules with which TCP does not comply. It complies with some of them at times, so these rules
/// are not checked at all.
const STREAMS: &[Exception] = &[
    except("a_read_gathers_writes", LATE),
    except("an_interruption_does_not_end_a_read", INTERRUPTED),
    except("an_interruption_does_not_end_a_write", INTERRUPTED),
    except("a_blocked_write_ends_with_a_shutdown", NOT_TOLD),
    except("a_shutdown_cuts_a_write_short", NOT_TOLD),
    except("a_zero_timeout_is_refused_and_changes_nothing", EAGAIN),
    except("a_read_times_out_and_never_early", EAGAIN),
    except("a_write_times_out_and_never_early", EAGAIN),
    except("empty_writes_do_not_prolong_a_read", EAGAIN),
    except("a_slow_reader_does_not_prolong_a_write", EAGAIN),
    except("the_fd_stays_readable_after_a_reset", ONCE),
    except("a_drop_is_an_edge_while_bytes_wait", NOT_TOLD),
    except("a_drop_is_an_edge_after_an_end", NOT_TOLD),
    except("a_drop_is_an_edge_after_ones_own_shutdown", NOT_TOLD),
    except("only_a_drop_makes_the_peer_gone", NOT_TOLD),
    except("hup_is_never_reported", REPORTED),
    except("the_write_fd_ignores_the_other_direction", SHARED),
    except("an_end_makes_the_write_fd_ready_with_an_edge", NOT_TOLD),
    except("the_write_fd_may_be_taken_after_an_end", NOT_TOLD),
    except("an_fd_read_by_hand_costs_no_bytes", BY_HAND),
    except("an_fd_written_by_hand_adds_no_bytes", BY_HAND),
    except("a_shutdown_of_read_breaks_the_peers_writing", NOT_TOLD),
    except("a_drop_is_a_close", NOT_TOLD),
    except("a_drop_with_unread_bytes_is_a_reset", ONCE),
    except("a_drop_by_a_panic_is_a_reset", CLEAN),
    except("an_abort_is_a_reset", ONCE),
    except("a_drop_with_unread_bytes_loses_nothing_written", LATE),
    except("a_reset_is_sticky", ONCE),
];

#[test]
fn tcp_complies_with_all_other_rules() {
    let rules = stream_rules();
    for exception in STREAMS {
        let known = rules
            .iter()
            .any(|rule| rule.as_ref().name == exception.name);
        assert!(known, "there is no rule {}", exception.name);
    }
    let left_out = |name| STREAMS.iter().any(|exception| exception.name == name);
    for rule in rules {
        let name = rule.as_ref().name;
        if left_out(name) {
            continue;
        }
        for near in ConnectionEnd::BOTH {
            let mut breaches = Vec::new();
            while let Err(breach) = rule.check(&Scene::new(&Pairs, near, SOON)) {
                if let RuleBreach::Inapplicable(_) = breach {
                    break;
                }
                breaches.push(breach);
                assert!(
                    breaches.len() < ATTEMPTS,
                    "{name}, at {near:?}: {breaches:?}"
                );
            }
        }
    }
}

#[test]
fn the_tcp_backend_complies_with_all_other_rules() {
    let exceptions = [except("a_dropped_backend_resets_what_waits", ONCE)];
    let report = judge_backends(&Listening, &exceptions);
    assert!(report.is_good(), "\n{report}");
}

#[test]
fn the_backend_for_descriptors_complies_with_all_other_rules() {
    let gone = "the socket file has been removed, so a connect fails with `NotFound`";
    let exceptions = [
        except("a_dropped_backend_resets_what_waits", ONCE),
        except("a_dropped_backend_refuses", gone),
    ];
    let report = judge_backends(&Passing, &exceptions);
    assert!(report.is_good(), "\n{report}");
}
