//! Keeps the host names of servers from the command line resolved.

use std::{net::SocketAddr, time::Duration};

use tokio::{net::lookup_host, sync::mpsc, task::JoinSet, time::sleep};
use tracing::{info, warn};

use crate::{membership::Name, net, pool::Input};

/// Time between two looks at a name that resolves: a container that is made
/// anew gets another address, and name servers cache for about as long.
const PAUSE: Duration = Duration::from_secs(15);

/// Time between two looks at a name that does not: it may be starting now.
const PAUSE_FAILING: Duration = Duration::from_secs(1);

/// Resolves every target (`HOST:PORT`) again and again, and reports each new
/// address. A target that is an IP literal needs no look and gets none.
///
/// Returns only once the pool's writer is gone, or where nothing is to do.
pub async fn run(targets: Vec<(Name, String)>, inputs: mpsc::Sender<Input>) {
    let mut tasks = JoinSet::new();
    for (name, target) in targets {
        if target.parse::<SocketAddr>().is_err() {
            tasks.spawn(keep_resolved(name, target, inputs.clone()));
        }
    }
    while tasks.join_next().await.is_some() {}
}

async fn keep_resolved(name: Name, target: String, inputs: mpsc::Sender<Input>) {
    let mut known = None;
    let mut failing = false;
    loop {
        let answer = resolve(&target, known).await;
        match &answer {
            Err(why) if !failing => warn!(
                "Server {name}: {target} does not resolve ({why}); \
                 check the name in --server, or start what it stands for"
            ),
            Ok(addr) if failing => info!("Server {name}: {target} resolves to {addr}"),
            _ => {}
        }
        failing = answer.is_err();
        let found = answer.ok();
        if found != known {
            known = found;
            if inputs
                .send(Input::Resolved(name.clone(), found))
                .await
                .is_err()
            {
                return;
            }
        }
        sleep(if failing { PAUSE_FAILING } else { PAUSE }).await;
    }
}

async fn resolve(target: &str, known: Option<SocketAddr>) -> Result<SocketAddr, String> {
    let answers: Vec<SocketAddr> = lookup_host(target)
        .await
        .map_err(|err| err.to_string())?
        .collect();
    net::choose(&answers, known).ok_or_else(|| "the answer is empty".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_name_is_resolved_and_a_literal_left_alone() {
        let (inputs, mut resolved) = mpsc::channel(4);
        let targets = [("s1", "localhost:3000"), ("s2", "127.0.0.1:3000")]
            .map(|(name, target)| (name.parse().unwrap(), target.to_owned()));
        let _task =
            tokio_util::task::AbortOnDropHandle::new(tokio::spawn(run(targets.into(), inputs)));
        let Some(Input::Resolved(name, Some(addr))) = resolved.recv().await else {
            panic!("localhost resolves");
        };
        assert_eq!(name.as_str(), "s1");
        assert!(addr.ip().is_loopback());
        assert_eq!(addr.port(), 3000);
    }
}
