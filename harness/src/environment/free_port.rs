//! Chooses ports that a restarted server can take again.
//!
//! Ports from the kernel's ephemeral range may be taken by any outgoing connection while a server
//! is down; these lie below it. Nothing is assumed to be on a standard port.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Result, bail};

const LOWEST: u16 = 20_000;
const ATTEMPTS_MAX: u32 = 200;

/// A port on 127.0.0.1 that nobody listens on, below the ephemeral range where there is room.
/// Two callers at once get different ports but for a chance of one in some thousands; a server
/// that fails to listen then says so.
///
/// # Errors
/// If none of 200 drawn ports is free.
pub fn free_port() -> Result<u16> {
    let highest = ephemeral_start().unwrap_or(32_768);
    let range = if highest > LOWEST + 1_000 { LOWEST..highest } else { LOWEST..60_000 };
    for _ in 0..ATTEMPTS_MAX {
        let port = rand::random_range(range.clone());
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between {} and {}", range.start, range.end)
}

fn ephemeral_start() -> Option<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    text.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_can_be_bound_and_lies_below_the_ephemeral_range() {
        let port = free_port().unwrap();
        assert!(port >= LOWEST);
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    }
}
