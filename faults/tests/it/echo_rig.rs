//! A proxy in front of a server that sends back what it gets, and a client to measure both.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use nogo_faults::{ProxySpec, Stream, ToxiClient, Toxic, ToxidHandle, ToxidOptions, ToxidServer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

pub const LIMIT: Duration = Duration::from_secs(5);
pub const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A proxy named `echo` in front of a server that sends back what it gets.
pub struct Rig {
    pub server: ToxidHandle,
    pub client: ToxiClient,
    pub listen: SocketAddr,
}

impl Rig {
    pub async fn start() -> Self {
        Self::start_with(ToxidOptions { seed: 1, ..ToxidOptions::default() }).await
    }

    pub async fn start_with(options: ToxidOptions) -> Self {
        Self::start_before(options, echo_server().await).await
    }

    /// The server is the test itself.
    pub async fn start_listening(options: ToxidOptions) -> (Self, TcpListener) {
        let listener = TcpListener::bind(LOOPBACK).await.expect("bind");
        let upstream = listener.local_addr().expect("address");
        (Self::start_before(options, upstream).await, listener)
    }

    async fn start_before(options: ToxidOptions, upstream: SocketAddr) -> Self {
        let server = ToxidServer::start_with(options, LOOPBACK).await.expect("start");
        let client = ToxiClient::connect(server.api_addr()).await.expect("connect");
        let spec = ProxySpec { name: "echo".into(), listen: LOOPBACK.to_string(), upstream: upstream.to_string() };
        let proxy = client.create_proxy(&spec).await.expect("create");
        let listen = proxy.listen.parse().expect("address");
        Self { server, client, listen }
    }

    /// Both ends of a new connection: the client's and the server's.
    pub async fn pair(&self, listener: &TcpListener) -> (TcpStream, TcpStream) {
        let client = self.connect().await;
        let (server, _) = timeout(LIMIT, listener.accept()).await.expect("in time").expect("accept");
        (client, server)
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.listen).await.expect("connect to the proxy")
    }

    pub async fn add(&self, stream: Stream, toxic: Toxic) {
        self.client.add_toxic("echo", stream, toxic).await.expect("add toxic");
    }
}

/// Echoes until the client ends, then ends as well. Ends with the test's runtime.
pub async fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind(LOOPBACK).await.expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reads, mut writes) = socket.split();
                // A reset is what some tests are after; it ends the copy.
                let _ = tokio::io::copy(&mut reads, &mut writes).await;
                let _ = writes.shutdown().await;
            });
        }
    });
    address
}

/// Sends the text and waits for it to come back; how long that took.
pub async fn echo(socket: &mut TcpStream, text: &[u8]) -> Duration {
    let start = Instant::now();
    socket.write_all(text).await.expect("send");
    let mut answer = vec![0; text.len()];
    timeout(LIMIT, socket.read_exact(&mut answer)).await.expect("in time").expect("receive");
    assert_eq!(answer, text);
    start.elapsed()
}

/// What a read of one more byte gives.
pub async fn next_read(socket: &mut TcpStream) -> Result<usize, ErrorKind> {
    let read = timeout(LIMIT, socket.read(&mut [0; 1])).await.expect("in time");
    read.map_err(|error| error.kind())
}

/// Bytes that show where one is missing or moved.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 % 251) as u8).collect()
}
