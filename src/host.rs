//! What the process asks of the host it runs on.

use tokio::signal::unix::{SignalKind, signal};
use tracing::warn;

use crate::membership::Name;

/// The host's name as a node's name: its first label, with what a name may
/// not have left out. A container's is its id, or what `--hostname` says.
pub fn name() -> Name {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let label = name.split('.').next().unwrap_or_default();
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let text: String = label.chars().filter(allowed).take(Name::MAX_LEN).collect();
    let text = if text.is_empty() { "node" } else { &text };
    text.parse().expect("only characters that a name may have")
}

/// How many cores this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How many client connections the descriptors suffice for: each may need a
/// second one, to a server, and the process needs some for itself. `None`
/// where the host sets no limit.
pub fn max_connections() -> Option<u32> {
    const OWN: u64 = 64;
    let descriptors = max_descriptors()?;
    u32::try_from(descriptors.saturating_sub(OWN) / 2).ok()
}

/// How many descriptors this process may have, `None` for no limit.
pub fn max_descriptors() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// Ends this process when the one that started it ends, however that happens.
pub fn die_with_parent() {
    #[cfg(target_os = "linux")]
    {
        let signal = Some(rustix::process::Signal::KILL);
        if let Err(err) = rustix::process::set_parent_process_death_signal(signal) {
            warn!("this process may outlive the one that started it: {err}");
        }
    }
}

/// Waits for SIGTERM or SIGINT.
pub async fn told_to_end() {
    let (mut term, mut int) = match (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) {
        (Ok(term), Ok(int)) => (term, int),
        (Err(err), _) | (_, Err(err)) => {
            warn!("signals cannot be caught, so the end will be sudden: {err}");
            return std::future::pending().await;
        }
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_name_is_a_name() {
        assert!(!name().as_str().is_empty());
    }
}
