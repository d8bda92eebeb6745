// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tasks on an executor with a few threads. Every byte is compared, and every wake-up is needed.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::thread;

use vsock_backend_api::VsockBackend;
use vsock_compliance::pattern::Pattern;
use vsock_inner::{
    Canceller, VsockInnerBackend, VsockInnerConnector, VsockInnerListener, VsockInnerReader,
    VsockInnerStream, VsockInnerWriter,
};
use vsock_tests::inner::Inner;

use crate::{deadline, factor};

type Work = Box<dyn FnMut(&mut Context<'_>) -> Poll<()> + Send>;

/// Tasks that are ready to run, and how many are not done.
#[derive(Default)]
struct Queue {
    runnable: VecDeque<Arc<Task>>,
    left: usize,
}

#[derive(Default)]
struct Executor {
    queue: Mutex<Queue>,
    changed: Condvar,
}

struct Task {
    /// The work, until it is done. Wakers can outlive it.
    work: Mutex<Option<Work>>,
    runnable: AtomicBool,
    executor: Arc<Executor>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        // ORDER: AcqRel; partner: the swap in `run_one`. A wake-up either precedes the run, or
        // causes another one.
        if !self.runnable.swap(true, Ordering::AcqRel) {
            let executor = Arc::clone(&self.executor);
            executor.queue.lock().unwrap().runnable.push_back(self);
            executor.changed.notify_one();
        }
    }
}

impl Executor {
    fn spawn(self: &Arc<Self>, work: impl FnMut(&mut Context<'_>) -> Poll<()> + Send + 'static) {
        self.queue.lock().unwrap().left += 1;
        let task = Task {
            work: Mutex::new(Some(Box::new(work))),
            runnable: AtomicBool::new(false),
            executor: Arc::clone(self),
        };
        Arc::new(task).wake();
    }

    /// Runs all spawned tasks on this number of threads.
    fn run(self: &Arc<Self>, threads: usize) {
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| while self.run_one() {});
            }
        });
    }

    /// Runs the next ready task. Returns `false` if all are done.
    fn run_one(&self) -> bool {
        let deadline = deadline();
        let mut queue = self.queue.lock().unwrap();
        let task = loop {
            if queue.left == 0 {
                // Wake the other threads, which would otherwise wait for a task until their
                // deadline.
                self.changed.notify_all();
                return false;
            }
            if let Some(task) = queue.runnable.pop_front() {
                break task;
            }
            assert!(!deadline.passed(), "{} tasks sleep", queue.left);
            queue = self.changed.wait_timeout(queue, deadline.left()).unwrap().0;
        };
        drop(queue);
        // Before the poll, so that a wake-up during the poll puts the task back into the queue.
        // ORDER: AcqRel; partner: the swap in `wake`.
        task.runnable.swap(false, Ordering::AcqRel);
        let waker = Waker::from(Arc::clone(&task));
        let mut work = task.work.lock().unwrap();
        let cx = &mut Context::from_waker(&waker);
        if work.as_mut().is_some_and(|work| work(cx).is_ready()) {
            *work = None;
            self.queue.lock().unwrap().left -= 1;
        }
        true
    }
}

/// A pseudo-random number generator.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % sides
    }
}

/// Makes a call with the task's waker. Sometimes polls through a future that is then dropped, or
/// calls as a thread would.
fn call(
    dice: &mut Dice,
    cx: &mut Context<'_>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<io::Result<usize>>,
) -> Poll<usize> {
    // This registers another task's waker, which the poll with the task's own must replace.
    if dice.roll(4) == 0 {
        let other = &mut Context::from_waker(Waker::noop());
        if let Poll::Ready(done) = poll(other) {
            return Poll::Ready(done.unwrap());
        }
    }
    poll(cx).map(Result::unwrap)
}

