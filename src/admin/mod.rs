//! `HAProxy`'s runtime API: the text commands that scripts, socat and
//! monitoring send to look at a load balancer and to steer its servers.
//!
//! A connection's bytes become lines ([`session`]), a line becomes commands
//! ([`line`](mod@line)), a command's words are read ([`command`]) and carried out
//! ([`exec`]). What operators want of a server goes to every load balancer
//! ([`exec::set`]), whoever asks for it. The texts are `HAProxy`'s own, to the letter, since its clients
//! compare them.

mod absent;
pub mod address;
pub mod answer;
mod arguments;
pub mod client;
pub mod command;
pub mod exec;
mod fleet;
mod info;
pub mod level;
pub mod line;
pub mod listen;
mod number;
mod server_arguments;
mod server_connections;
mod server_state;
pub mod session;
mod show;
mod verbs;

use std::{fmt, io, net::IpAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::mpsc,
    time::sleep,
};

pub use self::{
    address::Address,
    level::Level,
    listen::{Listener, SocketFiles},
    server_arguments::weight,
};
use crate::{
    desk::{places::Places, taken::Taken},
    membership::{Name, Wish},
    net,
    pool::Input,
    proxy, stats,
};

/// Connections to a listener at a time, half of them from one address: many
/// scripts and a few people, and a bound on what a flood of them may hold.
const MOST_CONNECTIONS: usize = 64;

/// How long accepting rests after an error that does not pass by itself.
const AFTER_ERROR: Duration = Duration::from_millis(20);

/// Records what an operator wants of a server of a service, for every
/// balancer; an error says why that is not possible now.
pub type Declare = Box<dyn Fn(&Name, &Name, Wish) -> Result<(), String> + Send + Sync>;

/// What commands work on.
pub struct Controls {
    /// What they show.
    pub source: Arc<stats::Source>,
    /// What they change at every load balancer.
    pub declare: Declare,
    /// The pool here, for what concerns this load balancer alone.
    pub inputs: mpsc::Sender<Input>,
    /// The workers here.
    pub workers: proxy::Control,
}

impl Controls {
    /// Tells the pool something.
    async fn tell(&self, input: Input) -> Result<(), String> {
        let told = self.inputs.send(input).await;
        told.map_err(|_| "The load balancer is ending.".to_owned())
    }

    /// Controls of a balancer that nothing runs behind, for tests.
    #[cfg(test)]
    fn over(source: Arc<stats::Source>) -> Self {
        Self {
            source,
            declare: Box::new(|_, _, _| Ok(())),
            inputs: mpsc::channel(1).0,
            workers: proxy::Control::default(),
        }
    }
}

impl fmt::Debug for Controls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controls")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// Takes commands on every listener, for ever. Where no `level` is given to
/// all, each peer has its own. The socket files go with what is returned.
pub fn start(
    listeners: Vec<Listener>,
    level: Option<Level>,
    controls: &Arc<Controls>,
) -> io::Result<SocketFiles> {
    let mut files = SocketFiles::default();
    for listener in &listeners {
        files.add(listener);
    }
    for listener in listeners {
        // Each has its own places: whoever fills those of the network keeps
        // nobody from the socket on this machine.
        let door = Door {
            level,
            controls: Arc::clone(controls),
            places: Places::new(MOST_CONNECTIONS),
        };
        match listener {
            Listener::Tcp(listener) => {
                tokio::spawn(door.accept(TcpListener::from_std(listener)?));
            }
            Listener::Unix(listener) => {
                tokio::spawn(door.accept_unix(UnixListener::from_std(listener)?));
            }
        }
    }
    Ok(files)
}

/// Who comes in, and with what say.
struct Door {
    level: Option<Level>,
    controls: Arc<Controls>,
    places: Arc<Places>,
}

impl Door {
    async fn accept(self, listener: TcpListener) {
        loop {
            let (stream, peer) = net::accept(&listener).await;
            let ip = peer.ip();
            self.admit(stream, Some(ip), Level::of(ip)).await;
        }
    }

    async fn accept_unix(self, listener: UnixListener) {
        loop {
            match listener.accept().await {
                // Its file lets in nobody else.
                Ok((stream, _)) => self.admit(stream, None, Level::Admin).await,
                Err(err) => {
                    tracing::warn!("cannot accept commands for a moment: {err}");
                    sleep(AFTER_ERROR).await;
                }
            }
        }
    }

    async fn admit(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Option<IpAddr>,
        own: Level,
    ) {
        let place = self.places.admit(peer).await;
        let level = self.level.unwrap_or(own);
        let controls = Arc::clone(&self.controls);
        tokio::spawn(async move {
            let stream = Taken::new(stream, place.clone());
            let outcome = tokio::select! {
                biased;
                () = place.told_to_go() => return,
                outcome = session::run(stream, level, &controls) => outcome,
            };
            if let Err(err) = outcome {
                tracing::debug!("Runtime API: {err}");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;
    use crate::stats::fixture;

    /// A new connection, and what it is told first.
    async fn ask(addr: SocketAddr) -> (TcpStream, Vec<u8>) {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(b"prompt\n").await.ok();
        let mut said = vec![0; 3];
        let read = stream.read(&mut said).await.unwrap_or(0);
        said.truncate(read);
        (stream, said)
    }

    #[tokio::test]
    async fn a_flood_of_idle_connections_keeps_nobody_out() {
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let Address::Tcp(addr) = listener.address().unwrap() else {
            panic!("a TCP address");
        };
        let controls = Arc::new(Controls::over(fixture::source()));
        let _files = start(vec![listener], None, &controls).unwrap();
        let mut flood = Vec::new();
        for _ in 0..3 * MOST_CONNECTIONS {
            let (stream, said) = ask(addr).await;
            assert_eq!(said, b"\n> ");
            flood.push(stream);
        }
        let most_of_one = MOST_CONNECTIONS / 2;
        let last = flood.split_off(flood.len() - most_of_one);
        for mut closed in flood {
            assert_eq!(closed.read(&mut [0]).await.unwrap_or(0), 0);
        }
        for mut open in last {
            open.write_all(b"show cli level\n").await.unwrap();
            assert_ne!(open.read(&mut [0]).await.unwrap(), 0);
        }
    }
}
