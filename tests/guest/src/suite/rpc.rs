// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Popular RPC protocols, with the client on one side and the service on the other.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::AsyncReadExt;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use vsock_guest_program::job::{Answer, Job};
use vsock_guest_rpc::counts::{Counts, Seen};
use vsock_guest_rpc::serve::serve;
use vsock_guest_rpc::task::{Part, Protocol, Task, Wake};
use vsock_guest_rpc::transport::{Connection, Crumbs, Incoming, Transport};
use vsock_guest_rpc::work::{Work, call};

use super::pairs::Opener;
use super::{Outcome, Test};
use crate::child::wait_until;
use crate::device::LIMIT;
use crate::ends::Host;
use crate::guest::Pending;
use crate::machine::{Footprint, Machine};

pub(super) const TESTS: &[Test] = &[
    Test::new("rpc_grpc_calls_are_answered", |machine| {
        calls(machine, Protocol::Grpc)
    }),
    Test::new("rpc_ttrpc_calls_are_answered", |machine| {
        calls(machine, Protocol::Ttrpc)
    }),
    Test::new("rpc_http_calls_are_answered", |machine| {
        calls(machine, Protocol::Http1)?;
        calls(machine, Protocol::Http2)
    }),
    Test::new("rpc_grpc_streams_of_64_mib_arrive_whole", |machine| {
        streams(machine, Protocol::Grpc, 64 << 20)
    })
    .within(180),
    Test::new("rpc_ttrpc_streams_arrive_whole", |machine| {
        streams(machine, Protocol::Ttrpc, 16 << 20)
    })
    .within(180),
    Test::new("rpc_http_streams_arrive_whole", |machine| {
        streams(machine, Protocol::Http1, 16 << 20)?;
        streams(machine, Protocol::Http2, 16 << 20)
    })
    .within(180),
    Test::new("rpc_both_sides_take_turns_in_a_stream", |machine| {
        each(machine, Work::Chat(200), Plan::default(), |_, counts| {
            ensure!(counts.finished == 1, "{counts:?}");
            Ok(())
        })
    }),
    Test::new("rpc_deadlines_end_calls_that_wait", |machine| {
        each(machine, Work::Deadlines, Plan::default(), |seen, counts| {
            // On a slow machine, a deadline can pass before the service receives the call.
            ensure!(counts.finished == seen.answered, "{counts:?}");
            let ended = counts.finished + counts.cancelled;
            ensure!(ended == counts.begun, "{counts:?}");
            Ok(())
        })
    }),
    Test::new("rpc_refused_calls_return_their_codes", |machine| {
        each(machine, Work::Refusals, Plan::default(), |_, counts| {
            ensure!(counts.cancelled == 0, "{counts:?}");
            Ok(())
        })
    }),
    Test::new(
        "t128_rpc_readers_that_wait_for_whole_frames_get_them",
        frames,
    )
    .within(120),
    Test::new("rpc_calls_end_when_their_service_dies", dies),
    Test::new("rpc_calls_end_when_the_guests_service_is_killed", killed),
    Test::new("rpc_calls_end_when_the_guest_reboots", reboots).within(90),
    Test::new("rpc_cancelled_calls_leave_nothing_behind", storm).within(180),
];

/// How the two sides read and write.
#[derive(Clone, Copy, Default)]
struct Plan {
    wake: Wake,
    crumbs: Option<Crumbs>,
}

/// Checks what the client and the service have counted.
type Check = fn(Seen, Counts) -> anyhow::Result<()>;

const ALL: [Protocol; 4] = [
    Protocol::Grpc,
    Protocol::Ttrpc,
    Protocol::Http1,
    Protocol::Http2,
];

fn calls(machine: &mut Machine, protocol: Protocol) -> anyhow::Result<Outcome> {
    const CALLS: u32 = 1_000;
    both_ways(
        machine,
        protocol,
        Work::Calls(CALLS),
        Plan::default(),
        |seen, counts| {
            ensure!(seen.answered == u64::from(CALLS), "{seen:?}");
            ensure!(counts.finished == seen.answered, "{counts:?}");
            Ok(())
        },
    )
}

fn streams(machine: &mut Machine, protocol: Protocol, bytes: u64) -> anyhow::Result<Outcome> {
    let piece = 256 << 10;
    let work = Work::Streams { bytes, piece };
    both_ways(machine, protocol, work, Plan::default(), whole)
}

