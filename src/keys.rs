//! Gossip keys from the command line, or from a file that is watched.

use std::{path::Path, time::Duration};

use anyhow::{Context, bail};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::{
    cli::GossipArgs,
    gossip::{Handle, Key, Keyring},
};

/// How often the key file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The keys that the flags give; none is a warning, since then whoever
/// reaches the port can join.
pub fn keyring(args: &GossipArgs) -> anyhow::Result<Keyring> {
    if let Some(path) = &args.gossip_key_file {
        return read(path);
    }
    if args.gossip_key.is_empty() {
        warn!(
            "gossip has no key: whoever reaches its port from a private address, or one that \
             --gossip-allow admits, can announce a server and be given requests; make a key with \
             `tidings keygen` and give it to all with --gossip-key"
        );
    }
    Ok(args.gossip_key.iter().cloned().collect())
}

/// Follows the key file, if there is one, for ever. A file that cannot be
/// used changes nothing.
pub async fn follow(args: GossipArgs, gossip: Handle) {
    let Some(path) = args.gossip_key_file else {
        return;
    };
    let mut known = std::fs::read_to_string(&path).ok();
    loop {
        sleep(LOOK_EVERY).await;
        let now = std::fs::read_to_string(&path).ok();
        if now == known {
            continue;
        }
        known = now;
        match read(&path) {
            Ok(keyring) => {
                gossip.set_keyring(keyring);
                info!("gossip keys read again from {}", path.display());
            }
            Err(err) => warn!("the keys in use stay: {err:#}"),
        }
    }
}

fn read(path: &Path) -> anyhow::Result<Keyring> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the gossip keys in {}", path.display()))?;
    parse(&text).with_context(|| format!("in the gossip keys of {}", path.display()))
}

/// One key a line; empty lines and those that begin with `#` do not count.
fn parse(text: &str) -> anyhow::Result<Keyring> {
    let mut keys = Vec::new();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key: Key = line.parse().with_context(|| format!("line {number}"))?;
        keys.push(key);
    }
    if keys.is_empty() {
        bail!("there is no key; make one with `tidings keygen`");
    }
    Ok(keys.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_keys_may_have_comments() {
        let key = Key::generate().to_string();
        let text = format!("# new\n{key}\n\n# old\n{key}\n");
        assert!(!parse(&text).unwrap().is_plain());
    }

    #[test]
    fn a_file_without_a_usable_key_is_refused_with_the_line() {
        assert!(
            parse("# none\n")
                .unwrap_err()
                .to_string()
                .contains("tidings keygen")
        );
        let err = format!("{:#}", parse("\nnonsense\n").unwrap_err());
        assert!(err.starts_with("line 2: "), "{err}");
    }
}
