//! Addresses to listen on, as the API takes them, and why one cannot be had, as the official server says it.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
};

use tokio::net::{TcpListener, lookup_host};

/// Listens on a free loopback port when no address is asked for.
const LISTEN_DEFAULT: &str = "127.0.0.1:0";

/// Why nobody can listen there.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListenError {
    #[error("listen tcp: address {0}: missing port in address")]
    NoPort(String),
    #[error("listen tcp: lookup {address}: {error}")]
    Lookup { address: String, error: io::Error },
    #[error("listen tcp {address}: bind: {}", reason(error))]
    Bind { address: SocketAddr, error: io::Error },
}

/// The addresses of this text, best first: a host's IPv4 addresses before its others; without a
/// host those of all interfaces.
pub(super) async fn resolve(listen: &str) -> Result<Vec<SocketAddr>, ListenError> {
    let listen = if listen.is_empty() { LISTEN_DEFAULT } else { listen };
    let Some((host, port)) = listen.rsplit_once(':') else {
        return Err(ListenError::NoPort(listen.to_owned()));
    };
    if host.is_empty() {
        let lookup = |error| ListenError::Lookup { address: listen.to_owned(), error };
        let port: u16 = port.parse().map_err(|_| lookup(io::Error::other("unknown port")))?;
        return Ok(vec![
            (std::net::Ipv6Addr::UNSPECIFIED, port).into(),
            (std::net::Ipv4Addr::UNSPECIFIED, port).into(),
        ]);
    }
    let lookup = |error| ListenError::Lookup { address: listen.to_owned(), error };
    let mut addresses: Vec<SocketAddr> = lookup_host(listen).await.map_err(lookup)?.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    if addresses.is_empty() {
        return Err(lookup(io::Error::other("no such host")));
    }
    Ok(addresses)
}

/// Listens on the first of the addresses that can be had.
pub(super) async fn bind(listen: &str) -> Result<(TcpListener, SocketAddr), ListenError> {
    let addresses = resolve(listen).await?;
    let failed = |error| ListenError::Bind { address: addresses[0], error };
    let listener = TcpListener::bind(&addresses[..]).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => "address already in use".to_owned(),
        ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_resolved_with_ipv4_first_and_nothing_means_a_free_loopback_port() {
        assert_eq!(resolve("localhost:7070").await.expect("known")[0].to_string(), "127.0.0.1:7070");
        assert_eq!(resolve("").await.expect("default")[0].to_string(), "127.0.0.1:0");
        assert_eq!(resolve(":7070").await.expect("all")[0].to_string(), "[::]:7070");
    }

    #[tokio::test]
    async fn what_cannot_be_had_is_told_in_the_official_words() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = taken.local_addr().expect("address").to_string();
        let said = |error: Option<ListenError>| error.expect("refused").to_string();
        assert_eq!(said(bind(&address).await.err()), format!("listen tcp {address}: bind: address already in use"));
        assert_eq!(said(resolve("local373").await.err()), "listen tcp: address local373: missing port in address");
        assert!(said(resolve(":x").await.err()).starts_with("listen tcp: lookup :x: "));
    }
}
