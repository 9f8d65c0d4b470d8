//! Which address a request came from: the peer, or what a trusted proxy says the peer was.
//!
//! Law: a header from a peer outside the trusted networks changes nothing, so nobody outside can
//! choose the address it is limited under.

use std::net::IpAddr;

use axum::http::HeaderMap;

/// Most forwarded addresses looked at; a longer list falls back to the peer.
const HOPS_MAX: usize = 32;

/// A network in prefix notation, such as `10.0.0.0/8` or `::1/128`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustedNetwork {
    address: IpAddr,
    prefix_bits: u8,
}

/// The text is no network in prefix notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a network in prefix notation (address/bits)")]
pub struct BadNetwork;

impl std::str::FromStr for TrustedNetwork {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, bits) = text.split_once('/').ok_or(BadNetwork)?;
        let address: IpAddr = address.parse().map_err(|_| BadNetwork)?;
        let prefix_bits: u8 = bits.parse().map_err(|_| BadNetwork)?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        if prefix_bits > bits_max {
            return Err(BadNetwork);
        }
        Ok(Self { address, prefix_bits })
    }
}

impl TrustedNetwork {
    /// Whether `address` lies inside; an IPv4 address mapped into IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address.to_canonical(), address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix_bits)).unwrap_or(0);
                net.to_bits() & mask == ip.to_bits() & mask
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix_bits)).unwrap_or(0);
                net.to_bits() & mask == ip.to_bits() & mask
            }
            _ => false,
        }
    }
}

/// The client's address: walks `X-Forwarded-For` from its right end, past trusted proxies only.
///
/// A list that cannot be read, or is longer than 32 hops, is ignored as a whole.
#[must_use]
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[TrustedNetwork]) -> IpAddr {
    let is_trusted = |ip: IpAddr| trusted.iter().any(|network| network.contains(ip));
    let peer = peer.to_canonical();
    if !is_trusted(peer) {
        return peer;
    }
    let mut hops = Vec::new();
    for value in headers.get_all("x-forwarded-for") {
        let Ok(value) = value.to_str() else { return peer };
        for hop in value.split(',') {
            let Ok(hop) = hop.trim().parse::<IpAddr>() else { return peer };
            if hops.len() == HOPS_MAX {
                return peer;
            }
            hops.push(hop.to_canonical());
        }
    }
    let client = hops.iter().rev().find(|hop| !is_trusted(**hop)).or(hops.first());
    client.copied().unwrap_or(peer)
}

/// What a limiter counts an address under: all of an IPv4 address, the /64 of an IPv6 one, since one
/// household holds that many.
#[must_use]
pub fn limiter_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() & (u128::MAX << 64)).into()),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn seen(peer: &str, forwarded: &[&'static str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_static(value));
        }
        let trusted: Vec<_> = trusted.iter().map(|n| n.parse().unwrap()).collect();
        client_address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn a_peer_outside_the_trusted_networks_cannot_name_its_own_address() {
        assert_eq!(seen("203.0.113.9", &["198.51.100.1"], &["127.0.0.0/8"]), "203.0.113.9");
        assert_eq!(seen("127.0.0.1", &["198.51.100.1"], &[]), "127.0.0.1");
    }

    #[test]
    fn the_last_untrusted_hop_is_the_client_and_what_it_claimed_before_is_ignored() {
        let forwarded = ["8.8.8.8, 198.51.100.1", "10.0.0.2"];
        assert_eq!(seen("127.0.0.1", &forwarded, &["127.0.0.0/8", "10.0.0.0/8"]), "198.51.100.1");
        assert_eq!(seen("127.0.0.1", &["10.0.0.3, 10.0.0.2"], &["127.0.0.0/8", "10.0.0.0/8"]), "10.0.0.3");
    }

    #[test]
    fn an_unreadable_list_falls_back_to_the_peer() {
        assert_eq!(seen("127.0.0.1", &["8.8.8.8, nonsense"], &["127.0.0.0/8"]), "127.0.0.1");
        assert_eq!(seen("127.0.0.1", &[], &["127.0.0.0/8"]), "127.0.0.1");
    }

    #[test]
    fn networks_hold_at_both_ends_of_their_prefix() {
        let all: TrustedNetwork = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("255.1.2.3".parse().unwrap()));
        let one: TrustedNetwork = "::1/128".parse().unwrap();
        assert!(one.contains("::1".parse().unwrap()) && !one.contains("::2".parse().unwrap()));
        let mapped: TrustedNetwork = "127.0.0.0/8".parse().unwrap();
        assert!(mapped.contains("::ffff:127.0.0.1".parse().unwrap()));
        assert!("10.0.0.0/33".parse::<TrustedNetwork>().is_err() && "10.0.0.0".parse::<TrustedNetwork>().is_err());
    }

    #[test]
    fn ipv6_addresses_are_limited_by_their_network() {
        let key = |text: &str| limiter_address(text.parse().unwrap()).to_string();
        assert_eq!(key("2001:db8:1:2:3::4"), key("2001:db8:1:2:ffff::1"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("192.0.2.1"), "192.0.2.1");
    }
}
