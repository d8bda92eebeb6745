// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The file by which others find a listening Unix socket.
//!
//! # Which process gets a name
//!
//! A process that dies leaves its file. The next process that wants the name connects to it; if no
//! process answers, the file is stale and is replaced. Of any number of processes and threads that
//! want the name, exactly one gets it. That takes three rules:
//!
//! 1. A file is made, replaced or removed only with the lock of its directory (`flock`, which
//!    leaves no file, and ends with its process). So what is seen at a name, nothing or a stale
//!    file, is still there at the next step.
//! 2. A socket listens, under a name that cannot be guessed, before it gets the name that others
//!    look for, by a single `rename`. So a process that finds the file can connect. The next one
//!    that has the lock finds a socket that answers, and leaves it alone.
//! 3. A file is removed by the process that made it, if it still has the same device and inode.
//!
//! A process may die at any step. The lock goes with it. Before the `rename` it leaves a file named
//! `.vsock-` and 16 digits, which does no harm; after it, a stale file.
//!
//! # What others can do
//!
//! A process that can read the directory can lock it, and keep the lock. So the lock is waited for,
//! for [`LOCK_TIMEOUT`] at most. Without it, a name is taken nevertheless, with a warning: a lock
//! keeps no name busy. A lock that was not got in time is waited for [`CONTENDED_LOCK_TIMEOUT`]
//! from then on, until the lock was got once more: the lock delays one name, and not each of many.
//! Only then can two processes that want the same stale name at the same time both get it. A file
//! is never removed without the lock: it stays, and is stale. So for a removal, of which a device
//! has several to do when it stops, the lock is waited for only [`REMOVAL_LOCK_TIMEOUT`].
//!
//! A process that can write to the directory can make the file first, or remove it; it needs no
//! lock for that. So only those who may speak for the guest should have that right. A program that
//! does not know of the lock is no danger once it listens: it is not replaced, unless it has itself
//! removed a stale file between our look at it and our `rename`.

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

/// How long to wait for the lock of a directory. By the rules it is taken for less than a
/// millisecond.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// As [`LOCK_TIMEOUT`], to remove a file. That it stays does no harm.
const REMOVAL_LOCK_TIMEOUT: Duration = Duration::from_millis(200);

/// As [`LOCK_TIMEOUT`], for a lock that was not got in time before.
const CONTENDED_LOCK_TIMEOUT: Duration = Duration::from_millis(20);

/// How long to leave the lock to others before the next attempt.
const PAUSE: Duration = Duration::from_millis(1);

/// The file of a listening socket. It is removed on drop, if it is still the one that was made. The
/// socket must live until then: while it does, no other file gets the same inode.
#[derive(Debug)]
pub(crate) struct SocketFile(Arc<Made>);

/// Removes the file of a backend's socket before the backend does: for a program that is to end
/// while something holds the backend up, or without dropping it.
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
    /// `None`: another process has made it.
    identity: Option<Identity>,
    /// Only the first removal counts: after it, another file may have the same inode.
    removed: Once,
}

/// Device and inode: another process may take the path.
type Identity = (u64, u64);

impl SocketFile {
    /// Listens on `path` with a socket that has no name yet. What a dead process has left there is
    /// replaced; a socket that answers, and anything that is no socket, stays and is an error. The
    /// file has its permissions before anyone can connect.
    pub(crate) fn bind(path: &Path, socket: &impl AsFd, access: SocketAccess) -> io::Result<Self> {
        access.check()?;
        // The length is checked here: a rename would take a longer name.
        let split = SocketAddr::from_pathname(path)
            .ok()
            .and_then(|_| SplitPath::of(path));
        let split = split.ok_or_else(|| {
            let message = "the path of a socket has 1 to 107 bytes, and its name at the end";
            io::Error::new(ErrorKind::InvalidInput, message)
        })?;
        let directory = open(fs::CWD, split.directory, OFlags::PATH)?;
        let lock = Lock::take(&directory, Path::new("."), LOCK_TIMEOUT);
        if let Err(error) = &lock {
            log::warn!(
                "{}: cannot lock the directory, so another process may take the name at the same time: {error}",
                path.display()
            );
        }
        let there = split.look(&directory)?;
        let temporary = Temporary::bind(&split, &directory, socket)?;
        access.grant(&directory, &temporary.name)?;
        // With as many waiting as the system lets.
        net::listen(socket, -1)?;
        let identity = temporary.give_name(split.name, there)?;
        Ok(Self::at(path, Some(identity)))
    }

    /// The file of a socket that another process has made, and will remove.
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

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0.path
    }

    /// What can remove the file before its owner does.
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
    /// Removes the file, if it is still the one that the backend has made. Waits at most 200 ms for
    /// the lock of its directory; if the file cannot be removed, the log says so.
    pub fn remove(&self) {
        self.0.remove();
    }
}

