//! What the process asks of the host it runs on.

mod container;

use tokio::signal::unix::{SignalKind, signal};
use tracing::warn;

use crate::membership::Name;

/// The host's name as a node's name. In a container that was given none but
/// its id, the name by which others on its network find it.
pub async fn name() -> Name {
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let container = if container::is_id(&host) {
        container::name(&host).await
    } else {
        None
    };
    as_name(container.as_deref().unwrap_or_else(|| first_label(&host)))
}

fn first_label(host: &str) -> &str {
    host.split('.').next().unwrap_or_default()
}

/// What of a text may stand in a name.
fn as_name(text: &str) -> Name {
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let text: String = text.chars().filter(allowed).take(Name::MAX_LEN).collect();
    let text = if text.is_empty() { "node" } else { &text };
    text.parse().expect("only characters that a name may have")
}

/// How many cores this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How many connections, to clients and to servers together, the descriptors
/// suffice for: the process needs some for itself, for statistics, commands,
/// gossip and checks, and its listeners and event queues. `None` where the
/// host sets no limit.
pub fn max_connections() -> Option<u32> {
    const OWN: u64 = 64;
    let descriptors = max_descriptors()?;
    u32::try_from(descriptors.saturating_sub(OWN).max(2)).ok()
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

    #[tokio::test]
    async fn the_hosts_name_is_a_name() {
        assert!(!name().await.as_str().is_empty());
    }

    #[test]
    fn what_a_name_may_not_have_is_left_out() {
        assert_eq!(as_name(first_label("web-1.example.org")).as_str(), "web-1");
        assert_eq!(as_name("tidings-webapp-1").as_str(), "tidings-webapp-1");
        assert_eq!(as_name("wéb app").as_str(), "wbapp");
        assert_eq!(as_name("").as_str(), "node");
        assert_eq!(as_name(&"x".repeat(100)).as_str().len(), Name::MAX_LEN);
    }
}
