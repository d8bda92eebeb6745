// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Notifications to the service manager (`sd_notify`): datagrams to the socket that `NOTIFY_SOCKET`
//! names.

use std::env;
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use vsock_sockets::journal::{Journal, say};

/// How long to wait until the manager's socket has room for a message.
const PATIENCE: Duration = Duration::from_secs(2);

/// A service manager that accepts notifications.
#[derive(Debug)]
pub(crate) struct Manager {
    /// Connected at the start, because the sandbox forbids it later.
    socket: UnixDatagram,
    /// For the status line, which front-ends and connections change.
    journal: Journal,
}

impl Manager {
    /// Connects to the service manager that started the program, if it asks for notifications. If
    /// this fails, the program logs a warning and runs without notifications.
    pub(crate) fn from_env() -> Option<Self> {
        let name = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())?;
        match Self::connect(&name) {
            Ok(manager) => Some(manager),
            Err(error) => {
                log::warn!(
                    "cannot notify the service manager at {} (NOTIFY_SOCKET): {error}",
                    Path::new(&name).display()
                );
                None
            }
        }
    }

    fn connect(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
            _ => {
                let message = "expected an absolute path, or @ and an abstract name";
                return Err(io::Error::new(ErrorKind::InvalidInput, message));
            }
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            socket,
            journal: Journal::default(),
        })
    }

    /// Reports that all guests can be served.
    pub(crate) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// Reports that the program is ending.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=Stopping");
    }

    /// Reports the status line.
    pub(crate) fn status(&self, status: &str) {
        self.send(&format!("STATUS={status}"));
    }

    fn send(&self, message: &str) {
        if let Err(error) = self.socket.send(message.as_bytes()) {
            say!(
                self.journal,
                Debug,
                "cannot notify the service manager: {error}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Shutdown;

    use tempfile::TempDir;
    use vsock_driver::logged;

    use super::*;

    fn received(manager: &UnixDatagram) -> String {
        let mut message = [0; 200];
        let len = manager.recv(&mut message).unwrap();
        String::from_utf8(message[..len].to_vec()).unwrap()
    }

    #[test]
    fn a_manager_has_a_path_or_an_abstract_name() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("notify");
        let own = format!("vsock-notify-{}", std::process::id());
        let name = SocketAddr::from_abstract_name(&own).unwrap();
        for (socket, name) in [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (
                UnixDatagram::bind_addr(&name).unwrap(),
                format!("@{own}").into(),
            ),
        ] {
            let manager = Manager::connect(&name).unwrap();
            manager.ready("guest 3");
            manager.status("busy");
            manager.stopping();
            let all = [(); 3].map(|()| received(&socket));
            let expected = [
                "READY=1\nSTATUS=guest 3",
                "STATUS=busy",
                "STOPPING=1\nSTATUS=Stopping",
            ];
            assert_eq!(all, expected);
        }
    }

    #[test]
    fn t131_a_manager_that_has_gone_does_not_fill_the_log() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = Manager::connect(path.as_os_str()).unwrap();
        // A drop could take effect later: a program that another test starts has a copy at first.
        socket.shutdown(Shutdown::Both).unwrap();
        logged();
        for _ in 0..40 {
            manager.status("busy");
        }
        assert_eq!(logged().len(), 10);
        drop(manager);
        assert!(logged()[0].contains("30 lines like"));
    }

    #[test]
    fn an_invalid_or_missing_socket_is_refused() {
        for name in ["vsock:2:1024", "notify", "@", "/nowhere/at/all"] {
            let refused = Manager::connect(OsStr::new(name));
            assert!(name == "@" || refused.is_err(), "{name}");
        }
    }
}
