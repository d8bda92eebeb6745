// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Round trips: a request of 64 bytes and an answer of 64 bytes, one at a time.

use std::hint::black_box;
use std::io::{self, ErrorKind, Read, Write};

use crate::sample::{Sample, together};
use crate::transport::{Pollable, Transport};
use crate::workload::stream::READ_SIZE;
use crate::workload::wait::Wait;
use vsock_report::Place;

/// Bytes of a request, and of its answer.
pub(crate) const SIZE: usize = 64;

/// Measures round trips with both ends blocking.
pub(crate) fn blocking<T: Transport>(
    transport: &T,
    place: Place,
    rounds: u64,
) -> io::Result<Sample> {
    let (application, device) = transport.pair()?;
    together(
        rounds,
        place,
        move || ask(application, rounds),
        move || answer(device, rounds),
    )
}

/// Measures round trips of a blocking application end with a device end on level-triggered epoll.
pub(crate) fn with_epoll<T>(transport: &T, place: Place, rounds: u64) -> io::Result<Sample>
where
    T: Transport<End: Pollable>,
{
    let (application, mut device) = transport.pair()?;
    device.set_nonblocking(true)?;
    let readable = Wait::readable(device.readable_fd())?;
    together(
        rounds,
        place,
        move || ask(application, rounds),
        move || serve(device, &readable, rounds),
    )
}

fn ask<S: Read + Write>(mut stream: S, rounds: u64) -> io::Result<S> {
    let request = [0x5a; SIZE];
    let mut reply = [0; SIZE];
    for _ in 0..rounds {
        stream.write_all(black_box(&request))?;
        stream.read_exact(&mut reply)?;
        black_box(&mut reply);
    }
    Ok(stream)
}

fn answer<S: Read + Write>(mut stream: S, rounds: u64) -> io::Result<S> {
    let mut message = [0; SIZE];
    for _ in 0..rounds {
        stream.read_exact(&mut message)?;
        stream.write_all(black_box(&message))?;
    }
    Ok(stream)
}

fn serve<S: Read + Write>(mut stream: S, readable: &Wait, rounds: u64) -> io::Result<S> {
    let mut buf = vec![0; READ_SIZE];
    let mut left = rounds;
    let mut got = 0;
    while left > 0 {
        readable.wait()?;
        match stream.read(&mut buf[got..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(more) => got += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if got >= SIZE {
            stream.write_all(black_box(&buf[..SIZE]))?;
            got -= SIZE;
            left -= 1;
        }
    }
    Ok(stream)
}
