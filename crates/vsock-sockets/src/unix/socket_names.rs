// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Names of sockets that one process uses, of which no two may be the same.
//!
//! If a guest's port were another guest's socket, the first guest would speak to the second as the
//! host does; if it were a VMM's, the guest would speak vhost-user to a device.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::tcp_names::TcpUse;

/// Where a name is.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Directory {
    /// Device and inode, whatever the path to it is spelt like and whichever links it has.
    Found(u64, u64),
    /// It is not there, so nothing can be bound there either.
    Missing(PathBuf),
}

/// What a process uses of a directory.
#[derive(Clone, Debug)]
enum Files {
    /// The file with this name: it listens there.
    One(Vec<u8>),
    /// The files with this name, `_` and a port in decimal: a guest can reach them.
    EachPort(Vec<u8>),
    /// The file with this name: a guest can reach it.
    Dialled(Vec<u8>),
}

/// What a process uses.
#[derive(Clone, Debug)]
enum Used {
    Files { directory: Directory, files: Files },
    Tcp(TcpUse),
}

/// A socket that a process listens on, or those that one of its guests can reach: files, or
/// addresses of TCP.
///
/// A backend, or a [`NamedListener`](crate::NamedListener), is refused if its names overlap with
/// those of another one in the process. A program with many virtual machines can see that
/// beforehand:
///
/// ```
/// use std::path::Path;
/// use vsock_sockets::SocketNames;
///
/// let ports_of_the_first = SocketNames::each_port(Path::new("/run/vms/a"));
/// let second = SocketNames::one(Path::new("/run/vms/a_5"));
/// assert!(ports_of_the_first.overlaps(&second));
/// ```
#[derive(Clone, Debug)]
pub struct SocketNames(Used);

impl SocketNames {
    /// The socket at `path`.
    #[must_use]
    pub fn one(path: &Path) -> Self {
        Self::of(path, Files::One)
    }

    /// The sockets at `path` followed by `_` and any port.
    #[must_use]
    pub fn each_port(path: &Path) -> Self {
        Self::of(path, Files::EachPort)
    }

    /// The socket at `path`, which a guest reaches as one of its ports. A link is followed to where
    /// it leads now.
    #[must_use]
    pub fn dialled(path: &Path) -> Self {
        Self::of(&without_links(path), Files::Dialled)
    }

    /// A TCP socket that listens on `address`.
    #[must_use]
    pub const fn tcp_listener(address: SocketAddr) -> Self {
        Self(Used::Tcp(TcpUse::Listens(address)))
    }

    /// The TCP socket at `address`, which a guest reaches as one of its ports.
    #[must_use]
    pub const fn tcp_dialled(address: SocketAddr) -> Self {
        Self(Used::Tcp(TcpUse::Dials(address)))
    }

    fn of(path: &Path, files: impl FnOnce(Vec<u8>) -> Files) -> Self {
        let (directory, name) = split(path);
        let directory = match fs::metadata(directory) {
            Ok(found) => Directory::Found(found.dev(), found.ino()),
            Err(_) => Directory::Missing(directory.to_owned()),
        };
        let files = files(name.as_bytes().to_vec());
        Self(Used::Files { directory, files })
    }

    /// Whether both have a socket in common, and one of them listens on it. (That a guest can reach
    /// the same sockets in two ways, for streams and for messages, is meant.)
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (
                Used::Files { directory, files },
                Used::Files {
                    directory: other_directory,
                    files: other_files,
                },
            ) => directory == other_directory && files.overlap(other_files),
            (Used::Tcp(one), Used::Tcp(other)) => one.overlaps(*other),
            _ => false,
        }
    }
}

impl Files {
    fn overlap(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::One(name), Self::One(other) | Self::Dialled(other))
            | (Self::Dialled(name), Self::One(other)) => name == other,
            (Self::One(name), Self::EachPort(base)) | (Self::EachPort(base), Self::One(name)) => {
                is_port_of(name, base)
            }
            (Self::EachPort(_) | Self::Dialled(_), Self::EachPort(_) | Self::Dialled(_)) => false,
        }
    }
}

