// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The threads that pump the bytes of passed descriptors: their start, their end, and that none of
//! them delays another thread.

use vsock_driver::lingering;

use super::*;

/// How long the close of a socket blocks.
const LINGER: Duration = Duration::from_secs(30);

#[test]
fn t124_neither_an_empty_nor_a_full_pipe_blocks_a_drop() {
    let (_dir, mut backend) = usual();
    let (empty, _writes) = pipe().unwrap();
    let (_reads, full) = pipe().unwrap();
    let quiet = stream(&mut backend, "5\n", &empty);
    let mut stuck = stream(&mut backend, "6\n", &full);
    stuck.set_nonblocking(true).unwrap();
    wait_until(soon(), || stuck.write(&[7; 65_536]).is_err()).unwrap();
    let watch = Stopwatch::start();
    drop(quiet);
    drop(stuck);
    drop(backend);
    assert!(
        watch.elapsed() < Duration::from_secs(5),
        "{:?}",
        watch.elapsed()
    );
}

#[test]
fn many_descriptors_in_turn_leave_no_thread_or_entry_behind() {
    let (_dir, mut backend) = usual();
    for number in 0..300_u32 {
        let (reader, mut writer) = pipe().unwrap();
        let mut device = stream(&mut backend, "5\n", &reader);
        writer.write_all(&number.to_le_bytes()).unwrap();
        let mut got = [0; 4];
        device.read_exact(&mut got).unwrap();
        assert_eq!(u32::from_le_bytes(got), number);
    }
    wait_until(soon(), || backend.register.enter(1).is_some()).unwrap();
}

#[test]
fn pumps_start_even_if_signals_are_already_blocked() {
    for signal in [libc::SIGPIPE, libc::SIGXFSZ] {
        vmm_sys_util::signal::block_signal(signal).unwrap();
    }
    let (_dir, mut backend) = usual();
    let (reader, writer) = pipe().unwrap();
    let device = stream(&mut backend, "5\n", &writer);
    drop(reader);
    wait_until(soon(), || device.peer_gone()).unwrap();
}

#[test]
fn the_first_step_precedes_all_descriptors_and_its_error_is_returned() {
    let (_dir, backend) = usual();
    let (tell, told) = std::sync::mpsc::channel();
    let first = move || {
        let name = std::thread::current().name().map(str::to_owned);
        tell.send(name).map_err(io::Error::other)
    };
    let mut backend = backend.on_thread_start(first).unwrap();
    let name = told.try_recv().unwrap();
    assert_eq!(name.as_deref(), Some("vsock-starter"));
    let (reader, mut writer) = pipe().unwrap();
    let mut device = stream(&mut backend, "5\n", &reader);
    writer.write_all(b"7").unwrap();
    device.read_exact(&mut [0]).unwrap();

    let refused = backend.on_thread_start(|| Err(ErrorKind::PermissionDenied.into()));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
}

#[test]
fn t124_a_descriptor_whose_close_blocks_delays_nothing() {
    let (_dir, mut backend) = usual();
    let watch = Stopwatch::start();
    let (taken, _peer) = lingering(LINGER);
    let device = stream(&mut backend, "5\n", &taken);
    drop(taken);
    drop(device);
    for (text, keep) in [("5\n", true), ("port\n", false)] {
        let (refused, _peer) = lingering(LINGER);
        let other = File::open("/dev/null").unwrap();
        let client = connect(&backend);
        (&client).write_all(b"passfd\n").unwrap();
        let both: [&dyn AsFd; 2] = [&refused, &other];
        send_with(
            &client,
            text.as_bytes(),
            if keep { &both } else { &both[..1] },
        );
        drop(refused);
        assert_refused(&mut backend, &client);
    }
    assert!(
        watch.elapsed() < Duration::from_secs(10),
        "{:?}",
        watch.elapsed()
    );
}
