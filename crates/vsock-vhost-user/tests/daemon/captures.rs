// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Packet captures of running devices.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Output};

use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use tempfile::TempDir;
use vsock_compliance::poll::{Deadline, wait_until};
use vsock_proto::{Header, Op};
use vsock_vhost_user::{Capture, CaptureConfig, CaptureError};

use crate::guest::{GENEROUS, Guest};
use crate::host::{Host, STOP};
use crate::program::{PROGRAM, Program, run};

/// A packet in a capture file.
#[derive(Debug)]
struct Packet {
    interface: u32,
    inbound: bool,
    header: Header,
    payload: Vec<u8>,
}

impl Packet {
    /// Returns the operation, whether it is from the guest, and the guest's port.
    fn what(&self) -> (Op, bool, u32) {
        let Header {
            op,
            src_port,
            dst_port,
            ..
        } = self.header;
        let port = if self.inbound { src_port } else { dst_port };
        (Op::try_from(op).unwrap(), self.inbound, port)
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Returns the packets of a file and its number of interfaces.
fn read(path: &Path) -> (Vec<Packet>, usize) {
    let file = fs::read(path).unwrap();
    let (mut rest, mut packets, mut interfaces) = (&file[..], Vec::new(), 0);
    while !rest.is_empty() {
        let (block, others) = rest.split_at(number(rest, 4) as usize);
        rest = others;
        match number(block, 0) {
            1 => interfaces += 1,
            6 => {
                let captured = number(block, 20) as usize;
                let packet = &block[28..28 + captured];
                let options = 28 + captured.next_multiple_of(4);
                assert_eq!(number(block, options), 4 << 16 | 2, "epb_flags");
                packets.push(Packet {
                    interface: number(block, 8),
                    inbound: number(block, options + 4) == 1,
                    header: Header::decode(packet[32..76].try_into().unwrap()),
                    payload: packet[76..].to_vec(),
                });
            }
            _ => {}
        }
    }
    (packets, interfaces)
}

/// Makes the guest open a connection that is refused.
fn refused(guest: &mut Guest, port: u32) {
    let (_, answer) = guest.connect(port, port);
    assert_eq!(answer.op, u16::from(Op::Reset));
}

#[test]
fn a_capture_contains_every_packet_of_all_guests() {
    let (one, mut first) = Host::booted();
    let (two, mut second) = Host::booted();
    refused(&mut first, 1);
    let path = one.path("packets");
    let capture = Capture::create(&path, CaptureConfig::default().payload_bytes(4)).unwrap();
    one.device.start_capture(&capture);
    two.device.start_capture(&capture);

    let listener = one.connector.listen(52).unwrap();
    let (mut socket, _) = first.connect(1024, 52);
    let mut stream = listener.accept().unwrap();
    first.write(&socket, b"question");
    stream.read_exact(&mut [0; 8]).unwrap();
    stream.write_all(b"answer").unwrap();
    assert_eq!(first.read(&mut socket, 6), b"answer");
    refused(&mut second, 7);
    second.reboot();
    refused(&mut second, 8);
    two.device.stop_capture();
    refused(&mut second, 9);

    let counters = capture.stop().unwrap();
    refused(&mut first, 2);
    assert_eq!(counters.dropped, 0);
    let (packets, interfaces) = read(&path);
    assert_eq!((interfaces, packets.len() as u64), (2, counters.packets));
    let of = |interface| {
        let packets = packets.iter().filter(move |one| one.interface == interface);
        packets.filter(|one| one.header.op < u16::from(Op::CreditUpdate))
    };
    let (request, response, data) = (Op::Request, Op::Response, Op::ReadWrite);
    let seen: Vec<_> = of(0).map(Packet::what).collect();
    let expected = [
        (request, true, 1024),
        (response, false, 1024),
        (data, true, 1024),
        (data, false, 1024),
    ];
    assert_eq!(seen, expected);
    let payloads: Vec<_> = of(0)
        .map(|one| (one.header.len, &one.payload[..]))
        .collect();
    assert_eq!(payloads[2..], [(8, &b"ques"[..]), (6, &b"answ"[..])]);
    let seen: Vec<_> = of(1).map(Packet::what).collect();
    let reset = Op::Reset;
    let expected = [
        (request, true, 7),
        (reset, false, 7),
        (request, true, 8),
        (reset, false, 8),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_device_does_not_block_on_a_fifo_that_is_not_read() {
    const LEN: usize = 4 << 20;
    let (host, mut guest) = Host::booted();
    let path = host.path("fifo");
    mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
    let no_wait = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
    let mut reader = OpenOptions::new()
        .read(true)
        .custom_flags(no_wait)
        .open(&path)
        .unwrap();
    let config = CaptureConfig::default()
        .payload_bytes(65_536)
        .queue_bytes(128 << 10);
    let capture = Capture::create(&path, config).unwrap();
    host.device.start_capture(&capture);

    let listener = host.connector.listen(52).unwrap();
    let (mut socket, _) = guest.connect(1024, 52);
    let mut stream = listener.accept().unwrap();
    let piece = [7; 64 << 10];
    let mut back = piece;
    for _ in 0..LEN / piece.len() {
        guest.write(&socket, &piece);
        stream.read_exact(&mut back).unwrap();
        guest.wait_until_taken(&mut socket, piece.len());
    }
    let counters = capture.counters();
    assert!(counters.dropped > 0, "{counters:?}");
    // When the reader continues, it gets whole blocks, and the number of packets it has missed.
    let mut file = File::create(host.path("file")).unwrap();
    wait_until(Deadline::after(GENEROUS), || {
        let mut bytes = vec![0; 1 << 20];
        while let Ok(count @ 1..) = reader.read(&mut bytes) {
            file.write_all(&bytes[..count]).unwrap();
        }
        capture.counters().file_bytes == fs::metadata(host.path("file")).unwrap().len()
    })
    .unwrap();
    // The last blocks arrive while the capture ends.
    let rest = std::thread::spawn(move || {
        let mut rest = Vec::new();
        // Without the flag of the direction.
        rustix::fs::fcntl_setfl(&reader, OFlags::empty()).unwrap();
        reader.read_to_end(&mut rest).unwrap();
        rest
    });
    let counters = capture.stop().unwrap();
    file.write_all(&rest.join().unwrap()).unwrap();
    let (packets, _) = read(&host.path("file"));
    assert_eq!(packets.len() as u64, counters.packets - counters.dropped);
}

#[test]
fn a_capture_that_cannot_end_is_reported_in_time() {
    let (host, mut guest) = Host::booted();
    let path = host.path("fifo");
    mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
    let no_wait = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
    let reader = OpenOptions::new()
        .read(true)
        .custom_flags(no_wait)
        .open(&path)
        .unwrap();
    let config = CaptureConfig::default().payload_bytes(65_536);
    let capture = Capture::create(&path, config).unwrap();
    host.device.start_capture(&capture);
    let listener = host.connector.listen(52).unwrap();
    let (mut socket, _) = guest.connect(1024, 52);
    let mut stream = listener.accept().unwrap();
    for _ in 0..4 {
        guest.write(&socket, &[1; 64 << 10]);
        stream.read_exact(&mut [0; 64 << 10]).unwrap();
        guest.wait_until_taken(&mut socket, 64 << 10);
    }
    let watch = vsock_compliance::poll::Stopwatch::start();
    let error = capture.stop().unwrap_err();
    assert!(matches!(error, CaptureError::NotEnded), "{error:?}");
    assert!(watch.elapsed() < 2 * STOP);
    // The device is not affected.
    host.assert_serves(&mut guest, 80);
    drop(reader);
}

#[test]
#[cfg_attr(
    coverage,
    ignore = "the program writes its profile at its end, past the limit"
)]
fn a_file_size_limit_ends_the_capture_and_drops_log_lines_but_affects_no_guest() {
    let place = TempDir::new().unwrap();
    let capture = format!("--capture={}", place.path().join("packets").display());
    let log = File::create(place.path().join("log")).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -f 0; exec \"$@\"", "sh", PROGRAM]);
    let program = Program::start_by(&mut shell, &[3], &[&capture], log);
    let mut guest = program.boot();
    for port in 1..10 {
        refused(&mut guest, port);
    }
    program.stop();
    for name in ["packets", "log"] {
        assert_eq!(
            fs::metadata(place.path().join(name)).unwrap().len(),
            0,
            "{name}"
        );
    }
}

