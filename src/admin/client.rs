//! Sends commands to a running load balancer.

use std::{fmt, io, path::PathBuf, str::FromStr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::address::UNIX;

/// How long a load balancer may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest answer: twice what the most servers take.
const LONGEST_ANSWER: u64 = 8 * 1024 * 1024;

/// Where a load balancer takes commands: `HOST:PORT` or `unix:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// On the network.
    Tcp(String),
    /// A file of this machine.
    Unix(PathBuf),
}

impl FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected an address such as ha:9999, or unix:/run/tidings.sock";
        match text.strip_prefix(UNIX) {
            Some("") => Err(EXPECTED),
            Some(path) => Ok(Self::Unix(path.into())),
            None => host_and_port(text).map(Self::Tcp).ok_or(EXPECTED),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host) => host.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// `HOST:PORT`, if it is that.
pub(crate) fn host_and_port(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    (!host.is_empty() && is_port).then(|| text.to_owned())
}

/// Sends one line and returns all that is answered.
pub async fn ask(target: &Target, line: &str) -> io::Result<String> {
    let exchange = async {
        match target {
            Target::Tcp(host) => exchange(TcpStream::connect(host).await?, line).await,
            Target::Unix(path) => exchange(UnixStream::connect(path).await?, line).await,
        }
    };
    timeout(PATIENCE, exchange).await?
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    line: &str,
) -> io::Result<String> {
    stream.write_all(format!("{line}\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
    String::from_utf8(answer).map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_may_be_a_host_name() {
        for text in [
            "127.0.0.1:9999",
            "ha:9999",
            "[::1]:9999",
            "unix:/run/a.sock",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for text in ["", "ha", ":9999", "ha:0", "unix:"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