/// Links that a path may have at its end, as the system counts them.
const LINKS: usize = 40;

/// Where a path leads, if its last part is a link, whether anything is there or not.
fn without_links(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let Ok(target) = fs::read_link(&path) else {
            break;
        };
        path = split(&path).0.join(target);
    }
    path
}

/// Names that nothing else in the process can listen on, or let a guest reach, while this lives.
#[derive(Debug)]
pub(crate) struct NameClaim(Arc<[SocketNames]>);

static CLAIMED: Mutex<Vec<Arc<[SocketNames]>>> = Mutex::new(Vec::new());

fn claimed() -> MutexGuard<'static, Vec<Arc<[SocketNames]>>> {
    // Names are added and removed whole, also by a thread that panics.
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl NameClaim {
    /// # Errors
    ///
    /// `AddrInUse`: there is a socket with one of the names.
    pub(crate) fn new(wanted: impl Into<Arc<[SocketNames]>>) -> io::Result<Self> {
        let wanted = wanted.into();
        let mut claimed = claimed();
        let mut taken = claimed.iter().flat_map(|names| names.iter());
        if taken.any(|taken| wanted.iter().any(|wanted| wanted.overlaps(taken))) {
            let message = "another socket of this process has the name or address, or a guest of it reaches it: \
                           choose another name, directory or port";
            return Err(io::Error::new(ErrorKind::AddrInUse, message));
        }
        claimed.push(Arc::clone(&wanted));
        Ok(Self(wanted))
    }
}

impl Drop for NameClaim {
    fn drop(&mut self) {
        claimed().retain(|names| !Arc::ptr_eq(names, &self.0));
    }
}

/// Directory and name of a path. The name is empty if the path ends in a slash, which `Path` does
/// not mind.
pub(crate) fn split(path: &Path) -> (&Path, &OsStr) {
    let bytes = path.as_os_str().as_bytes();
    let slash = bytes.iter().rposition(|byte| *byte == b'/');
    let (directory, name) = bytes.split_at(slash.map_or(0, |at| at + 1));
    let directory = if directory.is_empty() {
        b"."
    } else {
        directory
    };
    let path = Path::new(OsStr::from_bytes(directory));
    (path, OsStr::from_bytes(name))
}

