// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Backends with a fault, and the rules that must detect it.

use std::any::Any;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use vsock_backend_api::{VsockBackend, VsockBackendType};
use vsock_compliance::{BackendSource, BoxedStream, ServedBackend, backend_rules};
use vsock_tests::inner::{Inner, Way};

use crate::compliance::UNIX_BACKEND_EXCEPTIONS;

faults! {
    /// A fault of a backend.
    BackendFault, BACKEND_MUTANTS;
    AlwaysReadable: the_backends_fd_is_readable_exactly_while_one_waits;
    /// An accept without a pending connection returns the wrong error.
    AnotherError: an_accept_of_nothing_would_block;
    /// The most recent connection is accepted first.
    Reversed: connections_are_accepted_in_order;
    NotCloseOnExec: the_backends_fd_is_close_on_exec;
    AcceptsBlocking: an_accepted_stream_is_nonblocking;
}

struct MutantBackend {
    backend: Box<dyn VsockBackend>,
    fault: BackendFault,
    decoy: OwnedFd,
}

impl AsRawFd for MutantBackend {
    fn as_raw_fd(&self) -> RawFd {
        match self.fault {
            BackendFault::AlwaysReadable | BackendFault::NotCloseOnExec => self.decoy.as_raw_fd(),
            _ => self.backend.as_raw_fd(),
        }
    }
}

impl VsockBackend for MutantBackend {
    fn accept(&mut self) -> io::Result<BoxedStream> {
        let mut accepted = self.backend.accept();
        match self.fault {
            BackendFault::AnotherError => accepted.map_err(|_| ErrorKind::NotConnected.into()),
            BackendFault::Reversed => {
                while let Ok(next) = self.backend.accept() {
                    accepted = Ok(next);
                }
                accepted
            }
            BackendFault::AcceptsBlocking => {
                let mut stream = accepted?;
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(Duration::from_millis(10)))?;
                Ok(stream)
            }
            BackendFault::AlwaysReadable | BackendFault::NotCloseOnExec => accepted,
        }
    }
    fn connect(&self, dst_port: u32) -> io::Result<BoxedStream> {
        self.backend.connect(dst_port)
    }
    fn r#type(&self) -> VsockBackendType {
        self.backend.r#type()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl BackendSource for BackendFault {
    fn backend(&self) -> io::Result<ServedBackend> {
        let ServedBackend { backend, connect } = Inner::by(Way::BackendAccepts).backend()?;
        let (count, flags) = match self {
            Self::AlwaysReadable => (1, EventfdFlags::CLOEXEC),
            _ => (0, EventfdFlags::empty()),
        };
        let backend = Box::new(MutantBackend {
            backend,
            fault: *self,
            decoy: eventfd(count, flags)?,
        });
        Ok(ServedBackend { backend, connect })
    }
}

#[test]
fn each_rule_about_backends_detects_its_fault() {
    let rules = backend_rules();
    let mut proven = BTreeSet::new();
    for (fault, names) in BACKEND_MUTANTS {
        for name in *names {
            let rule = rules.iter().find(|rule| rule.as_ref().name == *name);
            assert!(rule.unwrap().check(fault).is_err(), "{fault:?}");
            proven.insert(*name);
        }
    }
    proven.extend(
        UNIX_BACKEND_EXCEPTIONS
            .iter()
            .map(|exception| exception.name),
    );
    let all: BTreeSet<_> = rules.iter().map(|rule| rule.as_ref().name).collect();
    assert_eq!(proven, all);
}
