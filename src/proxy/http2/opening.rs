//! Connections to servers that are being opened, and who waits for them. A
//! burst that finds none opens as few as it needs.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Waker},
};

use tokio_util::sync::CancellationToken;

use crate::proxy::upstream::FailureKind;

/// The connections that are being opened to one server.
#[derive(Default)]
pub(super) struct Openings(Vec<Rc<Opening>>);

/// One of them.
struct Opening {
    /// It is there, or will not be.
    over: CancellationToken,
    failure: Cell<Option<FailureKind>>,
    /// How many more may wait for it.
    places: Cell<usize>,
}

/// Whoever opens a connection. Dropped, it is open, or whoever opened it has
/// given up; who waits looks for it, and may open one.
pub(in crate::proxy) struct Opener(Rc<Opening>);

/// Whoever waits for a connection.
pub(super) struct Waiter(Rc<Opening>);

impl Openings {
    /// A place at one of them, if there is any.
    pub(super) fn wait(&mut self) -> Option<Waiter> {
        self.0.retain(|opening| !opening.over.is_cancelled());
        let mut openings = self.0.iter();
        let opening = openings.find(|opening| opening.places.get() > 0)?;
        opening.places.set(opening.places.get() - 1);
        Some(Waiter(Rc::clone(opening)))
    }

    /// Another one, for as many requests as a connection takes.
    pub(super) fn begin(&mut self, requests: usize) -> Opener {
        let opening = Rc::new(Opening {
            over: CancellationToken::new(),
            failure: Cell::new(None),
            places: Cell::new(requests.saturating_sub(1)),
        });
        self.0.push(Rc::clone(&opening));
        Opener(opening)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|opening| opening.over.is_cancelled())
    }
}

impl Opener {
    /// Nobody who waits for it need try the same.
    pub(in crate::proxy) fn fail(self, kind: FailureKind) -> FailureKind {
        self.0.failure.set(Some(kind));
        kind
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        self.0.over.cancel();
    }
}

impl Waiter {
    /// Waits until it is over, one way or the other.
    pub(super) async fn over(&self) -> Result<(), FailureKind> {
        self.0.over.cancelled().await;
        self.0.failure.get().map_or(Ok(()), Err)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.places.set(self.0.places.get() + 1);
    }
}

/// Wakes a task at every look into a connection.
#[derive(Debug, Default)]
pub(super) struct Bell(RefCell<Option<Waker>>);

impl Bell {
    /// Wakes this task the next time.
    pub(super) fn set(&self, cx: &Context<'_>) {
        self.0.replace(Some(cx.waker().clone()));
    }

    pub(super) fn ring(&self) {
        if let Some(waker) = self.0.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn as_many_wait_as_the_connection_takes_and_others_open_another() {
        let mut openings = Openings::default();
        assert!(openings.wait().is_none(), "there is nothing to wait for");
        let first = openings.begin(3);
        let waiters = [(); 2].map(|()| openings.wait().unwrap());
        assert!(openings.wait().is_none());
        let _second = openings.begin(1);
        assert!(openings.wait().is_none());
        let [gone, stays] = waiters;
        drop(gone);
        let again = openings.wait().unwrap();
        assert!(openings.wait().is_none());
        drop(first);
        for waiter in [stays, again] {
            assert_eq!(waiter.over().await, Ok(()));
        }
        assert!(openings.wait().is_none(), "it is over");
    }

    #[tokio::test]
    async fn who_waits_shares_the_failure() {
        let mut openings = Openings::default();
        let opener = openings.begin(2);
        let waiter = openings.wait().unwrap();
        opener.fail(FailureKind::Refused);
        assert_eq!(waiter.over().await, Err(FailureKind::Refused));
        assert!(openings.is_empty());
    }
}
