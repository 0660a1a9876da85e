//! epoll: every descriptor is registered once, edge-triggered, for reading
//! and writing, as tokio does it.

use std::{io, os::fd::AsFd, os::fd::OwnedFd, time::Duration};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
};

/// An epoll instance.
#[derive(Debug)]
pub struct Poll(OwnedFd);

impl Poll {
    pub fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Watches a descriptor until it is closed.
    pub fn add(&self, source: &impl AsFd, token: u64) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(
            &self.0,
            source,
            EventData::new_u64(token),
            flags,
        )?)
    }

    /// Waits for events and puts their tokens into `ready`.
    pub fn wait(&self, ready: &mut Ready, timeout: Option<Duration>) -> io::Result<()> {
        ready.0.clear();
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        match epoll::wait(&self.0, spare_capacity(&mut ready.0), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The events of one wait.
pub struct Ready(Vec<Event>);

impl Default for Ready {
    fn default() -> Self {
        Self(Vec::with_capacity(256))
    }
}

impl Ready {
    pub fn tokens(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|event| event.data.u64())
    }
}
