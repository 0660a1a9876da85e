//! Flags about TLS, with clients and with servers.

use std::{net::SocketAddr, num::NonZeroU16, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, ValueEnum};

use crate::{
    cli::socket_address,
    tls::{ClientAuth, Connector, MinVersion, Settings},
};

/// The longest time that makes sense to bind browsers for; a year or two is
/// what lists of such sites ask for.
const HSTS_LONGEST: Duration = Duration::from_hours(10 * 365 * 24);

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "TLS")]
pub(super) struct TlsArgs {
    /// Take requests over TLS here; repeatable
    #[arg(long, value_name = "ADDR:PORT", env = "TIDINGS_HTTPS")]
    #[arg(value_delimiter = ',', value_parser = socket_address, requires = "tls_cert")]
    pub(super) https: Vec<SocketAddr>,
    /// Certificate with its key, or a folder of them, read again when they
    /// change; repeatable. The first is for clients that name nobody we know
    #[arg(long, value_name = "PATH", env = "TIDINGS_TLS_CERT")]
    #[arg(value_delimiter = ',', requires = "https")]
    tls_cert: Vec<PathBuf>,
    /// Oldest version to speak with clients
    #[arg(
        long,
        value_name = "VERSION",
        default_value = "1.2",
        env = "TIDINGS_TLS_MIN_VERSION"
    )]
    tls_min_version: MinVersion,
    /// Authorities, as PEM, whose certificates clients must show; watched
    #[arg(long, value_name = "PATH", env = "TIDINGS_TLS_CLIENT_CA")]
    #[arg(requires = "https")]
    tls_client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is refused
    #[arg(
        long,
        value_name = "HOW",
        default_value = "required",
        requires = "tls_client_ca",
        env = "TIDINGS_TLS_CLIENT_VERIFY"
    )]
    tls_client_verify: ClientVerify,
    /// Send those who ask without TLS to the same URL with it, by 308
    /// [default port: that of the first --https]
    #[arg(
        long,
        value_name = "PORT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "on",
        env = "TIDINGS_HTTP_REDIRECT_HTTPS"
    )]
    http_redirect_https: Option<Redirect>,
    /// Tell browsers to come over TLS alone, for this long (RFC 6797); 0s has
    /// them forget it
    #[arg(long, value_name = "TIME", env = "TIDINGS_HSTS")]
    #[arg(value_parser = hsts, requires = "https")]
    hsts: Option<Duration>,
    /// Authorities, as PEM, that servers with tls=1 are believed by; watched
    #[arg(long, value_name = "PATH", env = "TIDINGS_SERVER_CA")]
    server_ca: Option<PathBuf>,
    /// Whether the certificates of servers with tls=1 are looked at
    #[arg(
        long,
        value_name = "HOW",
        default_value = "required",
        env = "TIDINGS_SERVER_VERIFY"
    )]
    server_verify: ServerVerify,
}

impl TlsArgs {
    /// What takes handshakes is to know; `None` where nobody is to have one.
    pub(super) fn server(&self) -> Option<Settings> {
        let required = self.tls_client_verify == ClientVerify::Required;
        let client_auth = |ca: &PathBuf| ClientAuth {
            ca: ca.clone(),
            required,
        };
        (!self.https.is_empty()).then(|| Settings {
            certificates: self.tls_cert.clone(),
            client_auth: self.tls_client_ca.as_ref().map(client_auth),
            min_version: self.tls_min_version,
            http2: true,
        })
    }

    /// What makes connections over TLS to servers.
    pub(super) fn connector(&self) -> Result<Connector, String> {
        let verify = self.server_verify == ServerVerify::Required;
        if !verify && self.server_ca.is_some() {
            return Err("--server-verify none looks at no --server-ca: give one of them".into());
        }
        Connector::new(self.server_ca.clone(), verify)
    }

    /// The port that those who ask without TLS are sent to.
    pub(super) fn redirect(&self) -> Result<Option<u16>, &'static str> {
        match (self.http_redirect_https, self.https.first()) {
            (None | Some(Redirect::Off), _) => Ok(None),
            (Some(Redirect::To(port)), _) => Ok(Some(port)),
            (Some(Redirect::On), Some(first)) if first.port() != 0 => Ok(Some(first.port())),
            (Some(Redirect::On), _) => {
                Err("--http-redirect-https leads nowhere: give --https, or the port after a =")
            }
        }
    }

    /// The value of `Strict-Transport-Security`.
    pub(super) fn hsts(&self) -> Option<String> {
        let hsts = self.hsts?;
        Some(format!("max-age={}", hsts.as_secs()))
    }
}

/// Whether clients must have a certificate (`HAProxy`'s `verify` of `bind`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ClientVerify {
    /// Who has none is refused
    Required,
    /// Who has one must have the right one
    Optional,
}

/// Whether servers are believed (`HAProxy`'s `verify` of `server`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ServerVerify {
    /// By --server-ca
    Required,
    /// Whatever they show
    None,
}

/// Where those who ask without TLS are sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Redirect {
    /// The first port that takes TLS.
    On,
    Off,
    To(u16),
}

impl FromStr for Redirect {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse::<NonZeroU16>()) {
            ("on" | "true", _) => Ok(Self::On),
            ("off" | "false", _) => Ok(Self::Off),
            (_, Ok(port)) => Ok(Self::To(port.get())),
            _ => Err("expected a port such as 443, on or off"),
        }
    }
}

fn hsts(text: &str) -> Result<Duration, &'static str> {
    match humantime::parse_duration(text) {
        Ok(time) if time <= HSTS_LONGEST => Ok(time),
        _ => Err("expected a time of up to ten years, such as 365d"),
    }
}