impl Made {
    fn remove(&self) {
        self.removed.call_once(|| {
            if let Err(error) = self.unlink() {
                log::warn!(
                    "cannot remove {}, which stays until a program binds it again: {error}",
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
            // The directory has gone, and the file with it.
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

/// Directory and name of a path.
struct SplitPath<'p> {
    path: &'p Path,
    directory: &'p Path,
    name: &'p OsStr,
}

/// What is at a path.
#[derive(Clone, Copy)]
enum There {
    Nothing,
    Stale,
}

impl<'p> SplitPath<'p> {
    /// `None` for a path that ends in a directory.
    fn of(path: &'p Path) -> Option<Self> {
        let (directory, name) = split(path);
        (!name.is_empty()).then_some(Self {
            path,
            directory,
            name,
        })
    }

    /// What is there, if it is free to take.
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

/// What is at a path where there is a socket, by what a connect has led to.
fn what_answers(connected: Result<(), Errno>) -> io::Result<There> {
    match connected {
        Err(Errno::CONNREFUSED) => Ok(There::Stale),
        Err(Errno::NOENT) => Ok(There::Nothing),
        // A socket with a full backlog is in use, too, and so is one of another type.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => {
            Err(in_use("another process listens on this socket"))
        }
        Err(error) => {
            let error = io::Error::from(error);
            let message =
                format!("cannot tell whether another process listens on this socket: {error}");
            Err(io::Error::new(error.kind(), message))
        }
    }
}

/// Directories whose lock was not got in time, and not since.
static CONTENDED: Mutex<BTreeSet<Identity>> = Mutex::new(BTreeSet::new());

fn contended() -> MutexGuard<'static, BTreeSet<Identity>> {
    // A set of numbers is whole after a panic, too.
    CONTENDED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lock of a directory, until it is dropped.
struct Lock {
    directory: OwnedFd,
}

impl Lock {
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
        // A close does not unlock if a child has come to be in between, with a copy of the
        // descriptor.
        if let Err(error) = fs::flock(&self.directory, FlockOperation::Unlock) {
            log::debug!("cannot unlock a directory: {error}");
        }
    }
}

/// A socket's file under a name of its own. It is removed on drop.
struct Temporary<'d> {
    directory: &'d OwnedFd,
    name: OsString,
}

impl<'d> Temporary<'d> {
    /// Makes it. No process can connect before the socket listens.
    fn bind(split: &SplitPath<'_>, directory: &'d OwnedFd, socket: &impl AsFd) -> io::Result<Self> {
        let name = OsString::from(unguessable());
        // The long way round where the path would be too long.
        let short = || Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
        let path = Some(split.directory.join(&name))
            // One of 108 bytes has no end, which the system takes and valgrind does not.
            .filter(|path| SocketAddr::from_pathname(path).is_ok())
            .unwrap_or_else(|| short().join(&name));
        let address = SocketAddrUnix::new(path)?;
        net::bind(socket, &address)?;
        Ok(Self { directory, name })
    }

    /// Gives the file its name, in place of what is there.
    fn give_name(self, name: &OsStr, there: There) -> io::Result<Identity> {
        let stat = fs::statat(self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        let (directory, own) = (self.directory, &self.name);
        let replace = || fs::renameat(directory, own, directory, name);
        let named = match there {
            There::Stale => replace(),
            There::Nothing => {
                let flags = RenameFlags::NOREPLACE;
                match fs::renameat_with(directory, own, directory, name, flags) {
                    // Not every file system can promise that. The lock does.
                    Err(Errno::INVAL | Errno::NOSYS) => replace(),
                    named => named,
                }
            }
        };
        match named {
            Err(Errno::EXIST) => Err(in_use("another process has just taken the name")),
            named => Ok(named.map(|()| identity(&stat))?),
        }
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        // If it has got its name, there is nothing.
        match fs::unlinkat(self.directory, &self.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => {
                let name = Path::new(&self.name).display();
                log::debug!("cannot remove {name}: {error}");
            }
        }
    }
}

/// A name that no other process has, and that none can take beforehand.
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

fn in_use(message: &'static str) -> io::Error {
    io::Error::new(ErrorKind::AddrInUse, message)
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
    fn the_file_has_its_name_alone_and_is_removed_with_it() {
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

    /// Leaves a file, as a process that dies does.
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
    fn t126_a_file_is_removed_only_by_its_maker() {
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
    fn t126_every_path_that_bind_takes_is_taken() {
        let dir = TempDir::new().unwrap();
        let base = dir.path().as_os_str().len();
        for len in base + 2..=107 {
            let name = "x".repeat(len - base - 1);
            // The longest names, and the longest directories.
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
    fn what_bind_does_not_take_is_refused() {
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
    fn t126_a_lock_that_is_never_given_back_keeps_no_name_busy() {
        let (dir, path) = path_in_dir();
        make_stale(&path);
        let lock = Lock::take(fs::CWD, dir.path(), LOCK_TIMEOUT).unwrap();
        let (listener, file) = bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        drop((listener, file));
        assert!(path.exists(), "without the lock nothing is removed");
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
                "another process listens on this socket"
            );
            drop(file);
        }
        // As for a process that may not write to another user's file, or has no descriptor left.
        for error in [Errno::ACCESS, Errno::MFILE] {
            let refused = what_answers(Err(error)).err().unwrap();
            assert_eq!(refused.kind(), io::Error::from(error).kind());
            let text = refused.to_string();
            assert!(text.starts_with("cannot tell whether"), "{text}");
        }
    }

    #[test]
    fn t126_a_lock_that_is_never_given_back_delays_one_name_and_not_each() {
        let dir = TempDir::new().unwrap();
        let lock = Lock::take(fs::CWD, dir.path(), Duration::MAX).unwrap();
        let started = Instant::now();
        let names = (0..3).map(|name| bind(&dir.path().join(name.to_string())).unwrap());
        drop(names.collect::<Vec<_>>());
        let elapsed = started.elapsed();
        assert!(elapsed >= LOCK_TIMEOUT, "{elapsed:?}");
        assert!(elapsed < 2 * LOCK_TIMEOUT, "{elapsed:?}");
        drop(lock);
        drop(bind(&dir.path().join("next")).unwrap());
        let directory = identity(&fs::stat(dir.path()).unwrap());
        assert!(!contended().contains(&directory), "it is got again");
    }
}
