//! Sends commands to a running load balancer.

use std::{fmt, io, path::PathBuf, str::FromStr, time::Duration};

use anyhow::{anyhow, bail};
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

/// A server as an operator steers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steered {
    /// `backend/server`.
    pub path: String,
    /// `ready`, `drain` or `maint`: what `set server … state` would make it
    /// what it is.
    pub state: &'static str,
    /// The share of the requests that it has now.
    pub weight: u16,
    /// The share that it announces.
    pub announced_weight: u16,
}

impl Steered {
    /// Whether that is its name, with its backend or without.
    pub fn is_called(&self, name: &str) -> bool {
        let alone = self.path.split_once('/').map(|(_, alone)| alone);
        self.path == name || alone == Some(name)
    }

    /// Reads a line of `show servers state`, whose first fields are the
    /// backend's number and name, the server's number and name, its address,
    /// both states, and both weights.
    fn of(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, backend, _, name, _, _, admin, weight, announced, ..] = fields.as_slice() else {
            return None;
        };
        let admin: u8 = admin.parse().ok()?;
        let has = |bits| admin & bits != 0;
        Some(Self {
            path: format!("{backend}/{name}"),
            state: match () {
                () if has(MAINT) => "maint",
                () if has(DRAIN) => "drain",
                () => "ready",
            },
            weight: weight.parse().ok()?,
            announced_weight: announced.parse().ok()?,
        })
    }
}

/// Bits of the administrative state, as `HAProxy` numbers them.
const MAINT: u8 = 0x01;
const DRAIN: u8 = 0x08;

/// Every server of the load balancer; an error is one line that says what to
/// do.
pub async fn servers(target: &Target) -> anyhow::Result<Vec<Steered>> {
    let states = ask_in_words(target, "show servers state").await?;
    let mut lines = states.lines();
    if lines.next() != Some("1") {
        bail!("what answers at {target} is no load balancer; give its address with --admin");
    }
    let rows = lines.filter(|line| !line.starts_with('#'));
    Ok(rows.filter_map(Steered::of).collect())
}

/// Changes a server, named `backend/server`: `change` is `state drain`, or
/// `weight 50%`. An error is one line that says what to do.
pub async fn set(target: &Target, server: &str, change: &str) -> anyhow::Result<()> {
    let said = ask_in_words(target, &format!("set server {server} {change}")).await?;
    match said.trim() {
        "" => Ok(()),
        "Permission denied" => bail!(
            "the load balancer at {target} lets nobody steer it from here; \
             start it with --admin-level admin, or leave that out and ask on its own machine"
        ),
        why => bail!("{server}: {}", why.replace('\n', " ")),
    }
}

async fn ask_in_words(target: &Target, line: &str) -> anyhow::Result<String> {
    ask(target, line).await.map_err(|err| {
        anyhow!("no load balancer answers at {target} ({err}); give its address with --admin")
    })
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

    #[test]
    fn a_line_of_the_servers_state_says_how_a_server_is_steered() {
        let line = |admin: &str| {
            format!("4 nodes 7 s1 10.0.0.1 2 {admin} 5 10 61 6 3 2 6 0 0 0 - 3000 - 0 0 - - 0")
        };
        for (admin, state) in [
            ("0", "ready"),
            ("1", "maint"),
            ("8", "drain"),
            ("9", "maint"),
        ] {
            let expected = Steered {
                path: "nodes/s1".into(),
                state,
                weight: 5,
                announced_weight: 10,
            };
            assert_eq!(Steered::of(&line(admin)), Some(expected));
        }
        assert_eq!(Steered::of(""), None);
        assert_eq!(Steered::of("4 nodes 7 s1"), None);
    }
}
