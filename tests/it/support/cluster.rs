//! A load balancer and the servers that join it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::Deref,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    client::{Answer, Client},
    eventually, free_port, ledger,
    netns::Host,
    own_address,
    process::{Place, Process},
};

/// A running load balancer.
#[derive(Debug)]
pub(crate) struct Balancer {
    pub(crate) process: Process,
    pub(crate) http: SocketAddr,
    pub(crate) https: Option<SocketAddr>,
    desk: Desk,
    pub(crate) gossip: SocketAddr,
    pub(crate) admin: SocketAddr,
    place: Place,
    flags: Vec<String>,
}

impl Balancer {
    /// Starts one on ports of the kernel's choice, with two workers unless
    /// the flags say otherwise.
    pub(crate) fn start(flags: &[&str]) -> Self {
        let any = "127.0.0.1:0".parse().expect("an address");
        Self::start_gossiping_at(any, flags)
    }

    /// Starts one whose gossip address is known beforehand.
    pub(crate) fn start_gossiping_at(gossip: SocketAddr, flags: &[&str]) -> Self {
        let any = "127.0.0.1:0".parse().expect("an address");
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self::start_at(Place::Here, [any, any, gossip, any], flags)
    }

    /// Starts one that has so many descriptors.
    pub(crate) fn start_with_descriptors(most: u32, flags: &[&str]) -> Self {
        let any = "127.0.0.1:0".parse().expect("an address");
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self::start_at(Place::WithDescriptors(most), [any; 4], flags)
    }

    /// Starts one on a host.
    pub(crate) fn start_on(host: &Host, flags: &[&str]) -> Self {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let [http, stats, admin] = [80, 1936, 9999].map(|port| host.addr(port));
        Self::start_at(host.place(), [http, stats, host.gossip(), admin], flags)
    }

    /// Starts one on a host that finds out itself where others reach its gossip.
    pub(crate) fn start_finding_itself(host: &Host, flags: &[&str]) -> Self {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let [http, stats, admin] = [80, 1936, 9999].map(|port| host.addr(port));
        let anywhere = (Ipv4Addr::UNSPECIFIED, 7946).into();
        Self::start_at(host.place(), [http, stats, anywhere, admin], flags)
    }

    /// Starts one again at the addresses of this one, which must have ended.
    pub(crate) fn again(&self) -> Self {
        let addrs = [self.http, self.stats, self.gossip, self.admin];
        Self::start_at(self.place.clone(), addrs, self.flags.clone())
    }

    fn start_at(place: Place, addrs: [SocketAddr; 4], flags: Vec<String>) -> Self {
        let [http, stats, gossip, admin] = addrs;
        let mut own = format!(
            "serve --http {http} --stats {stats} --gossip {gossip} --admin {admin} --name ha \
             --die-with-parent"
        );
        if !flags.iter().any(|flag| flag == "--workers") {
            own.push_str(" --workers 2");
        }
        let args: Vec<String> = own
            .split(' ')
            .map(str::to_owned)
            .chain(flags.clone())
            .collect();
        let process = Process::start_on(&place, &args);
        let line = process.says("the balancer takes requests", |line| {
            line.contains("takes requests on").then(|| line.to_owned())
        });
        let address = |word: &str| word.trim_matches(['/', ',']).parse().ok();
        let https = line
            .split(' ')
            .find_map(|word| address(word.strip_prefix("https://")?));
        let mut addrs = line
            .split(' ')
            .filter(|word| !word.starts_with("https://"))
            .flat_map(|word| word.split(['/', ',']))
            .filter_map(|word| word.parse::<SocketAddr>().ok());
        let mut next = || addrs.next().expect("four addresses in the line");
        let [http, stats, gossip, admin] = [next(), next(), next(), next()];
        Self {
            process,
            http,
            https,
            desk: Desk { stats },
            gossip,
            admin,
            place,
            flags,
        }
    }

    /// A new connection.
    #[track_caller]
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.http).expect("the balancer accepts")
    }
}

impl Deref for Balancer {
    type Target = Desk;

    fn deref(&self) -> &Desk {
        &self.desk
    }
}

/// A load balancer as its operators see it: what its statistics port shows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Desk {
    pub(crate) stats: SocketAddr,
}

impl Desk {
    /// Something from the statistics port.
    #[track_caller]
    pub(crate) fn stats(&self, path: &str) -> Answer {
        self.try_stats(path).expect("an answer")
    }

    /// The same of one that may be away.
    pub(crate) fn try_stats(&self, path: &str) -> io::Result<Answer> {
        Client::connect(self.stats)?.request("GET", path, &["connection: close"])
    }

    /// What is listed under `/v1/` by that name.
    #[track_caller]
    pub(crate) fn list(&self, name: &str) -> Vec<serde_json::Value> {
        let answer = self.stats(&format!("/v1/{name}")).json();
        answer[name].as_array().expect("a list").clone()
    }

    /// All that `/v1/servers` shows of one server.
    #[track_caller]
    pub(crate) fn server(&self, name: &str) -> serde_json::Value {
        let servers = self.list("servers");
        let server = servers.into_iter().find(|server| server["name"] == name);
        server.expect("the server is in the pool")
    }

    /// The servers as `/v1/servers` shows them, by name.
    #[track_caller]
    pub(crate) fn servers(&self) -> Vec<(String, String)> {
        let servers = self.list("servers");
        let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
        servers
            .iter()
            .map(|server| (text(&server["name"]), text(&server["status"])))
            .collect()
    }