/// Writes this many bytes of the pattern, in calls of up to `longest` bytes.
fn write_all(
    mut writer: VsockInnerWriter,
    (bytes, longest, seed): (u64, usize, u64),
) -> impl FnMut(&mut Context<'_>) -> Poll<()> + Send + 'static {
    let (mut pattern, mut dice) = (Pattern::default(), Dice(seed | 1));
    let mut buf = vec![0; longest];
    move |cx| {
        while pattern.position() < bytes {
            let len = 1 + dice.roll(longest);
            let len = len.min(usize::try_from(bytes - pattern.position()).unwrap());
            pattern.fill(&mut buf[..len]);
            let written = ready!(call(&mut dice, cx, |cx| writer.poll_write(cx, &buf[..len])));
            pattern.advance(written);
        }
        Poll::Ready(())
    }
}

/// Reads this many bytes of the pattern.
fn read_all(
    mut reader: VsockInnerReader,
    (bytes, longest, seed): (u64, usize, u64),
) -> impl FnMut(&mut Context<'_>) -> Poll<()> + Send + 'static {
    let (mut pattern, mut dice) = (Pattern::default(), Dice(seed | 1));
    let mut buf = vec![0; longest];
    move |cx| {
        while pattern.position() < bytes {
            let len = 1 + dice.roll(longest);
            let read = ready!(call(&mut dice, cx, |cx| reader.poll_read(cx, &mut buf[..len])));
            assert!(
                read > 0,
                "the stream ended after {} bytes",
                pattern.position()
            );
            pattern.verify(&buf[..read]).unwrap();
        }
        Poll::Ready(())
    }
}

/// Spawns the tasks of both directions of one connection.
fn spawn_connection(executor: &Arc<Executor>, capacity: usize, bytes: u64, seed: u64) {
    let longest = (2 * capacity).clamp(16, 100_000);
    let (near, far) = VsockInnerStream::pair_with(&Inner::holding(capacity).config).unwrap();
    for (at, end) in [near, far].into_iter().enumerate() {
        let seed = seed.wrapping_mul(2 + at as u64);
        let (reader, writer) = end.into_split();
        executor.spawn(read_all(reader, (bytes, longest, seed + 7)));
        executor.spawn(write_all(writer, (bytes, longest, seed + 99)));
    }
}

#[test]
fn tasks_of_many_connections_move_their_own_bytes() {
    let executor = Arc::new(Executor::default());
    let mut seed = 0x5eed;
    for (capacity, bytes) in [
        (1, 20_000),
        (3, 50_000),
        (4096, 8 << 20),
        (256 * 1024, 64 << 20),
    ] {
        for _ in 0..4 {
            seed += 12_345;
            spawn_connection(&executor, capacity, bytes * u64::from(factor()), seed);
        }
    }
    executor.run(4);
}

#[test]
fn a_task_and_a_thread_move_bytes_through_a_narrow_connection() {
    const BYTES: usize = 1 << 20;
    let bytes = BYTES * factor() as usize;
    let (near, mut far) = VsockInnerStream::pair_with(&Inner::holding(100).config).unwrap();
    let (reader, writer) = near.into_split();
    let executor = Arc::new(Executor::default());
    let plan = (bytes as u64, 300, 3);
    executor.spawn(read_all(reader, plan));
    executor.spawn(write_all(writer, plan));
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut theirs, mut ours) = (Pattern::default(), Pattern::default());
            let (mut sent, mut buf) = (0, [0; 64]);
            while theirs.position() < bytes as u64 {
                let len = 64.min(bytes - sent);
                far.write_all(&ours.take(len)).unwrap();
                sent += len;
                let due = sent as u64 - theirs.position();
                let due = usize::try_from(due).unwrap().min(buf.len());
                far.read_exact(&mut buf[..due]).unwrap();
                theirs.verify(&buf[..due]).unwrap();
            }
        });
        executor.run(2);
    });
}

const PORT: u32 = 1024;

/// A task that accepts and serves connections one after another, as others do at the same time.
struct Acceptor {
    listener: Arc<VsockInnerListener>,
    /// Ends all acceptors after the last connection.
    canceller: Canceller,
    left: Arc<Mutex<u32>>,
    serving: Option<(VsockInnerStream, Vec<u8>)>,
    dice: Dice,
}

