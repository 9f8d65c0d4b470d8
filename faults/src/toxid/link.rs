//! One direction of one connection: reads, passes through the chain, writes.
//!
//! Never waits for anything but the next event, so that a change of toxics is taken at once even
//! while the reader on the other side is stuck. Bytes are read into a buffer that the chain and the
//! write share, so a link without toxics copies them only into and out of the kernel.

use std::{sync::Arc, time::Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::oneshot,
};

use super::{
    board::Link,
    stage::{End, Item},
    toxic::ToxicConfig,
};

/// A read that fills its buffer doubles it, up to the maximum: large transfers take few calls, and
/// a thousand idle links little memory.
const READ_BYTES_MIN: usize = 16 * 1024;
const READ_BYTES_MAX: usize = 256 * 1024;

/// New toxics for a live link; answered when they act.
pub(super) struct Change {
    pub toxics: Arc<[ToxicConfig]>,
    pub taken: oneshot::Sender<()>,
}

/// Why the whole connection must end, not this direction alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    Close,
    Reset,
}

/// Carries data until the source ends (then the destination is shut down) or the connection
/// breaks.
pub(super) async fn carry<R, W>(mut source: R, mut destination: W, link: Link) -> Result<(), Broken>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let Link { mut chain, mut changes, mut traffic } = link;
    let mut buffer = ReadBuffer::new();
    let mut unsent = Bytes::new();
    let mut source_ended = false;
    loop {
        if unsent.is_empty() {
            match chain.pop(Instant::now()) {
                Some(Item::Data(bytes, _)) => unsent = bytes,
                Some(Item::End(End::Eof)) => return destination.shutdown().await.map_err(|_| Broken::Close),
                Some(Item::End(End::Close)) => return Err(Broken::Close),
                Some(Item::End(End::Reset)) => return Err(Broken::Reset),
                None => {}
            }
        }
        let may_read = !source_ended && unsent.is_empty() && chain.has_room();
        if may_read {
            buffer.make_room();
        }
        let due = if unsent.is_empty() { chain.due() } else { None };
        tokio::select! {
            biased;
            Some(change) = changes.recv() => {
                chain.reconcile(&change.toxics, Instant::now());
                // Whoever asked may have gone; the change holds all the same.
                let _ = change.taken.send(());
            }
            written = destination.write(&unsent), if !unsent.is_empty() => match written {
                Ok(count @ 1..) => {
                    traffic.sent(count);
                    unsent.advance(count);
                    if unsent.is_empty() {
                        // Gives the buffer back, so that the next read can use it again.
                        unsent = Bytes::new();
                    }
                }
                Ok(0) | Err(_) => return Err(Broken::Close),
            },
            count = source.read_buf(&mut buffer.bytes), if may_read => match count {
                Ok(0) => {
                    source_ended = true;
                    chain.push_end(End::Eof, Instant::now());
                }
                Ok(count) => {
                    traffic.received(count);
                    chain.push(buffer.take(), Instant::now());
                }
                // A peer that broke off says so in its turn, behind the data before it.
                Err(_) => {
                    source_ended = true;
                    chain.push_end(End::Close, Instant::now());
                }
            },
            () = sleep_until(due), if due.is_some() => {}
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due.into()).await;
    }
}

/// What was read last, and room for the next read.
struct ReadBuffer {
    bytes: BytesMut,
    size: usize,
}

impl ReadBuffer {
    fn new() -> Self {
        Self { bytes: BytesMut::new(), size: READ_BYTES_MIN }
    }

    /// Takes memory where less than half of the size is left; the old one again, if all that was
    /// read into it has been written.
    fn make_room(&mut self) {
        if self.bytes.capacity() < self.size / 2 {
            self.bytes.reserve(self.size);
        }
    }

    fn take(&mut self) -> Bytes {
        if self.bytes.len() == self.bytes.capacity() {
            self.size = (self.size * 2).min(READ_BYTES_MAX);
        }
        self.bytes.split().freeze()
    }
}
