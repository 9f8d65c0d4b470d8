//! One direction of one connection: reads, passes through the chain, writes.
//!
//! Never waits for anything but the next event, so that a change of toxics is taken at once even
//! while the reader on the other side is stuck.

use std::{io, sync::Arc, time::Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{ReadHalf, WriteHalf},
    sync::{mpsc::UnboundedReceiver, oneshot},
};

use super::{
    chain::Chain,
    stage::{End, Item},
    toxic::ToxicConfig,
};

const READ_BYTES: usize = 64 * 1024;
const READ_BYTES_MIN: usize = 8 * 1024;

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
pub(super) async fn carry(
    mut source: ReadHalf<'_>,
    mut destination: WriteHalf<'_>,
    mut chain: Chain,
    mut changes: UnboundedReceiver<Change>,
) -> Result<(), Broken> {
    let mut buffer = BytesMut::new();
    let mut unsent = Bytes::new();
    let mut source_ended = false;
    loop {
        if write_ready(&mut chain, &mut unsent, &destination)? {
            return destination.shutdown().await.map_err(|_| Broken::Close);
        }
        let may_read = !source_ended && unsent.is_empty() && chain.has_room();
        if may_read && buffer.capacity() < READ_BYTES_MIN {
            buffer.reserve(READ_BYTES);
        }
        let due = if unsent.is_empty() { chain.due() } else { None };
        tokio::select! {
            biased;
            Some(change) = changes.recv() => {
                chain.reconcile(&change.toxics, Instant::now());
                // Whoever asked may have gone; the change holds all the same.
                let _ = change.taken.send(());
            }
            count = source.read_buf(&mut buffer), if may_read => {
                match count {
                    Ok(0) => {
                        source_ended = true;
                        chain.push_eof(Instant::now());
                    }
                    Ok(_) => chain.push(buffer.split().freeze(), Instant::now()),
                    Err(_) => return Err(Broken::Close),
                }
            }
            writable = destination.writable(), if !unsent.is_empty() => {
                writable.map_err(|_| Broken::Close)?;
            }
            () = sleep_until(due), if due.is_some() => {}
        }
    }
}

/// Writes what has passed the chain as far as the destination takes it; true after the end.
fn write_ready(chain: &mut Chain, unsent: &mut Bytes, destination: &WriteHalf<'_>) -> Result<bool, Broken> {
    loop {
        if unsent.is_empty() {
            match chain.pop(Instant::now()) {
                Some(Item::Data(bytes, _)) => *unsent = bytes,
                Some(Item::End(End::Eof)) => return Ok(true),
                Some(Item::End(End::Close)) => return Err(Broken::Close),
                Some(Item::End(End::Reset)) => return Err(Broken::Reset),
                None => return Ok(false),
            }
        }
        match destination.try_write(unsent) {
            Ok(count) => unsent.advance(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(_) => return Err(Broken::Close),
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due.into()).await;
    }
}
