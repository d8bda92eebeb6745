// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The file in the file system that leads to a listening Unix socket.
//!
//! # Which process gets a name
//!
//! A process that dies leaves its file behind. The next process that wants the name tries to
//! connect; if no process answers, the file is stale and is replaced. If any number of processes
//! and threads want the name, exactly one gets it. Three rules ensure this:
//!
//! 1. A file is created, replaced or removed only under the lock of its directory. The lock is
//!    `flock`, which leaves no file and ends with its process. If a name is free or its file is
//!    stale, this is therefore still true at the next step.
//! 2. A socket first listens under a name that cannot be guessed, and then gets its real name with
//!    a single `rename`. A process that finds the file can therefore connect, and the next process
//!    that gets the lock finds a socket that answers.
//! 3. A file is removed by the process that created it, if its device and inode are still the same.
//!
//! A process can die at any step, and its lock ends with it. Before the `rename`, it leaves a file
//! named `.vsock-` and 16 digits, which does no harm. After the `rename`, it leaves a stale file.
//!
//! # Interference by other processes
//!
//! A process that can read the directory can take the lock and keep it. Binding therefore waits for
//! the lock for at most [`LOCK_TIMEOUT`], and then takes the name without it and logs a warning.
//! This is the only case in which two processes that want the same stale name at the same time can
//! both get it. After such a timeout, the next attempts in this directory wait only for
//! [`CONTENDED_LOCK_TIMEOUT`] until one gets the lock, so binding many names is delayed only once.
//! A file is never removed without the lock: it stays and becomes stale. A device that stops has
//! several files to remove, so a removal waits only for [`REMOVAL_LOCK_TIMEOUT`].
//!
//! A process that can write to the directory needs no lock to create the file first or to remove
//! it, so only processes that may speak for the guest should have this right. The socket of a
//! program that does not use the lock is not replaced once it listens, unless that program replaces
//! a stale file between our check and our `rename`.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use rustix::net::{self, SocketAddrUnix, SocketType};

use super::guarded_socket::GuardedSocket;
use super::socket_access::SocketAccess;
use super::socket_names::split;

/// How long to wait for the lock of a directory. Processes that follow the rules hold it for less
/// than a millisecond.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to wait for the lock to remove a file. A file that stays does no harm.
const REMOVAL_LOCK_TIMEOUT: Duration = Duration::from_millis(200);

/// How long to wait for a lock after an earlier attempt timed out.
const CONTENDED_LOCK_TIMEOUT: Duration = Duration::from_millis(20);

/// The pause before the next attempt to take the lock.
const PAUSE: Duration = Duration::from_millis(1);

/// The file of a listening socket. Dropping it removes the file, if it is still the one that was
/// created. The socket must stay open until then, so that no other file gets the same inode.
#[derive(Debug)]
pub(crate) struct SocketFile(Arc<Made>);

/// A handle that removes the file of a backend's socket before the backend is dropped. For programs
/// that end while something delays the backend's drop, or that do not drop it at all.
///
/// ```
/// use vsock_sockets::UnixBackend;
///
/// # fn main() -> std::io::Result<()> {
/// # let directory = std::env::temp_dir().join(format!("vsock-remove-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// let backend = UnixBackend::bind(directory.join("vm.vsock"))?;
/// let remover = backend.file_remover();
/// std::thread::spawn(move || remover.remove()).join().unwrap();
/// assert!(!backend.path().exists());
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SocketFileRemover(Arc<Made>);

#[derive(Debug)]
struct Made {
    path: PathBuf,
    /// The identity of the file that this process created. `None` if another process created it.
    identity: Option<Identity>,
    /// Ensures a single removal: after it, another file may get the same inode.
    removed: Once,
}

/// A file's device and inode. They show whether another process has taken the path.
type Identity = (u64, u64);

