//! Moves the bytes of one connection through its follower, within a proxy.

use std::{io, time::Instant};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    book::RuleBook,
    follower::{Follower, Passed},
    observer::Origin,
    operation::Protocol,
};
use crate::{
    fault::BoxFuture,
    network::Stream,
    toxid::{Accepted, Ending, Inspector, InspectorFactory, Side},
};

const READ_BYTES: usize = 64 * 1024;
const READ_BYTES_MIN: usize = 8 * 1024;

/// Gives each connection of a link a follower of its own.
pub(super) struct BookInspectors {
    pub book: RuleBook,
    pub origin: Origin,
    pub protocol: Protocol,
}

impl InspectorFactory for BookInspectors {
    fn inspector(&self, _: &Accepted) -> Option<Box<dyn Inspector>> {
        Some(Box::new(self.book.follow(self.origin.clone(), self.protocol)))
    }
}

impl Inspector for Follower {
    fn relay<'a>(&'a mut self, client: Side<'a>, server: Side<'a>) -> BoxFuture<'a, Ending> {
        Box::pin(relay(self, client, server))
    }
}

/// Relays until both directions have ended, a rule ends the connection, or a side takes no more.
async fn relay(follower: &mut Follower, client: Side<'_>, server: Side<'_>) -> Ending {
    let mut releases = follower.releases();
    let mut up = Way::new(Stream::Upstream, client.reads, server.writes);
    let mut down = Way::new(Stream::Downstream, server.reads, client.writes);
    loop {
        let now = Instant::now();
        if let Some(ending) = up.load(follower, now).or_else(|| down.load(follower, now)) {
            return ending;
        }
        if up.is_over && down.is_over {
            return Ending::Close;
        }
        let due = follower.due();
        let moved = tokio::select! {
            moved = up.step(follower.has_room(Stream::Upstream)) => moved,
            moved = down.step(follower.has_room(Stream::Downstream)) => moved,
            // The book lives as long as the follower, so its word cannot fail.
            _ = releases.changed() => Ok(Moved::Nothing),
            () = sleep_until(due), if due.is_some() => Ok(Moved::Nothing),
        };
        match moved {
            Ok(Moved::Nothing) => {}
            Ok(Moved::Read(stream, bytes)) => follower.feed(stream, bytes, Instant::now()),
            Ok(Moved::Ended(stream)) => follower.end(stream, Instant::now()),
            Err(error) => {
                tracing::debug!(%error, "a peer takes no more");
                return Ending::Close;
            }
        }
    }
}

enum Moved {
    Nothing,
    Read(Stream, BytesMut),
    Ended(Stream),
}

/// One direction: where it reads, and where what has passed is written.
struct Way<R, W> {
    stream: Stream,
    reads: R,
    writes: W,
    buffer: BytesMut,
    unsent: BytesMut,
    source_ended: bool,
    /// All was written, the end is to be told.
    shuts_down: bool,
    is_over: bool,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Way<R, W> {
    fn new(stream: Stream, reads: R, writes: W) -> Self {
        Self {
            stream,
            reads,
            writes,
            buffer: BytesMut::new(),
            unsent: BytesMut::new(),
            source_ended: false,
            shuts_down: false,
            is_over: false,
        }
    }

    /// Fetches what goes on next; the connection's end, if that is it.
    fn load(&mut self, follower: &mut Follower, now: Instant) -> Option<Ending> {
        if self.is_over || self.shuts_down || !self.unsent.is_empty() {
            return None;
        }
        match follower.next(self.stream, now)? {
            Passed::Data(bytes) => self.unsent = bytes,
            Passed::Eof => self.shuts_down = true,
            Passed::Cut => return Some(Ending::Close),
            Passed::Reset => return Some(Ending::Reset),
        }
        None
    }

    /// Writes some of what has passed, or reads if there is room. Cancel-safe: a cancelled read or
    /// write has moved nothing.
    async fn step(&mut self, has_room: bool) -> io::Result<Moved> {
        let may_read = has_room && !self.source_ended;
        if may_read && self.buffer.capacity() < READ_BYTES_MIN {
            self.buffer.reserve(READ_BYTES);
        }
        let must_write = self.shuts_down || !self.unsent.is_empty();
        tokio::select! {
            written = write(&mut self.writes, &self.unsent), if must_write => {
                match written? {
                    0 => {
                        self.shuts_down = false;
                        self.is_over = true;
                    }
                    count => self.unsent.advance(count),
                }
                Ok(Moved::Nothing)
            }
            count = self.reads.read_buf(&mut self.buffer), if may_read => {
                // A reset says as well that no more comes; what came before is under way still.
                if count.unwrap_or(0) == 0 {
                    self.source_ended = true;
                    return Ok(Moved::Ended(self.stream));
                }
                Ok(Moved::Read(self.stream, self.buffer.split()))
            }
            else => std::future::pending().await,
        }
    }
}

/// Writes some of the bytes; none left to write means to shut down, and 0 is returned.
async fn write<W: AsyncWrite + Unpin>(writes: &mut W, unsent: &[u8]) -> io::Result<usize> {
    if unsent.is_empty() {
        writes.shutdown().await?;
        return Ok(0);
    }
    match writes.write(unsent).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        count => Ok(count),
    }
}

async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due.into()).await;
    }
}