#[test]
fn the_control_socket_starts_and_stops_captures_into_new_files() {
    let directory = tempfile::tempdir().unwrap();
    let at = |number| directory.path().join(format!("packets-{number}.pcapng"));
    fs::write(at(1), "not touched").unwrap();
    let option = format!("--capture-dir={}", directory.path().display());
    let program = Program::start_controlled(&[&option, "--capture-bytes=0", "--log-level=warn"]);
    let mut guest = program.boot();
    let (code, said) = ctl(&program, &["capture", "stop"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("there is no capture to stop"), "{said}");
    refused(&mut guest, 1);
    for (number, port) in [(2, 10), (3, 20)] {
        let file = at(number);
        let shown = file.display().to_string();
        let started = ctl(&program, &["capture", "start"]);
        assert_eq!(started, (Some(0), format!("{shown}\n")));
        let (code, said) = ctl(&program, &["capture", "start"]);
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains(&format!("already capturing packets to {shown}")),
            "{said}"
        );
        refused(&mut guest, port);
        refused(&mut guest, port + 1);
        let (code, said) = ctl(&program, &["capture", "stop"]);
        let len = fs::metadata(&file).unwrap().len();
        let counted = format!("{shown}: 4 packets, 0 of them dropped, {len} bytes\n");
        assert_eq!((code, said), (Some(0), counted));
        refused(&mut guest, port + 2);
        let (packets, interfaces) = read(&file);
        let ports: Vec<_> = packets.iter().map(|packet| packet.what().2).collect();
        assert_eq!(
            (ports, interfaces),
            (vec![port, port, port + 1, port + 1], 1)
        );
    }
    assert_eq!(fs::read(at(1)).unwrap(), b"not touched");
    // The end of the program also ends a capture.
    ctl(&program, &["capture", "start"]);
    refused(&mut guest, 30);
    assert_eq!(program.said(), "");
    assert_eq!(read(&at(4)).0.len(), 2);
}