impl SocketFile {
    /// Binds a socket that has no name yet to `path`, and listens. A stale file at `path` is
    /// replaced. A socket that answers, or a file that is not a socket, stays and is an error. The
    /// file gets its permissions before any process can connect.
    pub(crate) fn bind(path: &Path, socket: &impl AsFd, access: SocketAccess) -> io::Result<Self> {
        access.check()?;
        // Check the length here, because `rename` would accept a longer name.
        let split = SocketAddr::from_pathname(path)
            .ok()
            .and_then(|_| SplitPath::of(path));
        let split = split.ok_or_else(|| {
            let message = "invalid socket path: expected 1 to 107 bytes that end in a file name";
            io::Error::new(ErrorKind::InvalidInput, message)
        })?;
        let no_directory = "the directory does not exist; create it first";
        let directory = match open(fs::CWD, split.directory, OFlags::PATH) {
            Err(Errno::NOENT) => return Err(io::Error::new(ErrorKind::NotFound, no_directory)),
            opened => opened?,
        };
        let lock = Lock::take(&directory, Path::new("."), LOCK_TIMEOUT);
        if let Err(error) = &lock {
            log::warn!(
                "{}: cannot lock the directory, so another process could take the same name at the \
                 same time: {error}",
                path.display()
            );
        }
        let there = split.look(&directory)?;
        // From here on an error removes the temporary file. The socket listens before it gets the
        // name, so a process that finds the name can connect.
        let temporary = Temporary::bind(&split, &directory, socket)?;
        access.grant(&directory, &temporary.name)?;
        // A negative backlog means the longest that the system allows.
        net::listen(socket, -1)?;
        let identity = temporary.give_name(split.name, there)?;
        Ok(Self::at(path, Some(identity)))
    }

    /// Refers to the file of a socket that another process created and will remove.
    pub(crate) fn of_another(path: &Path) -> Self {
        Self::at(path, None)
    }

    fn at(path: &Path, identity: Option<Identity>) -> Self {
        Self(Arc::new(Made {
            path: path.to_owned(),
            identity,
            removed: Once::new(),
        }))
    }

    /// Returns the path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }

    /// Returns a handle that can remove the file earlier.
    pub(crate) fn remover(&self) -> SocketFileRemover {
        SocketFileRemover(Arc::clone(&self.0))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.0.remove();
    }
}

impl SocketFileRemover {
    /// Removes the file, if it is still the one that the backend created. Waits at most 200 ms for
    /// the lock of the directory. Logs a warning if the file cannot be removed.
    pub fn remove(&self) {
        self.0.remove();
    }
}

impl Made {
    fn remove(&self) {
        self.removed.call_once(|| {
            if let Err(error) = self.unlink() {
                log::warn!(
                    "cannot remove the socket {}; the next program that binds it replaces it: \
                     {error}",
                    self.path.display()
                );
            }
        });
    }

    fn unlink(&self) -> io::Result<()> {
        let (Some(made), Some(split)) = (self.identity, SplitPath::of(&self.path)) else {
            return Ok(());
        };
        let lock = match Lock::take(fs::CWD, split.directory, REMOVAL_LOCK_TIMEOUT) {
            // The directory was removed, and the file with it.
            Err(Errno::NOENT) => return Ok(()),
            lock => lock?,
        };
        let identity = fs::statat(&lock.directory, split.name, AtFlags::SYMLINK_NOFOLLOW)
            .map(|stat| identity(&stat));
        if identity == Ok(made) {
            fs::unlinkat(&lock.directory, split.name, AtFlags::empty())?;
        }
        Ok(())
    }
}

/// A path, split into directory and name.
struct SplitPath<'p> {
    path: &'p Path,
    directory: &'p Path,
    name: &'p OsStr,
}

/// The state of a path that can be taken.
#[derive(Clone, Copy)]
enum There {
    /// There is no file.
    Nothing,
    /// There is the socket of a process that no longer listens.
    Stale,
}

impl<'p> SplitPath<'p> {
    /// Splits a path. Returns `None` if it does not end in a name.
    fn of(path: &'p Path) -> Option<Self> {
        let (directory, name) = split(path);
        (!name.is_empty()).then_some(Self {
            path,
            directory,
            name,
        })
    }