fn whole(seen: Seen, counts: Counts) -> anyhow::Result<()> {
    ensure!(seen.answered == 2, "{seen:?}");
    ensure!((counts.finished, counts.cancelled) == (2, 0), "{counts:?}");
    Ok(())
}

/// The host's first writes are separate packets. The guest sleeps until it has a whole frame,
/// of at least 16 KiB, which is more than those packets carry even if as many are in flight as the
/// device allows: 256 for a buffer of 256 KiB.
fn frames(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let plan = Plan {
        wake: Wake::Frame,
        crumbs: Some(Crumbs {
            bytes: 40,
            apart: 1_000,
        }),
    };
    let work = Work::Streams {
        bytes: 2 << 20,
        piece: 512 << 10,
    };
    both_ways(machine, Protocol::Grpc, work, plan, whole)
}

fn storm(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let before = Footprint::now(machine)?;
    let connections = machine.device().connections();
    let work = Work::Storm {
        calls: 200,
        seed: 20,
    };
    let outcome = each(machine, work, Plan::default(), |seen, counts| {
        ensure!(seen.answered + seen.cancelled == 200, "{seen:?}");
        ensure!(counts.connected > 50, "{counts:?}");
        Ok(())
    })?;
    let back = wait_until(LIMIT, || {
        Ok((machine.device().connections() == connections).then_some(()))
    })?;
    let now = machine.device().connections();
    back.with_context(|| format!("expected {connections:?} connections, found {now:?}"))?;
    before.given_back(machine, SLACK)?;
    Ok(outcome)
}

/// A service on the host ends with its runtime, which drops the tasks and their streams.
fn dies(machine: &mut Machine) -> anyhow::Result<Outcome> {
    for protocol in ALL {
        let port = machine.port();
        let host = host(machine, Plan::default());
        let runtime = runtime(protocol)?;
        let answer = runtime.block_on(async {
            let service = serve(&*host, protocol, port)?;
            let task = Task {
                protocol,
                port,
                wake: Wake::AnyByte,
                part: Part::Call(Work::Lost),
            };
            let answer = start(machine, &task)?;
            let called = timeout(LIMIT, service.called()).await;
            called.context("no call arrived from the guest")?;
            anyhow::Ok(answer)
        })?;
        drop(runtime);
        output_of(answer).with_context(|| format!("{protocol:?}"))?;
    }
    Ok(Outcome::Passed)
}

/// A service in the guest is killed during a call. Another one takes its port.
fn killed(machine: &mut Machine) -> anyhow::Result<Outcome> {
    for protocol in ALL {
        let (port, until) = (machine.port(), machine.port());
        let host = host(machine, Plan::default());
        runtime(protocol)?.block_on(async {
            let mut started = host.listen(until)?;
            let task = Task {
                protocol,
                port,
                wake: Wake::AnyByte,
                part: Part::Die { until },
            };
            let answer = start(machine, &task)?;
            let _service = next(&mut started).await?;
            let lost = call(Arc::clone(&host), protocol, port, Work::Lost);
            lost.await.context("during the call")?;
            let died = spawn_blocking(move || output_of(answer)).await?;
            let died = died.err().map(|error| format!("{error:#}"));
            ensure!(
                died.as_ref().is_some_and(|text| text.contains("signal: 9")),
                "the service was not killed: {died:?}"
            );
            anyhow::Ok(())
        })?;
        let (seen, _) = from_host_at(machine, port, protocol, Work::Calls(100), Plan::default())
            .context("the next service")?;
        ensure!(seen.answered == 100, "{seen:?}");
    }
    Ok(Outcome::Passed)
}

/// The guest reboots while one call of each protocol is in progress.
fn reboots(machine: &mut Machine) -> anyhow::Result<Outcome> {
    runtime(Protocol::Grpc)?.block_on(async {
        let host = host(machine, Plan::default());
        let (mut calls, mut services) = (JoinSet::new(), Vec::new());
        for protocol in ALL {
            let (port, until) = (machine.port(), machine.port());
            let mut started = host.listen(until)?;
            let task = Task {
                protocol,
                port,
                wake: Wake::AnyByte,
                part: Part::Serve { until },
            };
            // The job is never answered: the guest's next line is the hello of its next boot.
            drop(start(machine, &task)?);
            let mut service = next(&mut started).await?;
            calls.spawn(call(Arc::clone(&host), protocol, port, Work::Lost));
            let called = timeout(LIMIT, service.read_u8()).await;
            called.context("the call did not reach the guest")??;
            services.push(service);
        }
        machine.reboot()?;
        while let Some(call) = calls.join_next().await {
            call??;
        }
        Ok(Outcome::Passed)
    })
}

