//! The handle of a running node, and what it and the driver tell each other.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::{
    core::Core,
    identity::{Id, MetaError},
    wire::{Counters, Envelope, Keyring},
};
use crate::membership::{MemberId, MemberView, Meta, Name, Wish};

/// A running node. It ends when it has left, or when the last clone of its
/// handle is dropped, which to the others is a crash.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) demands: watch::Sender<Demand>,
    pub(super) declarations: mpsc::Sender<Declaration>,
    pub(super) published: watch::Receiver<Published>,
    pub(super) envelope: Arc<Envelope>,
    pub(super) counters: Arc<Counters>,
}

impl Handle {
    /// Says something new of this node; all others know it in milliseconds.
    pub fn update(&self, meta: Meta) -> Result<(), MetaError> {
        Id::new(self.local().addr, 0, &meta)?;
        self.demands.send_modify(|demand| demand.meta = meta);
        Ok(())
    }

    /// Says what an operator wants of a server, which need not be there. Every
    /// node keeps it, the latest word counting, and hands it to those that
    /// come later; here it comes out as [`MemberEvent::Wanted`] like any other.
    ///
    /// `false` when it is lost: the node has ended, or thousands more wait.
    ///
    /// [`MemberEvent::Wanted`]: crate::membership::MemberEvent::Wanted
    pub fn declare(&self, service: Name, server: Name, wish: Wish) -> bool {
        let declaration = Declaration {
            service,
            server,
            wish,
        };
        self.declarations.try_send(declaration).is_ok()
    }

    /// Says goodbye, and returns once that has gone out, in some 60 ms; the
    /// node has ended then.
    pub async fn leave(&self) {
        self.demands.send_modify(|demand| demand.leave = true);
        let mut published = self.published.clone();
        while published.changed().await.is_ok() {}
    }

    /// Every member, this node first, those that are gone for a minute.
    pub fn members(&self) -> Arc<Vec<MemberView>> {
        Arc::clone(&self.published.borrow().members)
    }

    /// Waits until [`Handle::members`] has changed since the last call on
    /// this handle; `false` when the node has ended.
    pub async fn changed(&mut self) -> bool {
        self.published.changed().await.is_ok()
    }

    /// This node's own id. Its address may change, see [`Settings::found`];
    /// [`Handle::changed`] tells.
    ///
    /// [`Settings::found`]: super::Settings::found
    pub fn local(&self) -> MemberId {
        self.published.borrow().local
    }

    /// What went over the wire so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Uses other keys from now on, without a pause.
    pub fn set_keyring(&self, keyring: Keyring) {
        self.envelope.set_keyring(keyring);
    }
}

/// What the handles want of the driver; the latest counts.
#[derive(Debug, Clone)]
pub(super) struct Demand {
    pub(super) meta: Meta,
    pub(super) leave: bool,
}

/// What an operator wants of a server, before it has a version.
#[derive(Debug)]
pub(super) struct Declaration {
    pub(super) service: Name,
    pub(super) server: Name,
    pub(super) wish: Wish,
}

/// What the driver last knew.
#[derive(Debug, Clone)]
pub(super) struct Published {
    pub(super) members: Arc<Vec<MemberView>>,
    pub(super) local: MemberId,
}

impl Published {
    pub(super) fn of(core: &Core) -> Self {
        Self {
            members: Arc::new(core.view()),
            local: core.local(),
        }
    }
}