    /// Waits until exactly these servers are there, in this state.
    #[track_caller]
    pub(crate) fn wait_for(&self, expected: &[(&str, &str)]) {
        let mut last = Vec::new();
        let start = Instant::now();
        loop {
            let now = self.servers();
            let same = now.len() == expected.len()
                && now
                    .iter()
                    .zip(expected)
                    .all(|((n, s), (en, es))| n == en && s == es);
            if same {
                return;
            }
            last.clone_from(&now);
            assert!(
                start.elapsed() < super::DEADLINE,
                "expected {expected:?}, have {last:?}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// An agent with a toy server under it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) agent: Process,
    pub(crate) name: String,
    pub(crate) addr: SocketAddr,
    place: Place,
    args: Vec<String>,
}

impl Server {
    /// Starts one that joins `balancer`.
    pub(crate) fn start(name: &str, balancer: &Balancer) -> Self {
        Self::start_with(name, &balancer.gossip.to_string(), &[])
    }

    /// Starts one that joins at `seed`, with further flags.
    pub(crate) fn start_with(name: &str, seed: &str, flags: &[&str]) -> Self {
        let addr = free_port(own_address());
        Self::start_at(name, seed, addr, flags)
    }

    /// Starts one at an address.
    pub(crate) fn start_at(name: &str, seed: &str, addr: SocketAddr, flags: &[&str]) -> Self {
        let mut args = agent(name, seed, addr, SocketAddr::new(addr.ip(), 0));
        args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        Self::run(Place::Here, name, addr, args)
    }

    /// Starts one on a host, under its name.
    pub(crate) fn start_on(host: &Host, balancer: &Balancer) -> Self {
        let addr = host.addr(3000);
        let seed = balancer.gossip.to_string();
        let args = agent(&host.name, &seed, addr, host.gossip());
        Self::run(host.place(), &host.name, addr, args)
    }

    /// Starts one on a host, under its name, that finds out itself where others
    /// reach it.
    pub(crate) fn start_finding_itself(host: &Host, seed: SocketAddr) -> Self {
        let (name, seed) = (host.name.as_str(), seed.to_string());
        let args = ["agent", "--name", name, "--port", "3000", "--join", &seed];
        let args = args.map(str::to_owned).into();
        let anywhere = (Ipv4Addr::UNSPECIFIED, 3000).into();
        Self::run(host.place(), name, anywhere, args)
    }

    fn run(place: Place, name: &str, addr: SocketAddr, mut args: Vec<String>) -> Self {
        args.extend(["--".to_owned(), env!("CARGO_BIN_EXE_tidings").to_owned()]);
        args.extend(app(name, addr));
        Self {
            agent: Process::start_on(&place, &args),
            name: name.to_owned(),
            addr,
            place,
            args,
        }
    }

    /// Starts one again like this one, which must have ended.
    pub(crate) fn again(&self) -> Self {
        Self {
            agent: Process::start_on(&self.place, &self.args),
            name: self.name.clone(),
            addr: self.addr,
            place: self.place.clone(),
            args: self.args.clone(),
        }
    }

    /// The app's process.
    #[track_caller]
    pub(crate) fn app(&self) -> Pid {
        eventually("the agent runs its app", || {
            self.agent.children().first().copied()
        })
    }

    /// Kills the agent and its app at once, as `docker kill` does: first the
    /// container's first process, and with it all others.
    pub(crate) fn kill(mut self) -> Self {
        let app = self.app();
        self.agent.signal(Signal::KILL);
        // It may have ended with its parent.
        kill_process(app, Signal::KILL).ok();
        self.agent.wait();
        self
    }

    /// Stops both where they are, as `docker pause` does.
    pub(crate) fn freeze(&self) {
        kill_process(self.app(), Signal::STOP).expect("the app is there");
        self.agent.signal(Signal::STOP);
    }

    /// Lets both go on.
    pub(crate) fn thaw(&self) {
        kill_process(self.app(), Signal::CONT).expect("the app is there");
        self.agent.signal(Signal::CONT);
    }

    /// Tells the agent to end, and waits for that.
    #[track_caller]
    pub(crate) fn stop(mut self) -> Self {
        self.agent.signal(Signal::TERM);
        assert_eq!(self.agent.exit_code(), 0, "a graceful stop");
        self
    }
}

/// The arguments of an agent for the app at `addr`.
pub(crate) fn agent(name: &str, seed: &str, addr: SocketAddr, gossip: SocketAddr) -> Vec<String> {
    let (ip, port) = (addr.ip(), addr.port());
    let args = format!(
        "agent --name {name} --address {ip} --port {port} --gossip {gossip} --join {seed} \
         --die-with-parent"
    );
    args.split(' ').map(str::to_owned).collect()
}

/// The arguments of a toy server.
pub(crate) fn app(name: &str, addr: SocketAddr) -> Vec<String> {
    let ledger = ledger::path();
    let args =
        format!("demo-app --listen {addr} --name {name} --record {ledger} --die-with-parent");
    args.split(' ').map(str::to_owned).collect()
}

/// A balancer with servers s1 to s`n`, all of which take traffic.
pub(crate) fn cluster(n: usize) -> (Balancer, Vec<Server>) {
    cluster_with(n, &[])
}

/// The same with flags for the balancer.
pub(crate) fn cluster_with(n: usize, flags: &[&str]) -> (Balancer, Vec<Server>) {
    let balancer = Balancer::start(flags);
    let names: Vec<String> = (1..=n).map(|i| format!("s{i}")).collect();
    let servers = names
        .iter()
        .map(|name| Server::start(name, &balancer))
        .collect();
    let up: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "up")).collect();
    balancer.wait_for(&up);
    (balancer, servers)
}
/// The loopback address of nobody: connections are refused there.
pub(crate) fn nobody() -> (IpAddr, SocketAddr) {
    let ip = own_address();
    (ip, free_port(ip))
}
