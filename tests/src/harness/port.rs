//! Ports that stay free while their server is down.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

/// Below the range from which the system takes the ports of outgoing connections (32768 and up on Linux). A port
/// of that range may be gone when a killed server comes back; and a client that tries to reconnect to such a port
/// can even be given it as its own, and so be connected to itself.
const FIRST: u32 = 10_240;
const COUNT: u32 = 32_768 - FIRST;

/// How many ports this process has tried.
static TRIED: AtomicU32 = AtomicU32::new(0);

/// A TCP port of 127.0.0.1 that nobody listens on, and that this process has not been given before.
///
/// # Errors
/// When all ports are taken.
pub fn free_port() -> Result<u16> {
    // Test processes that run at the same time begin far from one another.
    let start = std::process::id().wrapping_mul(7_919);
    for _ in 0..COUNT {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + start.wrapping_add(tried) % COUNT)?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port of 127.0.0.1 is free from {FIRST} to {}", FIRST + COUNT - 1)
}
