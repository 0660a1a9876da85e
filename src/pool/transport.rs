//! How connections to a server are made, as its tags say.

use std::collections::BTreeMap;

use crate::proxy_protocol::Version;

/// What a connection to a server begins with and speaks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transport {
    /// It is over TLS (`tls=1`; `HAProxy`'s `ssl`).
    pub tls: bool,
    /// The name that the server's certificate must have (`sni=NAME`); without
    /// it the host that the server is known by.
    pub sni: Option<Box<str>>,
    /// It speaks HTTP/2 (`proto=h2`; `HAProxy`'s `proto h2`).
    pub http2: bool,
    /// It begins with a word about the client (`send-proxy=v1|v2`;
    /// `HAProxy`'s `send-proxy` and `send-proxy-v2`).
    pub send_proxy: Option<Version>,
}

impl Transport {
    /// The tags that are read here.
    pub const TAGS: [&'static str; 4] = ["tls", "sni", "proto", "send-proxy"];

    /// Reads them; others mean nothing here. An error names the tag and what
    /// is expected.
    pub fn of(tags: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut transport = Self::default();
        for (tag, value) in tags {
            transport
                .set(tag, value)
                .map_err(|expected| format!("{tag}={value}: expected {expected}"))?;
        }
        Ok(transport)
    }

    fn set(&mut self, tag: &str, value: &str) -> Result<(), &'static str> {
        match (tag, value) {
            ("tls", "1") => self.tls = true,
            ("tls", "0") => self.tls = false,
            ("tls", _) => return Err("1 or 0"),
            ("sni", name) if is_host(name) => self.sni = Some(name.into()),
            ("sni", _) => return Err("a host name"),
            ("proto", "h2") => self.http2 = true,
            ("proto", "h1") => self.http2 = false,
            ("proto", _) => return Err("h1 or h2"),
            ("send-proxy", "v1") => self.send_proxy = Some(Version::V1),
            ("send-proxy", "v2") => self.send_proxy = Some(Version::V2),
            ("send-proxy", "off") => self.send_proxy = None,
            ("send-proxy", _) => return Err("v1, v2 or off"),
            _ => {}
        }
        Ok(())
    }
}

fn is_host(name: &str) -> bool {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    !name.is_empty() && name.bytes().all(usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tags: &[(&str, &str)]) -> Result<Transport, String> {
        let tags = tags
            .iter()
            .map(|(tag, value)| ((*tag).into(), (*value).into()));
        Transport::of(&tags.collect())
    }

    #[test]
    fn tags_say_how_a_server_is_reached_and_others_mean_nothing() {
        assert_eq!(of(&[("zone", "a")]), Ok(Transport::default()));
        let all = [
            ("tls", "1"),
            ("sni", "app.internal"),
            ("proto", "h2"),
            ("send-proxy", "v2"),
        ];
        let transport = Transport {
            tls: true,
            sni: Some("app.internal".into()),
            http2: true,
            send_proxy: Some(Version::V2),
        };
        assert_eq!(of(&all), Ok(transport));
    }

    #[test]
    fn a_wrong_value_says_what_would_be_right() {
        for (tag, value, hint) in [
            ("tls", "yes", "1 or 0"),
            ("sni", "a b", "a host name"),
            ("proto", "http2", "h1 or h2"),
            ("send-proxy", "1", "v1, v2 or off"),
        ] {
            let err = of(&[(tag, value)]).unwrap_err();
            assert!(err.contains(tag) && err.contains(hint), "{err}");
        }
    }
}