impl Acceptor {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.serve(cx));
            match ready!(self.accept(cx)) {
                Ok(stream) => self.serving = Some((stream, Vec::new())),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Interrupted);
                    return Poll::Ready(());
                }
            }
        }
    }

    /// Sometimes polls through a future of an abandoned task, which is then dropped.
    fn accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<VsockInnerStream>> {
        if self.dice.roll(3) == 0 {
            let other = &mut Context::from_waker(Waker::noop());
            if let Poll::Ready(done) = self.listener.poll_accept(other) {
                return Poll::Ready(done);
            }
        }
        self.listener.poll_accept(cx)
    }

    /// Sends four bytes back.
    fn serve(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some((stream, name)) = &mut self.serving else {
            return Poll::Ready(());
        };
        while name.len() < 4 {
            let left = 4 - name.len();
            let take = |piece: &[u8]| name.extend_from_slice(piece);
            ready!(stream.poll_read_with(cx, left, take)).unwrap();
        }
        assert_eq!(ready!(stream.poll_write(cx, name)).unwrap(), 4);
        self.serving = None;
        let mut left = self.left.lock().unwrap();
        *left -= 1;
        if *left == 0 {
            self.canceller.cancel();
        }
        Poll::Ready(())
    }
}

#[test]
fn tasks_accept_every_connection_and_serve_it() {
    const TASKS: u64 = 8;
    const CLIENTS: u32 = 4;
    let each = 2000 * factor();
    let backend = VsockInnerBackend::new().unwrap();
    let listener = Arc::new(backend.listen(PORT).unwrap());
    let left = Arc::new(Mutex::new(CLIENTS * each));
    let executor = Arc::new(Executor::default());
    for task in 1..=TASKS {
        let mut acceptor = Acceptor {
            listener: Arc::clone(&listener),
            canceller: listener.canceller(),
            left: Arc::clone(&left),
            serving: None,
            dice: Dice(task),
        };
        executor.spawn(move |cx| acceptor.poll(cx));
    }
    thread::scope(|scope| {
        let backend = Arc::new(Mutex::new(backend));
        for client in 0..CLIENTS {
            let backend = Arc::clone(&backend);
            scope.spawn(move || {
                for number in 0..each {
                    let mut stream = backend.lock().unwrap().connect(PORT).unwrap();
                    stream.set_nonblocking(false).unwrap();
                    let (name, mut echo) = ((client << 24 | number).to_le_bytes(), [0; 4]);
                    stream.write_all(&name).unwrap();
                    stream.read_exact(&mut echo).unwrap();
                    assert_eq!(name, echo);
                }
            });
        }
        executor.run(3);
    });
}

/// Connects, has the device answer, and sends its number.
fn connecting(
    connector: VsockInnerConnector,
    count: u32,
) -> impl FnMut(&mut Context<'_>) -> Poll<()> + Send {
    let (mut done, mut stream) = (0, None::<VsockInnerStream>);
    move |cx| {
        while done < count {
            let connection = match &mut stream {
                Some(connection) => connection,
                None => stream.insert(connector.start_connect_to(done + 1).unwrap()),
            };
            let refused = done % 3 == 0;
            match ready!(connection.poll_connected(cx)) {
                Ok(()) => assert!(!refused),
                Err(error) => {
                    assert!(refused && error.kind() == ErrorKind::ConnectionRefused);
                    (stream, done) = (None, done + 1);
                    continue;
                }
            }
            let read = ready!(connection.poll_read(cx, &mut [0; 8]));
            assert_eq!(read.unwrap(), 2, "the bytes after the answer");
            (stream, done) = (None, done + 1);
        }
        Poll::Ready(())
    }
}

#[test]
fn tasks_connect_while_a_device_answers_each_differently() {
    const TASKS: u32 = 8;
    let each = 2000 * factor();
    let mut backend = VsockInnerBackend::new().unwrap();
    let executor = Arc::new(Executor::default());
    for _ in 0..TASKS {
        executor.spawn(connecting(backend.get_connector(), each));
    }
    thread::scope(|scope| {
        scope.spawn(|| executor.run(2));
        let (mut answered, deadline) = (0, deadline());
        while answered < TASKS * each {
            let Ok(mut device) = backend.accept() else {
                assert!(!deadline.passed(), "{answered} have connected");
                thread::yield_now();
                continue;
            };
            answered += 1;
            let port = device.requested_port().unwrap();
            match (port - 1) % 3 {
                0 => continue, // a refusal
                1 => device.confirm(1).unwrap(),
                _ => device.write_all(b"OK 1\n").unwrap(),
            }
            device.write_all(b"hi").unwrap();
        }
    });
}