/// What an allocator may keep, and the memory blocks that in-process streams share.
const SLACK: u64 = 24 << 20;

/// Runs the work with every protocol, both ways.
fn each(machine: &mut Machine, work: Work, plan: Plan, check: Check) -> anyhow::Result<Outcome> {
    let mut figures = Vec::new();
    for protocol in ALL {
        match both_ways(machine, protocol, work, plan, check)? {
            Outcome::Measured(figure) => figures.push(format!("{protocol:?} {figure}")),
            other => return Ok(other),
        }
    }
    Ok(Outcome::Measured(figures.join("; ")))
}

/// Runs the work with the client in the guest, then on the host.
fn both_ways(
    machine: &mut Machine,
    protocol: Protocol,
    work: Work,
    plan: Plan,
    check: Check,
) -> anyhow::Result<Outcome> {
    let mut figures = Vec::new();
    for client in Opener::BOTH {
        let what = format!("{protocol:?}, client: {client:?}");
        let (seen, counts) = match client {
            Opener::Guest => from_guest(machine, protocol, work, plan),
            Opener::Host => from_host(machine, protocol, work, plan),
        }
        .with_context(|| what.clone())?;
        check(seen, counts).context(what)?;
        figures.push(format!("{} ms", seen.millis));
    }
    Ok(Outcome::Measured(figures.join(", ")))
}

/// The limit of any work.
const LONG: Duration = Duration::from_secs(80);

fn from_guest(
    machine: &mut Machine,
    protocol: Protocol,
    work: Work,
    plan: Plan,
) -> anyhow::Result<(Seen, Counts)> {
    let port = machine.port();
    let host = host(machine, plan);
    runtime(protocol)?.block_on(async {
        let service = serve(&*host, protocol, port)?;
        let task = Task {
            protocol,
            port,
            wake: plan.wake,
            part: Part::Call(work),
        };
        let answer = start(machine, &task)?;
        let seen = spawn_blocking(move || output_of(answer)).await??;
        Ok((serde_json::from_str(&seen)?, service.end().await?))
    })
}

fn from_host(
    machine: &mut Machine,
    protocol: Protocol,
    work: Work,
    plan: Plan,
) -> anyhow::Result<(Seen, Counts)> {
    let port = machine.port();
    from_host_at(machine, port, protocol, work, plan)
}

fn from_host_at(
    machine: &mut Machine,
    port: u32,
    protocol: Protocol,
    work: Work,
    plan: Plan,
) -> anyhow::Result<(Seen, Counts)> {
    let until = machine.port();
    let host = host(machine, plan);
    runtime(protocol)?.block_on(async {
        let mut started = host.listen(until)?;
        let task = Task {
            protocol,
            port,
            wake: plan.wake,
            part: Part::Serve { until },
        };
        let answer = start(machine, &task)?;
        let stop = next(&mut started).await?;
        let seen = timeout(LONG, call(host, protocol, port, work)).await;
        let seen = seen.context("the client did not finish in time")??;
        drop(stop);
        let counts = spawn_blocking(move || output_of(answer)).await??;
        Ok((seen, serde_json::from_str(&counts)?))
    })
}

/// Accepts the connection by which a service in the guest reports that it has started.
async fn next(incoming: &mut Incoming) -> anyhow::Result<Connection> {
    let service = timeout(LIMIT, incoming.next()).await;
    let service = service.context("the service of the guest does not start")?;
    Ok(service.context("the device has ended")??)
}

fn host(machine: &Machine, plan: Plan) -> Arc<dyn Transport> {
    let ends = machine.device().ends();
    let crumbs = plan.crumbs;
    Arc::new(Host { ends, crumbs })
}

// ttrpc 0.10 hands a stream's messages to tasks. On several threads they could overtake each other.
fn runtime(protocol: Protocol) -> anyhow::Result<Runtime> {
    let mut builder = match protocol {
        Protocol::Ttrpc => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    Ok(builder.worker_threads(2).enable_all().build()?)
}

fn start(machine: &Machine, task: &Task) -> anyhow::Result<Pending> {
    machine.guest().start(Job::Run {
        program: "/rpc".to_owned(),
        arguments: vec![serde_json::to_string(task)?],
    })
}

fn output_of(answer: Pending) -> anyhow::Result<String> {
    match answer.wait_for(LONG)? {
        Answer::Output(output) => Ok(output.out),
        other => bail!("the guest answered {other:?}"),
    }
}
