//! One HTTP/1.1 connection, kept open, with as little between it and the socket as there can be: what the
//! generator costs is the same for both columns.

use std::net::SocketAddr;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What a request consists of beside its target.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Call {
    pub(crate) fn get(path: String) -> Self {
        Self { method: Method::GET, path, headers: HeaderMap::new(), body: Bytes::new() }
    }

    pub(crate) fn send_json(method: Method, path: &str, body: &serde_json::Value) -> Self {
        let json = HeaderValue::from_static("application/json");
        let call = Self { method, path: path.to_owned(), headers: HeaderMap::new(), body: body.to_string().into() };
        call.header(hyper::header::CONTENT_TYPE, json)
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_slice(&self.body).context("the answer is JSON")
    }
}

/// A connection; after an error it is of no more use.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: HeaderValue,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.context("connect")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.context("shake hands")?;
        tokio::spawn(connection);
        Ok(Self { sender, host: HeaderValue::from_str(&address.to_string())? })
    }

    /// Whether nobody has closed it yet.
    pub(crate) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    pub(crate) async fn call(&mut self, call: &Call) -> anyhow::Result<Answer> {
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = call.path.parse().context("read the path")?;
        *request.headers_mut() = call.headers.clone();
        request.headers_mut().insert(hyper::header::HOST, self.host.clone());
        self.sender.ready().await.context("wait for the connection")?;
        let (head, body) = self.sender.send_request(request).await.context("send")?.into_parts();
        let body = body.collect().await.context("read the body")?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}
