//! One client's connection: two links between two sockets, ended together.

use std::{
    net::{Shutdown, SocketAddr},
    sync::Arc,
    time::Duration,
};

use socket2::SockRef;
use tokio::{io::duplex, net::TcpStream, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    board::{Board, Link},
    inspector::{DRAIN_MS_MAX, Ending, Inspector, PIPE_BYTES, Side},
    link::{Broken, carry},
};

/// What is read and thrown away before an ordinary close. Unread data would turn it into a reset.
const UNREAD_BYTES_MAX: usize = 1024 * 1024;

/// Where a proxy's connections come from and lead to.
pub(super) struct Route {
    pub listener: Arc<str>,
    pub upstream: Arc<str>,
    pub board: Board,
}

/// Connects to the upstream and carries data both ways until both directions have ended, one
/// broke, or `stop` is cancelled.
pub(super) async fn serve(
    mut client: TcpStream,
    address: SocketAddr,
    number: u64,
    route: Arc<Route>,
    stop: CancellationToken,
) {
    let connected = tokio::select! {
        () = stop.cancelled() => return close([client]),
        connected = TcpStream::connect(&*route.upstream) => connected,
    };
    let mut server = match connected {
        Ok(server) => server,
        Err(error) => {
            tracing::debug!(upstream = %route.upstream, %error, "upstream did not take the connection");
            return close([client]);
        }
    };
    for socket in [&client, &server] {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "socket keeps its delay");
        }
    }
    let links = route.board.register(number, &route.listener, &route.upstream);
    let inspector = route.board.inspector(number, address);
    let outcome = tokio::select! {
        () = stop.cancelled() => Err(Broken::Close),
        outcome = async {
            match inspector {
                None => relay(&mut client, &mut server, links.up, links.down).await,
                Some(inspector) => inspect(&mut client, &mut server, inspector, links.up, links.down).await,
            }
        } => outcome,
    };
    match outcome {
        Err(Broken::Reset) => reset([client, server]),
        Ok(()) | Err(Broken::Close) => close([client, server]),
    }
    drop(links.registration);
}

async fn relay(client: &mut TcpStream, server: &mut TcpStream, up: Link, down: Link) -> Result<(), Broken> {
    let (client_reads, client_writes) = client.split();
    let (server_reads, server_writes) = server.split();
    tokio::try_join!(carry(client_reads, server_writes, up), carry(server_reads, client_writes, down)).map(|_| ())
}

/// As [`relay`], with the inspector between the client and the links.
async fn inspect(
    client: &mut TcpStream,
    server: &mut TcpStream,
    mut inspector: Box<dyn Inspector>,
    up: Link,
    down: Link,
) -> Result<(), Broken> {
    enum First {
        Inspector(Ending),
        Link(Broken),
    }
    let drain = Duration::from_millis(DRAIN_MS_MAX);
    let (client_reads, client_writes) = client.split();
    let (server_reads, server_writes) = server.split();
    let (to_links, from_inspector) = duplex(PIPE_BYTES);
    let (to_inspector, from_links) = duplex(PIPE_BYTES);
    let mut inspecting = inspector.relay(
        Side { reads: Box::new(client_reads), writes: Box::new(client_writes) },
        Side { reads: Box::new(from_links), writes: Box::new(to_links) },
    );
    let mut up = Box::pin(carry(from_inspector, server_writes, up));
    let mut down = Box::pin(carry(server_reads, to_inspector, down));
    let (mut up_ended, mut down_ended) = (false, false);
    let first = loop {
        tokio::select! {
            biased;
            ending = &mut inspecting => break First::Inspector(ending),
            outcome = &mut up, if !up_ended => match outcome {
                Ok(()) => up_ended = true,
                Err(broken) => break First::Link(broken),
            },
            outcome = &mut down, if !down_ended => match outcome {
                Ok(()) => down_ended = true,
                Err(broken) => break First::Link(broken),
            },
        }
    };
    match first {
        First::Inspector(Ending::Reset) | First::Link(Broken::Reset) => Err(Broken::Reset),
        First::Inspector(Ending::Close) if up_ended => Ok(()),
        First::Inspector(Ending::Close) => {
            drop(inspecting);
            timeout(drain, up).await.unwrap_or(Ok(()))
        }
        First::Link(Broken::Close) => {
            // Without their ends of the pipes, the inspector reads what is left and then no more.
            drop((up, down));
            match timeout(drain, inspecting).await {
                Ok(Ending::Reset) => Err(Broken::Reset),
                Ok(Ending::Close) | Err(_) => Err(Broken::Close),
            }
        }
    }
}

/// Closes with FIN.
fn close<const COUNT: usize>(sockets: [TcpStream; COUNT]) {
    let mut unread = vec![0; 64 * 1024];
    for socket in &sockets {
        // An error says that the peer has closed it, which is as good.
        let _ = SockRef::from(socket).shutdown(Shutdown::Write);
        let mut left = UNREAD_BYTES_MAX;
        while let Ok(count @ 1..) = socket.try_read(&mut unread)
            && left > count
        {
            left -= count;
        }
    }
}

/// Closes with RST.
fn reset<const COUNT: usize>(sockets: [TcpStream; COUNT]) {
    for socket in &sockets {
        if let Err(error) = SockRef::from(socket).set_linger(Some(Duration::ZERO)) {
            tracing::debug!(%error, "socket will be closed, not reset");
        }
    }
}