    /// Returns the state of the path, or an error if the name cannot be taken.
    fn look(&self, directory: &OwnedFd) -> io::Result<There> {
        match fs::statat(directory, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(There::Nothing),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Socket => {
                return Err(in_use("the path exists and is not a socket"));
            }
            stat => stat?,
        };
        what_answers(GuardedSocket::connect(self.path, SocketType::STREAM).map(drop))
    }
}

/// Returns the state of a path with a socket, given the result of connecting to it.
fn what_answers(connected: Result<(), Errno>) -> io::Result<There> {
    match connected {
        Err(Errno::CONNREFUSED) => Ok(There::Stale),
        Err(Errno::NOENT) => Ok(There::Nothing),
        // A socket with a full backlog is in use too, and so is a socket of another type.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => {
            Err(in_use("another process listens on this socket"))
        }
        Err(error) => {
            let error = io::Error::from(error);
            let message = format!("cannot determine whether another process listens here: {error}");
            Err(io::Error::new(error.kind(), message))
        }
    }
}

/// The directories for whose lock the last attempt timed out.
static CONTENDED: Mutex<BTreeSet<Identity>> = Mutex::new(BTreeSet::new());

fn contended() -> MutexGuard<'static, BTreeSet<Identity>> {
    // The set is consistent even after a panic.
    CONTENDED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lock of a directory. Dropping it releases the lock.
struct Lock {
    directory: OwnedFd,
}

impl Lock {
    /// Waits for the lock for up to `timeout`, or for less if the last attempt timed out.
    ///
    /// A blocking `flock` has no timeout, so this polls. By the rules the lock is held so briefly
    /// that a second attempt is rare.
    fn take(from: impl AsFd, path: &Path, timeout: Duration) -> Result<Self, Errno> {
        let directory = open(from, path, OFlags::RDONLY)?;
        let identity = identity(&fs::fstat(&directory)?);
        let timeout = if contended().contains(&identity) {
            CONTENDED_LOCK_TIMEOUT
        } else {
            timeout
        };
        let started = Instant::now();
        let locked = loop {
            match fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK | Errno::INTR) if started.elapsed() < timeout => {
                    thread::park_timeout(PAUSE);
                }
                locked => break locked,
            }
        };
        if locked == Err(Errno::WOULDBLOCK) {
            contended().insert(identity);
        } else {
            contended().remove(&identity);
        }
        locked.map(|()| Self { directory })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Unlock explicitly: closing the descriptor is not enough if the process has forked
        // meanwhile and the child holds a copy.
        if let Err(error) = fs::flock(&self.directory, FlockOperation::Unlock) {
            log::debug!("cannot unlock a directory: {error}");
        }
    }
}

/// The file of a socket under a temporary name. Dropping it removes the file.
struct Temporary<'d> {
    directory: &'d OwnedFd,
    name: OsString,
}

impl<'d> Temporary<'d> {
    /// Binds the socket to a temporary name. No process can connect before the socket listens.
    fn bind(split: &SplitPath<'_>, directory: &'d OwnedFd, socket: &impl AsFd) -> io::Result<Self> {
        let name = OsString::from(unguessable());
        // The temporary name can be longer than the real one. If the path is too long with it,
        // reach the directory through its descriptor.
        let short = || Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
        let path = Some(split.directory.join(&name))
            // This also rejects 108 bytes without a terminator, which Linux would accept.
            .filter(|path| SocketAddr::from_pathname(path).is_ok())
            .unwrap_or_else(|| short().join(&name));
        let address = SocketAddrUnix::new(path)?;
        net::bind(socket, &address)?;
        Ok(Self { directory, name })
    }

