// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The socket names that one process uses, and the check that they do not conflict.
//!
//! If a port of one guest were the socket of another guest, the first guest could talk to the
//! second as if it were the host. If the port were the socket for a VMM, the guest could talk
//! vhost-user to a device.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::tcp_names::TcpUse;

/// The directory of a name.
#[derive(Clone, Debug)]
enum Directory {
    Found(Found),
    /// The directory does not exist, so no socket can be bound in it either.
    Missing(PathBuf),
}

/// The identity of a directory, which does not depend on the spelling of its path.
#[derive(Clone, Debug)]
struct Found {
    /// The path without symbolic links.
    path: PathBuf,
    device: u64,
    inode: u64,
    /// `None` if the file system does not record it.
    created: Option<SystemTime>,
}

/// The files that a process uses in a directory.
#[derive(Clone, Debug)]
enum Files {
    /// The file with this name, on which the process listens.
    One(Vec<u8>),
    /// The files with this name, `_` and a port in decimal, which a guest can reach.
    EachPort(Vec<u8>),
    /// The file with this name, which a guest can reach.
    Dialled(Vec<u8>),
}

/// The names that a process uses.
#[derive(Clone, Debug)]
enum Used {
    Files { directory: Directory, files: Files },
    Tcp(TcpUse),
}

/// The name of a socket on which a process listens, or the names of the sockets that one of its
/// guests can reach. Names are paths or TCP addresses.
///
/// A backend or a [`NamedListener`](crate::NamedListener) cannot be created if its names overlap
/// with those of another one in the process. A program with many virtual machines can check this in
/// advance:
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
    /// A listening socket at `path`.
    #[must_use]
    pub fn one(path: &Path) -> Self {
        Self::of(path, Files::One)
    }

    /// The sockets at `path` followed by `_` and any port, which a guest can reach.
    #[must_use]
    pub fn each_port(path: &Path) -> Self {
        Self::of(path, Files::EachPort)
    }

    /// The socket at `path`, which a guest reaches as one of its ports. If `path` is a symbolic
    /// link, this is the socket to which the link leads now.
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
        let directory = Directory::of(directory);
        let files = files(name.as_bytes().to_vec());
        Self(Used::Files { directory, files })
    }

    /// Returns whether the two have a socket in common and at least one of them listens on it. A
    /// guest can reach the same sockets in two ways, for streams and for messages: this is not an
    /// overlap.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (
                Used::Files { directory, files },
                Used::Files {
                    directory: other_directory,
                    files: other_files,
                },
            ) => files.overlap(other_files) && directory.is_same(other_directory),
            (Used::Tcp(one), Used::Tcp(other)) => one.overlaps(*other),
            _ => false,
        }
    }
}

impl Directory {
    fn of(path: &Path) -> Self {
        match fs::metadata(path) {
            Ok(found) => Self::Found(Found {
                path: fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()),
                device: found.dev(),
                inode: found.ino(),
                created: found.created().ok(),
            }),
            Err(_) => Self::Missing(path.to_owned()),
        }
    }

    /// Returns whether both are the same directory. In doubt, they are: a guest must not reach the
    /// socket of another because an overlap is missed.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Found(one), Self::Found(other)) => {
                // A new directory can have the inode of a removed one, whose socket is still in
                // use. A different creation time alone does not prove this: that of a directory in
                // an overlay file system changes when the first file is created in it.
                (one.device, one.inode) == (other.device, other.inode)
                    && (one.created == other.created || (one.exists() && other.exists()))
            }
            (Self::Missing(one), Self::Missing(other)) => one == other,
            _ => false,
        }
    }
}

