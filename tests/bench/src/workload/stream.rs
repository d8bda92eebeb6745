// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A stream in one direction. The writer has its message ready, and the reader a buffer of 64 KiB.

use std::hint::black_box;
use std::io::{self, ErrorKind, Read, Write};

use crate::sample::{Sample, together};
use crate::transport::{Pollable, Transport};
use crate::workload::wait::Wait;
use vsock_report::Place;

/// The reader's buffer: the largest packet that a Linux guest sends.
pub(crate) const READ_SIZE: usize = 64 * 1024;

/// Returns the number of messages of `size` bytes that contain at least `bytes`, and their bytes.
pub(crate) fn messages(size: usize, bytes: u64) -> (u64, u64) {
    let size = size as u64;
    let count = bytes.div_ceil(size).max(1);
    (count, count * size)
}

/// Measures a stream from application to device, both blocking.
pub(crate) fn blocking<T: Transport>(
    transport: &T,
    place: Place,
    size: usize,
    bytes: u64,
) -> io::Result<Sample> {
    let (count, bytes) = messages(size, bytes);
    let (application, device) = transport.pair()?;
    together(
        bytes,
        place,
        move || write_all(application, size, count),
        move || read_all(device, bytes),
    )
}

/// Measures a stream from application to device: a blocking writer, and a reader on level-triggered
/// epoll with one read per event, as in a muxer.
pub(crate) fn to_epoll<T>(
    transport: &T,
    place: Place,
    size: usize,
    bytes: u64,
) -> io::Result<Sample>
where
    T: Transport<End: Pollable>,
{
    let (count, bytes) = messages(size, bytes);
    let (application, mut device) = transport.pair()?;
    device.set_nonblocking(true)?;
    let readable = Wait::readable(device.readable_fd())?;
    together(
        bytes,
        place,
        move || write_all(application, size, count),
        move || serve(device, &readable, bytes),
    )
}

/// Measures a stream from device to application: a non-blocking writer that waits for `EPOLLOUT`
/// when the stream is full, as in a muxer, and a blocking reader.
pub(crate) fn from_epoll<T>(
    transport: &T,
    place: Place,
    size: usize,
    bytes: u64,
) -> io::Result<Sample>
where
    T: Transport<End: Pollable>,
{
    let (count, bytes) = messages(size, bytes);
    let (application, mut device) = transport.pair()?;
    device.set_nonblocking(true)?;
    let writable = Wait::writable(device.writable_fd()?)?;
    together(
        bytes,
        place,
        move || push_all(device, &writable, size, count),
        move || read_all(application, bytes),
    )
}

fn write_all<W: Write>(mut writer: W, size: usize, count: u64) -> io::Result<W> {
    let message = vec![0x5a; size];
    for _ in 0..count {
        writer.write_all(black_box(&message))?;
    }
    Ok(writer)
}

fn push_all<W: Write>(mut writer: W, writable: &Wait, size: usize, count: u64) -> io::Result<W> {
    let message = vec![0x5a; size];
    for _ in 0..count {
        let mut rest = black_box(&message[..]);
        while !rest.is_empty() {
            match writer.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => writable.wait()?,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(writer)
}

fn read_all<R: Read>(mut reader: R, mut bytes: u64) -> io::Result<R> {
    let mut buf = vec![0; READ_SIZE];
    while bytes > 0 {
        bytes -= read_some(&mut reader, &mut buf)?;
    }
    Ok(reader)
}

fn serve<R: Read>(mut reader: R, readable: &Wait, mut bytes: u64) -> io::Result<R> {
    let mut buf = vec![0; READ_SIZE];
    while bytes > 0 {
        readable.wait()?;
        match read_some(&mut reader, &mut buf) {
            Ok(got) => bytes -= got,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(reader)
}

/// Reads once. Without `black_box` the optimiser could remove the copy into a buffer that is never
/// used.
fn read_some(reader: &mut impl Read, buf: &mut [u8]) -> io::Result<u64> {
    let got = reader.read(buf)?;
    black_box(&mut buf[..got]);
    if got == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(got as u64)
}
