// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;
use std::os::fd::AsRawFd;

use anyhow::{Result, bail};
use vsock_inner::{Capacity, VsockInnerConfig};

use crate::suite::rows::UNIX;
use crate::transport::{
    AsyncTransport, ChannelEndpoint, Duplex, Endpoint, InnerEndpoint, Pipe, TokioInner, Transport,
    UnixEndpoint,
};
use crate::workload::idle::{Idle, hold};

/// The rows of the table of idle connections.
pub(crate) const IDLE_ROWS: [&str; 9] = [
    UNIX,
    "pipe",
    "tokio duplex",
    "channel of vectors",
    "vsock-inner",
    "vsock-inner 1 MiB",
    "vsock-inner, device polls",
    "vsock-inner, both poll",
    "vsock-tokio",
];

/// Measures the cost of `connections` idle connections of a row in this process.
pub(crate) fn hold_idle(row: &str, connections: u64) -> Result<Idle> {
    let config = VsockInnerConfig::default();
    match row {
        UNIX => idle_cost(UnixEndpoint::open()?, connections, |_, _| ()),
        "pipe" => hold(connections, || Pipe.pair()),
        "tokio duplex" => {
            let duplex = Duplex(256 << 10);
            hold(connections, || duplex.pair())
        }
        "channel of vectors" => idle_cost(ChannelEndpoint::open()?, connections, |_, _| ()),
        "vsock-inner" => idle_cost(InnerEndpoint::open(config)?, connections, |_, _| ()),
        "vsock-inner 1 MiB" => {
            let config = config
                .to_device(Capacity::Bytes(1 << 20))
                .to_application(Capacity::Bytes(1 << 20));
            idle_cost(InnerEndpoint::open(config)?, connections, |_, _| ())
        }
        "vsock-inner, device polls" => {
            idle_cost(InnerEndpoint::open(config)?, connections, |_, far| {
                far.as_raw_fd();
            })
        }
        "vsock-inner, both poll" => {
            idle_cost(InnerEndpoint::open(config)?, connections, |near, far| {
                near.as_raw_fd();
                far.as_raw_fd();
            })
        }
        "vsock-tokio" => hold(connections, || TokioInner.pair()),
        unknown => bail!("there is no row {unknown:?}; there are {IDLE_ROWS:?}"),
    }
}

fn idle_cost<D: Endpoint>(
    mut endpoint: D,
    connections: u64,
    touch: impl Fn(&D::Near, &D::Far),
) -> Result<Idle> {
    hold(connections, || -> io::Result<_> {
        let near = endpoint.connect()?;
        let far = endpoint.accept()?;
        touch(&near, &far);
        Ok((near, far))
    })
}

#[cfg(test)]
mod tests {
    use super::{IDLE_ROWS, hold_idle};

    #[test]
    fn every_row_holds_the_requested_number() {
        for row in IDLE_ROWS {
            let idle = hold_idle(row, 20).unwrap_or_else(|e| panic!("{row}: {e:#}"));
            assert_eq!(idle.connections, 19, "{row}");
        }
    }
}
