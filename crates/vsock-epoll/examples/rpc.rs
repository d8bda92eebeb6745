// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Many clients in threads, and one loop that answers their lines.
//!
//! `cargo run -p vsock-epoll --features remote --example rpc`

#![expect(clippy::print_stdout, reason = "an example for people")]

use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::thread;
use std::time::Duration;

use event_manager::{EventManager, SubscriberOps};
use vsock_epoll::services::{Lines, Reply};
use vsock_epoll::{RemoteHandle, StreamLimits, StreamSubscriber};
use vsock_inner::VsockInnerStream;

const CLIENTS: u64 = 8;
const CALLS: u64 = 1000;

type Answer = fn(&[u8], &mut Vec<u8>) -> Reply;
type Service = Lines<Answer>;

/// The procedure: adds up the numbers in a line.
fn sum(line: &[u8], answer: &mut Vec<u8>) -> Reply {
    let numbers = String::from_utf8_lossy(line);
    let sum: u64 = numbers
        .split(' ')
        .filter_map(|n| n.parse::<u64>().ok())
        .sum();
    answer.extend(format!("{sum}\n").bytes());
    Reply::Send
}

fn client(stream: VsockInnerStream, number: u64) -> io::Result<u64> {
    let mut stream = BufReader::new(stream);
    let mut right = 0;
    for call in 0..CALLS {
        let request = format!("{number} {call}\n");
        stream.get_mut().write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_line(&mut answer)?;
        right += u64::from(answer.trim_end().parse() == Ok(number + call));
    }
    Ok(right)
}

fn main() -> Result<(), Box<dyn Error>> {
    let service: Service = Lines::new(1024, sum as Answer)?;
    let mut manager = EventManager::new()?;
    let id = manager.add_subscriber(StreamSubscriber::new(service, StreamLimits::default())?);
    let remote: RemoteHandle<_, Service> =
        RemoteHandle::new(manager.remote_endpoint(), id, |subscriber| Some(subscriber));
    let looping = thread::spawn(move || -> Result<(), event_manager::Error> {
        while !manager.subscriber_mut(id)?.streams().is_finished() {
            manager.run()?;
        }
        Ok(())
    });

    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let (host, device) = VsockInnerStream::pair()?;
        remote.call(|streams| streams.add(Box::new(device), Vec::new()))??;
        clients.push(thread::spawn(move || client(host, number)));
    }
    let mut right = 0;
    for client in clients {
        right += client.join().map_err(|_| "a client panicked")??;
    }
    println!("{right} of {} answers are right", CLIENTS * CALLS);
    println!("the loop: {:?}", remote.call(|streams| streams.counters())?);
    remote.call(|streams| streams.drain(Some(Duration::from_secs(1))))?;
    looping.join().map_err(|_| "the loop panicked")??;
    Ok(())
}
