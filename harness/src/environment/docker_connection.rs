//! Finds a container engine that answers, at the places where testcontainers looks as well.
//!
//! `DOCKER_HOST` first, then the sockets of Docker, rootless Docker and Docker Desktop. Podman is
//! looked for to be named: it takes part once `DOCKER_HOST` points at it.

use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use testcontainers::bollard::Docker;

/// A live engine answers a ping within milliseconds; a loaded one within this.
const PING_LIMIT: Duration = Duration::from_secs(5);

/// A container engine that answered a ping.
#[derive(Debug, Clone)]
pub struct DockerConnection {
    /// The API client.
    pub docker: Docker,
    /// The engine's address as given to the client, such as `unix:///var/run/docker.sock`.
    pub host: String,
    /// Where mapped ports are reached: 127.0.0.1 unless `DOCKER_HOST` names another machine.
    pub address: IpAddr,
}

/// Connects to the first engine that answers.
///
/// # Errors
/// If none does; the message names each place tried and what would help.
pub async fn connect() -> Result<DockerConnection> {
    let mut tried = Vec::new();
    for host in candidates() {
        match ping(&host).await {
            Ok(docker) => {
                let address = address_of(&host)?;
                return Ok(DockerConnection { docker, host, address });
            }
            Err(error) => tried.push(format!("{host}: {error:#}")),
        }
    }
    for socket in podman_sockets() {
        tried.push(format!("a podman socket is at {0}: set DOCKER_HOST=unix://{0} to use it", socket.display()));
    }
    if tried.is_empty() {
        tried.push("DOCKER_HOST is not set and no Docker socket was found".to_owned());
    }
    bail!("no container engine answers ({})", tried.join("; "))
}

/// Where an engine may listen. With `DOCKER_HOST` set, only there.
fn candidates() -> Vec<String> {
    if let Ok(host) = std::env::var("DOCKER_HOST")
        && !host.is_empty()
    {
        return vec![host];
    }
    let mut sockets = vec![PathBuf::from("/var/run/docker.sock")];
    for variable in ["XDG_RUNTIME_DIR", "HOME"] {
        if let Some(folder) = std::env::var_os(variable) {
            sockets.push(Path::new(&folder).join(".docker/run/docker.sock"));
        }
    }
    if let Some(home) = std::env::var_os("HOME") {
        sockets.push(Path::new(&home).join(".docker/desktop/docker.sock"));
    }
    // testcontainers takes the first socket that exists, whether or not somebody listens.
    sockets
        .into_iter()
        .find(|socket| socket.exists())
        .map(|socket| format!("unix://{}", socket.display()))
        .into_iter()
        .collect()
}

fn podman_sockets() -> Vec<PathBuf> {
    let mut sockets = vec![PathBuf::from("/run/podman/podman.sock")];
    if let Some(folder) = std::env::var_os("XDG_RUNTIME_DIR") {
        sockets.push(Path::new(&folder).join("podman/podman.sock"));
    }
    sockets.retain(|socket| socket.exists());
    sockets
}

async fn ping(host: &str) -> Result<Docker> {
    let docker = Docker::connect_with_host(host)?;
    match tokio::time::timeout(PING_LIMIT, docker.ping()).await {
        Ok(answer) => answer?,
        Err(_) => bail!("does not answer within {} s", PING_LIMIT.as_secs()),
    };
    Ok(docker)
}

fn address_of(host: &str) -> Result<IpAddr> {
    let Some(rest) =
        host.strip_prefix("tcp://").or_else(|| host.strip_prefix("http://")).or_else(|| host.strip_prefix("https://"))
    else {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    };
    let name = rest.split('/').next().unwrap_or(rest);
    let name = if name.contains(':') { name.to_owned() } else { format!("{name}:2375") };
    match name.to_socket_addrs()?.map(|address| address.ip()).find(IpAddr::is_ipv4) {
        Some(address) => Ok(address),
        None => bail!("the engine's host {name} has no IPv4 address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_ports_of_a_socket_are_on_the_loopback_address() {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(address_of("unix:///var/run/docker.sock").unwrap(), loopback);
        assert_eq!(address_of("tcp://127.0.0.1:2375").unwrap(), loopback);
        assert_eq!(address_of("tcp://10.1.2.3").unwrap(), "10.1.2.3".parse::<IpAddr>().unwrap());
    }
}
