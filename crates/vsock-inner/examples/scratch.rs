#![allow(warnings)]
use std::io::{Read, Write};
use std::time::Instant;
use vsock_inner::*;
fn main() {
    for cap in [256 << 10, 1 << 20] {
    for size in [64usize, 1024, 4096, 65536] {
        let total: usize = match size { 64 => 256 << 20, 1024 => 2 << 30, _ => 8 << 30 };
        let mut v = vec![];
        for _ in 0..5 {
        let (mut a, mut b) = VsockInnerStream::pair_with(&VsockInnerConfig::default().to_device(Capacity::Bytes(cap))).unwrap();
        let t = Instant::now();
        let w = std::thread::spawn(move || {
            let buf = vec![7u8; size];
            for _ in 0..total / size { a.write_all(&buf).unwrap(); }
        });
        let mut buf = vec![0u8; 65536];
        let mut got = 0; let mut reads = 0u64;
        while got < total { let n = b.read(&mut buf).unwrap(); std::hint::black_box(&buf); got += n; reads += 1; }
        w.join().unwrap();
        let s = t.elapsed().as_secs_f64();
        v.push((total as f64 / s / 1e6, got as u64 / reads));
        }
        println!("cap {cap} size {size}: {:?}", v);
    }
    }
    for spin in [20u64, 0] {
    let (mut a, mut b) = VsockInnerStream::pair_with(&VsockInnerConfig::default().spin_budget(std::time::Duration::from_micros(spin))).unwrap();
    let n = if spin > 0 { 1_000_000 } else { 50_000 };
    let t = Instant::now();
    let w = std::thread::spawn(move || {
        let mut buf = [0u8; 64];
        for _ in 0..n { b.read_exact(&mut buf).unwrap(); b.write_all(&buf).unwrap(); }
    });
    let mut buf = [0u8; 64];
    for _ in 0..n { a.write_all(&buf).unwrap(); a.read_exact(&mut buf).unwrap(); }
    w.join().unwrap();
    println!("pingpong spin {spin}: {:?} per trip", t.elapsed() / n);
    }
    let backend = std::cell::RefCell::new(VsockInnerBackend::new().unwrap());
    let c = backend.borrow().get_connector();
    use vsock_backend_api::VsockBackend;
    let t = Instant::now();
    for _ in 0..100_000 { let x = c.connect().unwrap(); let y = backend.borrow_mut().accept().unwrap(); }
    println!("connect {:?}", t.elapsed() / 100_000);
}