#[test]
fn the_control_socket_stops_the_options_capture_and_explains_how_to_start_another() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("packets");
    let option = format!("--capture={}", file.display());
    let program =
        Program::start_controlled(&[&option, "--capture-limit=4KiB", "--log-level=error"]);
    let mut guest = program.boot();
    for port in 0..100 {
        refused(&mut guest, port);
    }
    let (code, said) = ctl(&program, &["capture", "stop"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("incomplete: the file has reached its limit of 4096 bytes"),
        "{said}"
    );
    let (code, said) = ctl(&program, &["capture", "start"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("start the program with --capture-dir DIR"),
        "{said}"
    );
    assert_eq!(program.said(), "");
}

#[test]
fn a_missing_capture_directory_is_an_error_at_the_start() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let option = format!("--capture-dir={}", file.path().display());
    let args = [
        "--guest-cid=3",
        "--socket=/tmp/none/s",
        "--uds-path=/tmp/none/v",
    ];
    let args = [&args[..], &["--control=/tmp/none/c", &option]].concat();
    let (code, said) = run(&args);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("expected a directory"), "{said}");
}

/// Runs a `ctl` command; returns its exit code and its output.
pub(crate) fn ctl(program: &Program, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(PROGRAM);
    let ended = command
        .arg("ctl")
        .arg(program.control())
        .args(args)
        .output();
    let Output {
        status,
        mut stdout,
        stderr,
    } = ended.unwrap();
    stdout.extend(stderr);
    (status.code(), String::from_utf8(stdout).unwrap())
}
