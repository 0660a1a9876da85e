//! HTTP/2 (RFC 9113), at the edges only: each stream of a client's connection
//! becomes a connection of HTTP/1.1 inside the process, and each request to a
//! server that speaks HTTP/2 becomes a stream of a connection to it.
//!
//! So there is one reader of requests, which is strict, one way through the
//! balancer, and one set of limits, whatever a client speaks; what one
//! protocol cannot say in the other's words cannot be smuggled in. It costs a
//! copy of each body and a head read twice, beside what hyper's HTTP/2 costs.

mod clients;
mod heads;
mod near;
mod opening;
mod pipe;
mod servers;

use tokio::task::spawn_local;

pub(super) use self::{
    clients::{PREFACE, serve},
    near::Near,
    servers::{Found, Link, Multiplexed},
};

/// Bytes that wait between a stream and its connection, each way. What does
/// not fit waits at the other end: flow control passes it on.
const PIPE: usize = 32 * 1024;

/// What is received of a stream, and of all streams of a connection together,
/// before its sender has to wait (RFC 9113 §5.2). The second bounds what a
/// connection can make us hold.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// The same of a server's streams. Its connections are shared by users, and none
/// who does not read may keep the others waiting: there is room for what all
/// streams may send.
const SERVER_STREAM_WINDOW: u32 = 64 * 1024;
const SERVER_WINDOW: u32 = STREAMS * SERVER_STREAM_WINDOW;

/// The most streams at a time on a connection (RFC 9113 §5.1.2). `HAProxy`
/// and nginx have 100 and 128.
const STREAMS: u32 = 100;

/// Runs what hyper spawns on the worker's own thread.
#[derive(Debug, Clone, Copy)]
struct Here;

impl<F> hyper::rt::Executor<F> for Here
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, task: F) {
        spawn_local(task);
    }
}
