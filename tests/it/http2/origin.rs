//! A server that speaks HTTP/2 and does as its test says.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use bytes::Bytes;
use h2::{
    RecvStream,
    server::{Builder, SendResponse},
};
use http::{Request, Response};
use tokio::{net::TcpListener, sync::oneshot};

use super::frames::Raw;

/// A running server; its connections end with it.
#[derive(Debug)]
pub(super) struct Http2Origin {
    pub(super) addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    _end: oneshot::Sender<()>,
}

impl Http2Origin {
    /// Starts one that answers every request as `script` does.
    pub(super) fn start<F, Done>(script: F) -> Self
    where
        F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> Done + Clone + Send + Sync + 'static,
        Done: Future<Output = Result<(), h2::Error>> + Send + 'static,
    {
        Self::start_with(&Builder::new(), script)
    }

    /// Starts one whose connections are as `builder` has them.
    pub(super) fn start_with<F, Done>(builder: &Builder, script: F) -> Self
    where
        F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> Done + Clone + Send + Sync + 'static,
        Done: Future<Output = Result<(), h2::Error>> + Send + 'static,
    {
        let connections = Arc::<AtomicUsize>::default();
        let (http2, accepted) = (builder.clone(), Arc::clone(&connections));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("its address");
        listener.set_nonblocking(true).expect("a socket");
        let (end, ended) = oneshot::channel::<()>();
        thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a runtime");
                tokio::select! {
                    () = accept(listener, http2, accepted, script) => {}
                    _ = ended => {}
                }
            });
        });
        Self {
            addr,
            connections,
            _end: end,
        }
    }

    /// How many connections it has accepted.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }
}

async fn accept<F, Done>(
    listener: TcpListener,
    builder: Builder,
    accepted: Arc<AtomicUsize>,
    script: F,
) where
    F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> Done + Clone + Send + Sync + 'static,
    Done: Future<Output = Result<(), h2::Error>> + Send + 'static,
{
    while let Ok((socket, _)) = listener.accept().await {
        accepted.fetch_add(1, Relaxed);
        let (script, builder) = (script.clone(), builder.clone());
        tokio::spawn(async move {
            let Ok(mut connection) = builder.handshake(socket).await else {
                return;
            };
            while let Some(Ok((request, respond))) = connection.accept().await {
                // A script that fails has reset its stream.
                tokio::spawn(script(request, respond));
            }
        });
    }
}

/// Starts a server whose connections, by their number, are frames by hand.
pub(super) fn by_hand(script: impl Fn(Raw, usize) + Send + Sync + 'static) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("its address");
    let script = Arc::new(script);
    thread::spawn(move || {
        for (socket, number) in listener.incoming().flatten().zip(0..) {
            let script = Arc::clone(&script);
            thread::spawn(move || script(Raw::accepted(socket), number));
        }
    });
    addr
}

/// 200 without a body so far.
pub(super) fn ok() -> Response<()> {
    Response::new(())
}