/// Whether a name is `base`, `_` and a port as the device writes it: without a sign or zeros before
/// it.
fn is_port_of(name: &[u8], base: &[u8]) -> bool {
    let digits = name
        .strip_prefix(base)
        .and_then(|rest| rest.strip_prefix(b"_"));
    digits
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .is_some_and(|digits| {
            digits
                .parse::<u32>()
                .is_ok_and(|port| port.to_string() == digits)
        })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;
    use proptest::sample::select;
    use proptest::test_runner::TestRunner;
    use tempfile::TempDir;

    use super::*;

    /// Two directories, and other ways to the first.
    const DIRECTORIES: [&str; 5] = ["one/", "two/", "one//", "two/../one/./", "link/"];

    fn directories() -> TempDir {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("one")).unwrap();
        fs::create_dir(dir.path().join("two")).unwrap();
        symlink("one", dir.path().join("link")).unwrap();
        dir
    }

    /// What a process uses, as text.
    #[derive(Clone, Debug)]
    struct Name {
        directory: &'static str,
        name: String,
        each_port: bool,
    }

    impl Name {
        fn names(&self, dir: &TempDir) -> SocketNames {
            let path = dir.path().join(self.directory).join(&self.name);
            if self.each_port {
                SocketNames::each_port(&path)
            } else {
                SocketNames::one(&path)
            }
        }

        /// Every file, of the ports that there are in these tests.
        fn files(&self) -> BTreeSet<String> {
            let directory = if self.directory == "two/" {
                "two"
            } else {
                "one"
            };
            let ports = (0..100).chain([u32::MAX - 1, u32::MAX]);
            let name = &self.name;
            if self.each_port {
                ports
                    .map(|port| format!("{directory}/{name}_{port}"))
                    .collect()
            } else {
                [format!("{directory}/{name}")].into()
            }
        }
    }

    fn used() -> impl Strategy<Value = Name> {
        const ENDS: [&str; 6] = [
            "_",
            "_seqpacket",
            "_4294967295",
            "_4294967296",
            "_+5",
            "_5 ",
        ];
        let end = prop_oneof![
            3 => Just(String::new()),
            3 => "_0?[0-9]{1,2}",
            2 => select(&ENDS[..]).prop_map(str::to_owned),
        ];
        let name = ("a|a|b|a_5", end).prop_map(|(base, end)| base + &end);
        (select(&DIRECTORIES[..]), name, any::<bool>()).prop_map(|(directory, name, each_port)| {
            Name {
                directory,
                name,
                each_port,
            }
        })
    }

    #[test]
    fn t125_names_overlap_where_one_file_is_of_both() {
        let dir = directories();
        let mut runner = TestRunner::new(ProptestConfig::with_cases(1000));
        let both = |(one, other): (Name, Name)| {
            // Two ways for a guest to reach the same are meant.
            let meant = one.each_port && other.each_port;
            let common = !meant && !one.files().is_disjoint(&other.files());
            let (one, other) = (one.names(&dir), other.names(&dir));
            prop_assert_eq!(one.overlaps(&other), common);
            prop_assert_eq!(other.overlaps(&one), common);
            Ok(())
        };
        runner.run(&(used(), used()), both).unwrap();
    }

    #[test]
    fn t125_what_is_dialled_is_what_a_link_leads_to_and_no_listener_may_be_there() {
        let dir = directories();
        let path = |name: &str| dir.path().join(name);
        symlink("one/a", path("first")).unwrap();
        symlink("first", path("second")).unwrap();
        symlink("loop", path("loop")).unwrap();
        let dialled = SocketNames::dialled(&path("second"));
        assert!(dialled.overlaps(&SocketNames::one(&path("one/a"))));
        assert!(SocketNames::one(&path("link/a")).overlaps(&dialled));
        for meant in [
            SocketNames::dialled(&path("one/a")),
            SocketNames::each_port(&path("one/a")),
            SocketNames::one(&path("second")),
            SocketNames::dialled(&path("loop")),
        ] {
            assert!(
                !dialled.overlaps(&meant) && !meant.overlaps(&dialled),
                "{meant:?}"
            );
        }
    }

    #[test]
    fn t125_a_relative_path_is_the_absolute_one() {
        let here = std::env::current_dir().unwrap();
        let names = SocketNames::one(Path::new("socket"));
        assert!(names.overlaps(&SocketNames::one(&here.join("socket"))));
        assert!(
            SocketNames::each_port(&here.join("vm")).overlaps(&SocketNames::one(Path::new("vm_0")))
        );
    }

    #[test]
    fn t125_a_directory_that_is_missing_is_known_by_its_path() {
        let one = |path| SocketNames::one(Path::new(path));
        assert!(one("/nowhere/a").overlaps(&one("/nowhere/a")));
        assert!(!one("/nowhere/a").overlaps(&one("/elsewhere/a")));
    }

    #[test]
    fn t125_a_name_belongs_to_one_socket_and_is_free_after_it() {
        let vm = Path::new("/nowhere/vm");
        let first = NameClaim::new([SocketNames::one(vm), SocketNames::each_port(vm)]).unwrap();
        let service = || NameClaim::new([SocketNames::one(Path::new("/nowhere/vm_1"))]);
        assert_eq!(service().unwrap_err().kind(), ErrorKind::AddrInUse);
        // Messages as well as streams.
        NameClaim::new([SocketNames::each_port(vm)]).unwrap();
        drop(first);
        service().unwrap();
    }

    #[test]
    fn t126_short_and_relative_paths_are_split_into_directory_and_name() {
        for (path, directory, name) in [
            ("s", ".", "s"),
            ("./s", "./", "s"),
            ("/s", "/", "s"),
            ("a/b/s", "a/b/", "s"),
        ] {
            let expected = (Path::new(directory), OsStr::new(name));
            assert_eq!(split(Path::new(path)), expected);
        }
    }
}
