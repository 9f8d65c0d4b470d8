//! The socket as the protocol sees it: every byte is noted in the connection's activity, and what the
//! protocol itself would say to something that is no request is said as a problem instead.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::activity::Activity;
use super::own_answer;

/// Where the socket is found again when the protocol is done with it.
pub(super) type Home = Arc<Mutex<Option<TcpStream>>>;

pub(super) struct ClientStream {
    /// Absent only while it is dropped.
    socket: Option<TcpStream>,
    home: Home,
    activity: Arc<Activity>,
    /// What is left of an answer in place of the protocol's.
    own: Bytes,
}

impl ClientStream {
    pub(super) fn new(socket: TcpStream, activity: Arc<Activity>) -> (Self, Home) {
        let home = Home::default();
        (Self { socket: Some(socket), home: Arc::clone(&home), activity, own: Bytes::new() }, home)
    }

    fn socket(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(self.socket.as_mut().expect("a socket until the end"))
    }

    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_pending() {
            self.activity.blocked();
        }
        written
    }

    /// Writes what is left of it.
    fn write_own(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.own.is_empty() {
            let own = self.own.clone();
            let written = self.socket().poll_write(cx, &own);
            let count = ready!(self.note(written))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let _ = self.own.split_to(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = self.socket.take();
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(self.socket().poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.activity.heard();
        } else {
            self.activity.ended();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.activity.is_answering() {
            if self.own.is_empty() {
                self.own = own_answer::in_place_of(bytes);
            }
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = self.socket().poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.activity.is_answering() {
            let first = parts.iter().find(|part| !part.is_empty());
            ready!(self.as_mut().poll_write(cx, first.map_or(&[], |part| part)))?;
            return Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()));
        }
        let written = self.socket().poll_write_vectored(cx, parts);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_own(cx))?;
        ready!(self.socket().poll_flush(cx))?;
        self.activity.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_own(cx))?;
        self.socket().poll_shutdown(cx)
    }
}