impl Found {
    /// Returns whether the path still leads to a directory with this inode.
    fn exists(&self) -> bool {
        match fs::metadata(&self.path) {
            Ok(now) => (now.dev(), now.ino()) == (self.device, self.inode),
            Err(error) => error.kind() != ErrorKind::NotFound,
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

/// The maximum number of symbolic links to follow, the same as the kernel's.
const LINKS: usize = 40;

/// Follows the symbolic links at the end of a path, even if the last one leads nowhere.
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

/// A claim on names. While it exists, no other part of the process can claim a name that overlaps.
#[derive(Debug)]
pub(crate) struct NameClaim(Arc<[SocketNames]>);

static CLAIMED: Mutex<Vec<Arc<[SocketNames]>>> = Mutex::new(Vec::new());

fn claimed() -> MutexGuard<'static, Vec<Arc<[SocketNames]>>> {
    // The list is consistent even after a panic: names are added and removed in one step.
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl NameClaim {
    /// Claims these names.
    ///
    /// # Errors
    ///
    /// `AddrInUse`: one of the names overlaps with a claimed one.
    pub(crate) fn new(wanted: impl Into<Arc<[SocketNames]>>) -> io::Result<Self> {
        let wanted = wanted.into();
        let mut claimed = claimed();
        let mut taken = claimed.iter().flat_map(|names| names.iter());
        if taken.any(|taken| wanted.iter().any(|wanted| wanted.overlaps(taken))) {
            let message = "another socket of this process has this name or address, or one of its \
                           guests can reach it; choose another name, directory or port";
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

/// Splits a path into directory and name. Unlike with `Path`'s own methods, the name is empty if
/// the path ends in a slash.
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

/// Returns whether a name is `base`, `_` and a port in the form that the device uses: without a
/// sign or leading zeros.
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
    use std::time::Duration;

    use proptest::prelude::*;
    use proptest::sample::select;
    use proptest::test_runner::TestRunner;
    use tempfile::TempDir;
    use vsock_compliance::poll::{Deadline, wait_until};
    use vsock_properties::cases;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// Two directories, and other paths to the first.
    const DIRECTORIES: [&str; 5] = ["one/", "two/", "one//", "two/../one/./", "link/"];

    fn directories() -> TempDir {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("one")).unwrap();
        fs::create_dir(dir.path().join("two")).unwrap();
        symlink("one", dir.path().join("link")).unwrap();
        dir
    }

    /// ext4 gives a new directory the inode of the removed one.
    #[test]
    fn t125_a_directory_with_the_inode_of_a_removed_one_has_free_names() {
        let parent = TempDir::new().unwrap();
        let create = |name| {
            let dir = parent.path().join(name);
            fs::create_dir(&dir).unwrap();
            fs::metadata(&dir).unwrap().created().ok()
        };
        let claim = |name| NameClaim::new([SocketNames::one(&parent.path().join(name))]);
        let Some(old) = create("old") else {
            return;
        };
        let _old_claim = claim("old/socket").unwrap();
        claim("old/socket").unwrap_err();
        fs::remove_dir(parent.path().join("old")).unwrap();
        // The clock of a file system is coarse.
        wait_until(Deadline::after(SOON), || {
            let is_later = create("new") != Some(old);
            if !is_later {
                fs::remove_dir(parent.path().join("new")).unwrap();
            }
            is_later
        })
        .unwrap();
        let _new_claim = claim("new/socket").unwrap();
    }

    /// An overlay file system copies a directory before it creates the first file in it.
    #[test]
    fn t125_a_directory_stays_the_same_when_its_creation_time_changes() {
        let dir = directories();
        let mut earlier = SocketNames::each_port(&dir.path().join("link/a"));
        let Used::Files {
            directory: Directory::Found(found),
            ..
        } = &mut earlier.0
        else {
            panic!("{earlier:?}");
        };
        found.created = Some(SystemTime::UNIX_EPOCH);
        let port = SocketNames::one(&dir.path().join("one/a_5"));
        assert!(earlier.overlaps(&port) && port.overlaps(&earlier));
    }

    /// A name that a process uses, as text.
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

        /// Returns every file that has the name, for the ports that occur in these tests.
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
    fn t125_names_overlap_if_they_have_a_file_in_common() {
        let dir = directories();
        let mut runner = TestRunner::new(ProptestConfig {
            source_file: Some(file!()), // says where a failure is kept
            ..cases(1000)
        });
        let both = |(one, other): (Name, Name)| {
            // Two ways for a guest to reach the same sockets do not overlap.
            let reached = one.each_port && other.each_port;
            let common = !reached && !one.files().is_disjoint(&other.files());
            let (one, other) = (one.names(&dir), other.names(&dir));
            prop_assert_eq!(one.overlaps(&other), common);
            prop_assert_eq!(other.overlaps(&one), common);
            Ok(())
        };
        runner.run(&(used(), used()), both).unwrap();
    }

    #[test]
    fn t125_a_dialled_name_is_the_one_to_which_a_link_leads() {
        let dir = directories();
        let path = |name: &str| dir.path().join(name);
        symlink("one/a", path("first")).unwrap();
        symlink("first", path("second")).unwrap();
        symlink("loop", path("loop")).unwrap();
        let dialled = SocketNames::dialled(&path("second"));
        assert!(dialled.overlaps(&SocketNames::one(&path("one/a"))));
        assert!(SocketNames::one(&path("link/a")).overlaps(&dialled));
        for allowed in [
            SocketNames::dialled(&path("one/a")),
            SocketNames::each_port(&path("one/a")),
            SocketNames::one(&path("second")),
            SocketNames::dialled(&path("loop")),
        ] {
            assert!(
                !dialled.overlaps(&allowed) && !allowed.overlaps(&dialled),
                "{allowed:?}"
            );
        }
    }

    #[test]
    fn t125_a_relative_path_overlaps_with_the_absolute_one() {
        let here = std::env::current_dir().unwrap();
        let names = SocketNames::one(Path::new("socket"));
        assert!(names.overlaps(&SocketNames::one(&here.join("socket"))));
        assert!(
            SocketNames::each_port(&here.join("vm")).overlaps(&SocketNames::one(Path::new("vm_0")))
        );
    }

    #[test]
    fn t125_a_missing_directory_is_compared_by_its_path() {
        let one = |path| SocketNames::one(Path::new(path));
        assert!(one("/nowhere/a").overlaps(&one("/nowhere/a")));
        assert!(!one("/nowhere/a").overlaps(&one("/elsewhere/a")));
    }

    #[test]
    fn t125_a_claimed_name_is_free_again_after_the_claim() {
        let vm = Path::new("/nowhere/vm");
        let first = NameClaim::new([SocketNames::one(vm), SocketNames::each_port(vm)]).unwrap();
        let service = || NameClaim::new([SocketNames::one(Path::new("/nowhere/vm_1"))]);
        assert_eq!(service().unwrap_err().kind(), ErrorKind::AddrInUse);
        // A second backend, for messages, reaches the same ports.
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