    /// Renames the file to its real name, and replaces a stale file.
    fn give_name(self, name: &OsStr, there: There) -> io::Result<Identity> {
        let stat = fs::statat(self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        let (directory, own) = (self.directory, &self.name);
        let replace = || fs::renameat(directory, own, directory, name);
        let named = match there {
            There::Stale => replace(),
            // If another process has created a file since the check, without the lock, keep it.
            There::Nothing => {
                let flags = RenameFlags::NOREPLACE;
                match fs::renameat_with(directory, own, directory, name, flags) {
                    // Not every file system supports the flag. The lock gives the same guarantee.
                    Err(Errno::INVAL | Errno::NOSYS) => replace(),
                    named => named,
                }
            }
        };
        match named {
            Err(Errno::EXIST) => Err(in_use("another process has just taken this name")),
            named => Ok(named.map(|()| identity(&stat))?),
        }
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        // After the rename, there is no file with the temporary name.
        match fs::unlinkat(self.directory, &self.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => {
                let name = Path::new(&self.name).display();
                log::debug!("cannot remove {name}: {error}");
            }
        }
    }
}

/// Returns a name that no other process uses or can guess.
fn unguessable() -> String {
    format!(".vsock-{:016x}", RandomState::new().hash_one(()))
}

fn open(from: impl AsFd, directory: &Path, how: OFlags) -> Result<OwnedFd, Errno> {
    let flags = how | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::openat(from, directory, flags, Mode::empty())
}

fn identity(stat: &Stat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

fn in_use(found: &str) -> io::Error {
    io::Error::new(ErrorKind::AddrInUse, format!("{found}; use another path"))
}

#[cfg(test)]
mod tests {
    use std::fs as files;
    use std::hint;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::sync::Barrier;

    use rustix::net::SocketFlags;
    use tempfile::TempDir;

    use super::*;

    fn bind(path: &Path) -> io::Result<(GuardedSocket, SocketFile)> {
        let socket = GuardedSocket::new(SocketType::STREAM, SocketFlags::empty())?;
        let file = SocketFile::bind(path, &socket, SocketAccess::default())?;
        Ok((socket, file))
    }

    /// A directory, and a path in it.
    fn path_in_dir() -> (TempDir, PathBuf) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("socket");
        (dir, path)
    }

    fn kind(refused: io::Result<(GuardedSocket, SocketFile)>) -> ErrorKind {
        refused.unwrap_err().kind()
    }

    fn count(dir: &TempDir) -> usize {
        files::read_dir(dir.path()).unwrap().count()
    }

    #[test]
    fn a_bound_socket_has_one_file_and_drop_removes_it() {
        let (dir, path) = path_in_dir();
        let (_listener, file) = bind(&path).unwrap();
        assert_eq!(count(&dir), 1);
        let _client = UnixStream::connect(&path).unwrap();
        drop(file);
        assert_eq!(count(&dir), 0);
    }

    fn connect_once_seen(path: &Path) -> io::Result<()> {
        while !path.exists() {
            hint::spin_loop();
        }
        UnixStream::connect(path).map(drop)
    }

    #[test]
    fn t99_a_process_that_sees_the_file_can_connect() {
        let (_dir, path) = path_in_dir();
        for _ in 0..50 {
            let watched = path.clone();
            let watcher = thread::spawn(move || connect_once_seen(&watched));
            let bound = bind(&path).unwrap();
            watcher.join().unwrap().unwrap();
            drop(bound);
        }
    }

    /// Leaves a stale file, as a process that dies does.
    fn make_stale(path: &Path) {
        drop(UnixListener::bind(path).unwrap());
    }

    #[test]
    fn t126_one_of_many_processes_gets_a_stale_name() {
        const ROUNDS: usize = 1000;
        const BINDERS: usize = 4;
        let (dir, path) = path_in_dir();
        let start = Barrier::new(BINDERS);
        for _ in 0..ROUNDS {
            make_stale(&path);
            let want = || {
                start.wait();
                bind(&path)
            };
            let bound = thread::scope(|scope| {
                let threads = [(); BINDERS].map(|()| scope.spawn(want));
                threads.map(|thread| thread.join().unwrap())
            });
            let (won, lost): (Vec<_>, Vec<_>) = bound.into_iter().partition(Result::is_ok);
            assert_eq!(won.len(), 1, "{won:?}");
            let in_use = |lost| kind(lost) == ErrorKind::AddrInUse;
            assert!(lost.into_iter().all(in_use));
            drop(won);
            assert_eq!(count(&dir), 0);
        }
    }

    #[test]
    fn t126_a_file_is_removed_only_by_the_socket_that_created_it() {
        let (dir, path) = path_in_dir();
        let (listener, file) = bind(&path).unwrap();
        drop(listener);
        let (_listener, successor) = bind(&path).unwrap();
        drop(file);
        UnixStream::connect(&path).unwrap();
        drop(successor);
        assert_eq!(count(&dir), 0);
    }

    #[test]
    fn t126_a_path_of_any_length_up_to_the_limit_can_be_bound() {
        let dir = TempDir::new().unwrap();
        let base = dir.path().as_os_str().len();
        for len in base + 2..=107 {
            let name = "x".repeat(len - base - 1);
            // Paths with a long name, and paths with a long directory.
            let mut paths = vec![dir.path().join(&name)];
            if len >= base + 4 {
                let deep = dir.path().join(&name[..name.len() - 2]);
                files::create_dir(&deep).unwrap();
                paths.push(deep.join("s"));
            }
            for path in paths {
                assert_eq!(path.as_os_str().len(), len);
                make_stale(&path);
                let bound = bind(&path).unwrap();
                UnixStream::connect(&path).unwrap();
                drop(bound);
                assert!(!path.exists());
            }
        }
    }

    #[test]
    fn an_invalid_path_is_refused() {
        let dir = TempDir::new().unwrap();
        let long = dir
            .path()
            .join("x".repeat(107 - dir.path().as_os_str().len()));
        let no_name = dir.path().join("");
        for path in [&*long, &*no_name, Path::new(""), Path::new("\0s")] {
            assert_eq!(kind(bind(path)), ErrorKind::InvalidInput, "{path:?}");
        }
    }

    #[test]
    fn t126_a_lock_that_is_never_released_does_not_prevent_binding() {
        let (dir, path) = path_in_dir();
        make_stale(&path);
        let lock = Lock::take(fs::CWD, dir.path(), LOCK_TIMEOUT).unwrap();
        let (listener, file) = bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        drop((listener, file));
        assert!(path.exists(), "without the lock, the file is not removed");
        drop(lock);
        drop(bind(&path).unwrap());
        assert_eq!(count(&dir), 0);
    }

    #[test]
    fn t126_a_socket_is_in_use_only_if_it_answers() {
        let (_dir, path) = path_in_dir();
        for socket_type in [SocketType::STREAM, SocketType::SEQPACKET] {
            let socket = GuardedSocket::new(socket_type, SocketFlags::empty()).unwrap();
            let file = SocketFile::bind(&path, &socket, SocketAccess::default()).unwrap();
            let refused = bind(&path).unwrap_err();
            assert_eq!(
                refused.to_string(),
                "another process listens on this socket; use another path"
            );
            drop(file);
        }
        // No write permission for another user's socket, and no descriptor left.
        for error in [Errno::ACCESS, Errno::MFILE] {
            let refused = what_answers(Err(error)).err().unwrap();
            assert_eq!(refused.kind(), io::Error::from(error).kind());
            let text = refused.to_string();
            assert!(text.starts_with("cannot determine whether"), "{text}");
        }
    }

    #[test]
    fn t126_a_lock_that_is_never_released_delays_only_the_first_name() {
        let dir = TempDir::new().unwrap();
        let lock = Lock::take(fs::CWD, dir.path(), Duration::MAX).unwrap();
        let directory = identity(&fs::stat(dir.path()).unwrap());
        // If each were delayed, they would take twice the time that even a slow machine needs to
        // bind this many.
        const NAMES: u32 = 20;
        let started = Instant::now();
        let names = (0..NAMES).map(|name| {
            let bound = bind(&dir.path().join(name.to_string())).unwrap();
            assert!(contended().contains(&directory), "name {name}");
            bound
        });
        drop(names.collect::<Vec<_>>());
        let elapsed = started.elapsed();
        assert!(elapsed >= LOCK_TIMEOUT, "{elapsed:?}");
        assert!(elapsed < NAMES / 2 * LOCK_TIMEOUT, "{elapsed:?}");
        drop(lock);
        drop(bind(&dir.path().join("next")).unwrap());
        assert!(
            !contended().contains(&directory),
            "the lock was taken again"
        );
    }
}
