//! What the demo tells its user: what to open, what to try. Pure.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use rustix::process::Pid;

use super::{APP_PORT, BALANCER, SERVERS, Settings, agent_flags, app_flags, reachable};

/// The server that is not there yet.
const FOURTH: (&str, Ipv4Addr) = ("s4", Ipv4Addr::new(127, 0, 0, 14));

/// Where a browser finds what listens at `addr`.
pub(super) fn url(addr: SocketAddr) -> String {
    format!("http://{}/", reachable(addr))
}

/// The whole text. `agents` and `apps` are process ids by server.
pub(super) fn text(
    settings: &Settings,
    program: &Path,
    key: &str,
    agents: &BTreeMap<&'static str, Pid>,
    apps: &BTreeMap<String, u32>,
) -> String {
    let http = url(settings.http);
    let stats = url(settings.stats);
    let agents = agents
        .iter()
        .filter(|(name, _)| **name != BALANCER)
        .map(|(name, pid)| (*name, pid.as_raw_nonzero().to_string()));
    let agents = kill_lines(agents);
    let apps = kill_lines(
        apps.iter()
            .map(|(name, pid)| (name.as_str(), pid.to_string())),
    );
    let fourth = fourth(settings, program);
    let slow = SERVERS[1].1;
    format!(
        "
Tidings runs: a load balancer, and three servers that joined it by gossip.

  Open
    {http:34} the servers, through the load balancer
    {stats:34} its page: who is there, who is down
    {metrics:34} the same for Prometheus
    {servers:34} the same as JSON

  Try, in another terminal
    Requests go round; each answer says who gave it:
      while sleep 0.2; do curl -s {http}; echo; done
    Whoever keeps cookies, as a browser does, stays at one server:
      curl -s -c jar -b jar {http}
    Lose a server, as when its host dies; the loop above does not notice:
{agents}
    Crash an app; its agent starts it again:
{apps}
    Drain a server, for all but those who have its cookie; then end that:
      {drain}
      {ready}
    The same as scripts for HAProxy do it:
      echo 'show servers state' | socat - TCP:{admin}
    Make a server slow, and fast again with 0:
      curl -d '{{\"delay\": 250}}' http://{slow}:{APP_PORT}/delay
    Add a fourth server:
      export TIDINGS_GOSSIP_KEY={key}
      {fourth}

  Ctrl-C ends it all.

",
        metrics = format!("{stats}metrics"),
        servers = format!("{stats}v1/servers"),
        drain = steer(settings, program, "drain"),
        ready = steer(settings, program, "ready"),
        admin = reachable(settings.admin),
    )
}

fn kill_lines<'a>(pids: impl Iterator<Item = (&'a str, String)>) -> String {
    let lines: Vec<String> = pids
        .map(|(name, pid)| format!("      kill -9 {pid:8} # {name}"))
        .collect();
    lines.join("\n")
}

/// The command that puts the first server in a state.
fn steer(settings: &Settings, program: &Path, state: &str) -> String {
    let (name, _) = SERVERS[0];
    let program = quote(&program.to_string_lossy());
    let admin = reachable(settings.admin);
    format!("{program} {state} {name} --admin {admin}")
}

/// The command that adds a server to this demo.
fn fourth(settings: &Settings, program: &Path) -> String {
    let (name, ip) = FOURTH;
    let program = quote(&program.to_string_lossy());
    let agent = agent_flags(settings, name, ip).join(" ");
    let app = app_flags(name, ip).join(" ");
    format!("{program} {agent} \\\n        -- {program} {app}")
}

/// A word as a shell takes it.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::serve::LogFormat;

    fn guide(program: &str) -> String {
        let settings = Settings {
            http: "0.0.0.0:8080".parse().unwrap(),
            stats: "127.0.0.1:1936".parse().unwrap(),
            admin: "127.0.0.1:9999".parse().unwrap(),
            gossip: "127.0.0.1:7946".parse().unwrap(),
            access_log: LogFormat::Off,
        };
        let pid = |raw| Pid::from_raw(raw).unwrap();
        let agents = [("ha", pid(10)), ("s1", pid(11))].into();
        let apps = [("s1".to_owned(), 21)].into();
        text(&settings, Path::new(program), "the-key", &agents, &apps)
    }

    #[test]
    fn it_names_addresses_that_a_browser_can_open() {
        let text = guide("/bin/tidings");
        assert!(text.contains(" http://127.0.0.1:8080/ "));
        assert!(text.contains(" http://127.0.0.1:1936/v1/servers "));
        assert!(!text.contains("0.0.0.0"));
    }

    #[test]
    fn it_offers_to_kill_servers_but_not_the_balancer() {
        let text = guide("/bin/tidings");
        assert!(text.contains("kill -9 11"));
        assert!(text.contains("kill -9 21"));
        assert!(!text.contains("kill -9 10"));
    }

    #[test]
    fn it_shows_how_to_steer_a_server() {
        let text = guide("/bin/tidings");
        assert!(text.contains("/bin/tidings drain s1 --admin 127.0.0.1:9999\n"));
        assert!(text.contains("| socat - TCP:127.0.0.1:9999\n"));
    }

    #[test]
    fn the_line_for_a_fourth_server_is_complete() {
        let text = guide("/my bin/tidings");
        assert!(text.contains(
            "'/my bin/tidings' agent --name s4 --address 127.0.0.14 --port 3000 \
             --gossip 127.0.0.14:7946 --join 127.0.0.1:7946"
        ));
        assert!(text.contains("-- '/my bin/tidings' demo-app --listen 127.0.0.14:3000 --name s4"));
        assert!(text.contains("export TIDINGS_GOSSIP_KEY=the-key"));
    }
}
