//! One client's connection: two links between two sockets, ended together.

use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::{
    link::{Broken, carry},
    proxy::Board,
};

/// Connects to the upstream and carries data both ways until both directions have ended, one
/// broke, or `stop` is cancelled.
pub(super) async fn serve(mut client: TcpStream, upstream: String, board: Board, stop: CancellationToken) {
    let connected = tokio::select! {
        () = stop.cancelled() => return,
        connected = TcpStream::connect(&upstream) => connected,
    };
    let mut server = match connected {
        Ok(server) => server,
        Err(error) => {
            tracing::debug!(%upstream, %error, "upstream did not take the connection");
            return;
        }
    };
    for socket in [&client, &server] {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "socket keeps its delay");
        }
    }
    let links = board.register();
    let outcome = {
        let (client_reads, client_writes) = client.split();
        let (server_reads, server_writes) = server.split();
        let (up, down) = (links.up, links.down);
        tokio::select! {
            () = stop.cancelled() => Err(Broken::Close),
            outcome = async {
                tokio::try_join!(
                    carry(client_reads, server_writes, up.chain, up.changes),
                    carry(server_reads, client_writes, down.chain, down.changes),
                )
            } => outcome.map(|_| ()),
        }
    };
    if outcome == Err(Broken::Reset) {
        for socket in [&client, &server] {
            // With a linger of zero, closing sends RST in place of FIN.
            if let Err(error) = SockRef::from(socket).set_linger(Some(Duration::ZERO)) {
                tracing::debug!(%error, "socket will be closed, not reset");
            }
        }
    }
    drop(links.registration);
}
