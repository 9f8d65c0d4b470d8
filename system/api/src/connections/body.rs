//! A request's body as it comes in: how long it may take, and how much all of them may hold.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use super::activity::{Activity, Phase};

/// Why a body is not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyFault {
    /// It did not come in time.
    #[error("the body did not come in time")]
    Slow,
    /// The bodies of all requests together are too many bytes now.
    #[error("no room for the body")]
    NoRoom,
    /// The client or the link broke off, or what came is no body.
    #[error("the body broke off")]
    Broken,
}

/// The fault that an error of reading a body stands for.
pub(crate) fn fault_of(error: &(dyn std::error::Error + 'static)) -> BodyFault {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(fault) = error.downcast_ref() {
            return *fault;
        }
        cause = error.source();
    }
    BodyFault::Broken
}

/// Bytes of bodies that all requests of the instance may hold together.
#[derive(Clone)]
pub(super) struct Room {
    left: Arc<AtomicUsize>,
}

impl Room {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { left: Arc::new(AtomicUsize::new(bytes_max)) }
    }

    fn take(&self, bytes: usize) -> bool {
        self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
}

/// The bytes of one request's body, given back when its work is done.
pub(super) struct Held {
    room: Room,
    bytes: AtomicUsize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.left.fetch_add(*self.bytes.get_mut(), Relaxed);
    }
}

/// The body behind a head, and what must be kept until the request's work is done; an empty one has nothing
/// of either.
pub(super) fn bounded(
    incoming: Incoming,
    activity: &Arc<Activity>,
    room: &Room,
    limit: Duration,
) -> (Body, Option<Arc<Held>>) {
    if incoming.is_end_stream() {
        return (Body::empty(), None);
    }
    let held = Arc::new(Held { room: room.clone(), bytes: AtomicUsize::new(0) });
    let kept = Some(Arc::clone(&held));
    (Body::new(Bounded { incoming, activity: Arc::clone(activity), held, limit, given_up: None }), kept)
}

struct Bounded {
    incoming: Incoming,
    activity: Arc<Activity>,
    held: Arc<Held>,
    limit: Duration,
    /// Set at the first wait for the client; most bodies come with their heads.
    given_up: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = &mut *self;
        let Poll::Ready(polled) = Pin::new(&mut this.incoming).poll_frame(cx) else {
            let given_up = match &mut this.given_up {
                Some(given_up) => given_up,
                none => {
                    this.activity.enter(Phase::Body);
                    none.insert(Box::pin(tokio::time::sleep(this.limit)))
                }
            };
            ready!(given_up.as_mut().poll(cx));
            return Poll::Ready(Some(Err(BodyFault::Slow)));
        };
        let Some(frame) = polled else {
            this.activity.body_came();
            return Poll::Ready(None);
        };
        let frame = frame.map_err(|_| BodyFault::Broken)?;
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        if !this.held.room.take(bytes) {
            return Poll::Ready(Some(Err(BodyFault::NoRoom)));
        }
        this.held.bytes.fetch_add(bytes, Relaxed);
        if this.incoming.is_end_stream() {
            this.activity.body_came();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_held_is_given_back() {
        let room = Room::new(10);
        let held = Held { room: room.clone(), bytes: AtomicUsize::new(0) };
        assert!(held.room.take(7));
        held.bytes.fetch_add(7, Relaxed);
        assert!(!room.take(4) && room.take(3));
        drop(held);
        assert!(room.take(7) && !room.take(1));
    }

    #[test]
    fn a_fault_is_found_below_whatever_was_wrapped_around_it() {
        assert_eq!(fault_of(&BodyFault::NoRoom), BodyFault::NoRoom);
        assert_eq!(fault_of(&axum::Error::new(BodyFault::Slow)), BodyFault::Slow);
        assert_eq!(fault_of(&std::io::Error::other("x")), BodyFault::Broken);
    }
}
