//! What this load balancer alone is told about its servers: their health and
//! address, and which ones there are beside those that agents announce.

use std::net::{IpAddr, SocketAddr};

use super::{
    Controls,
    answer::{Answer, Grade, Outcome},
    command::{Target, Tell},
    exec::{check_backend, described_anew, find, shown},
};
use crate::pool::{
    Input, Server, Status,
    server::{CheckAt, Origin},
    state::{Order, StaticServer},
};

/// Why a server that an agent announces cannot be removed.
pub(super) const ANNOUNCED: &str = "This server cannot be removed at runtime due to other \
                                    configuration elements pointing to it.";

/// Tells the pool something about a server.
pub(super) async fn tell(target: &Target, what: Tell, controls: &Controls) -> Outcome {
    let server = find(target, &controls.source)?;
    let order = match what {
        Tell::Refused(why) => return Err(why),
        Tell::Addr(ip, port) => return move_to(&server, ip, port, controls).await,
        Tell::Health(verdict) => Order::Health(verdict),
        Tell::Checks(true) if server.health.is_none() => {
            return Err(
                "Health check was not configured on this server, cannot enable.".to_owned(),
            );
        }
        Tell::AgentChecks(true) => {
            return Err("Agent was not configured on this server, cannot enable.".to_owned());
        }
        Tell::AgentChecks(false) => return Ok(Answer::silent()),
        Tell::Checks(on) => Order::Checks(on),
        Tell::Maxconn(limit) => Order::Maxconn(limit),
        Tell::CheckPort(_) | Tell::CheckAddr(..) if server.health.is_none() => {
            return Err("health checks are not enabled on this server".to_owned());
        }
        Tell::CheckPort(port) => Order::CheckAt(CheckAt {
            port: (port > 0).then_some(port),
            ..server.check_at
        }),
        Tell::CheckAddr(ip, port) => Order::CheckAt(CheckAt {
            ip: Some(ip),
            port: port.or(server.check_at.port),
        }),
    };
    controls
        .tell(Input::Told(server.name.clone(), order))
        .await?;
    described_anew(&[&server], &controls.source).await;
    Ok(Answer::silent())
}

async fn move_to(
    server: &std::sync::Arc<Server>,
    ip: IpAddr,
    port: Option<u16>,
    controls: &Controls,
) -> Outcome {
    if server.origin != Origin::Static {
        return Err("The address of this server is announced by its agent.".to_owned());
    }
    let before = server.addr;
    let Some(port) = port.or(before.map(|before| before.port())) else {
        return Err("This server has no port yet: give one.".to_owned());
    };
    let changes = changes(before, SocketAddr::new(ip, port));
    if changes.is_empty() {
        return Ok(Answer::said(Grade::Notice, "nothing changed"));
    }
    let moved = Input::Resolved(server.name.clone(), Some(SocketAddr::new(ip, port)));
    controls.tell(moved).await?;
    described_anew(&[server], &controls.source).await;
    let text = format!("{} by 'stats socket command'", changes.join(", "));
    Ok(Answer::said(Grade::Warning, text))
}

fn changes(before: Option<SocketAddr>, after: SocketAddr) -> Vec<String> {
    let ip = before.map(|before| before.ip());
    let port = before.map(|before| before.port());
    let mut changes = Vec::new();
    if ip != Some(after.ip()) {
        let before = ip.map_or("(none)".to_owned(), |ip| ip.to_string());
        changes.push(format!("IP changed from '{before}' to '{}'", after.ip()));
    }
    if port != Some(after.port()) {
        let (before, after) = (port.unwrap_or(0), after.port());
        changes.push(format!("port changed from '{before}' to '{after}'"));
    }
    changes
}

/// Adds a server, in maintenance and with its checks off.
pub(super) async fn add(
    target: &Target,
    server: Result<Box<StaticServer>, String>,
    controls: &Controls,
) -> Outcome {
    check_backend(target, &controls.source)?;
    if find(target, &controls.source).is_ok() {
        return Err("Already exists a server with the same name in backend.".to_owned());
    }
    controls.tell(Input::Added(*server?)).await?;
    let is_there = |now: &crate::pool::Snapshot| now.by_name(&target.server).is_some();
    if shown(is_there, &controls.source).await {
        Ok(Answer::info("New server registered."))
    } else {
        Err("The pool is full, or too busy: look at it before you try again.".to_owned())
    }
}

/// Removes a server that nobody announces and nobody uses.
pub(super) async fn delete(target: &Target, controls: &Controls) -> Outcome {
    let server = find(target, &controls.source)?;
    is_removable(&server)?;
    controls.tell(Input::Removed(server.name.clone())).await?;
    let is_gone = |now: &crate::pool::Snapshot| now.by_name(&target.server).is_none();
    if shown(is_gone, &controls.source).await {
        Ok(Answer::info("Server deleted."))
    } else {
        // Somebody enabled it in the meantime.
        Err(NOT_IN_MAINTENANCE.to_owned())
    }
}

const NOT_IN_MAINTENANCE: &str = "Only servers in maintenance mode can be deleted.";

/// Whether a server can be removed; an error says why not.
pub(super) fn is_removable(server: &Server) -> Result<(), &'static str> {
    if server.origin != Origin::Static {
        return Err(ANNOUNCED);
    }
    if server.status != Status::Maint {
        return Err(NOT_IN_MAINTENANCE);
    }
    let counters = &server.live.counters;
    if counters.active.get() > 0 || counters.used() > 0 || counters.idle() > 0 {
        return Err("Server still has connections attached to it, cannot remove it.");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_is_told_in_haproxys_words() {
        let changed = |before: &str, after: &str| {
            let changes = changes(before.parse().ok(), after.parse().unwrap());
            changes.join(", ")
        };
        assert_eq!(changed("1.2.3.4:80", "1.2.3.4:80"), "");
        assert_eq!(
            changed("1.2.3.4:80", "1.2.3.5:81"),
            "IP changed from '1.2.3.4' to '1.2.3.5', port changed from '80' to '81'"
        );
        assert_eq!(
            changed("1.2.3.4:80", "1.2.3.4:81"),
            "port changed from '80' to '81'"
        );
    }
}
