//! How long a server is waited for, and why it has not answered.

use std::task::{Context, Poll};

use super::Stop;
use crate::proxy::{
    retry::Sent,
    upstream::{FailureKind, Wait},
    watch::Watch,
};

/// For how long a server is waited for.
pub(super) struct Patience<'a> {
    pub(super) wait: &'a Wait,
    pub(super) watch: &'a Watch,
}

impl Patience<'_> {
    /// Polls what the server is to do, unless there is no hope any more.
    pub(super) fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        what: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<Result<T, Silence>> {
        if self.wait.is_abandoned(cx) {
            return Poll::Ready(Err(FailureKind::Abandoned.into()));
        }
        match what(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending if self.watch.server_expired() => {
                Poll::Ready(Err(FailureKind::ResponseTimeout.into()))
            }
            Poll::Pending => {
                self.watch.wait_for_server();
                Poll::Pending
            }
        }
    }
}

/// Why a server has not answered.
pub(super) enum Silence {
    /// It is no fault of the server's.
    Stop(Stop),
    /// It is.
    Failed(FailureKind, Sent),
}

impl From<Stop> for Silence {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<FailureKind> for Silence {
    fn from(kind: FailureKind) -> Self {
        Self::Failed(kind, Sent::Perhaps)
    }
}
