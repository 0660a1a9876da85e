//! Rows for what happens to hosts and cables rather than to processes.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use super::{Allowed, Report, Row, table, under_load, until_up};
use crate::support::{
    announce,
    cluster::{Balancer, Server, app},
    eventually,
    netns::{Cable, Host, Network, isolated},
    process::Process,
};

/// For how long gossip is cut: long enough for each side to have given the
/// other up, and to have tried to find it again a few times.
const CUT: Duration = Duration::from_secs(15);

const ALL_UP: [(&str, &str); 3] = [("h1", "up"), ("h2", "up"), ("h3", "up")];

#[test]
fn a_lost_host_or_cable_costs_no_get() {
    isolated("faults::network::a_lost_host_or_cable_costs_no_get", || {
        let lab = Lab::new();
        let [lost, found] = lab.host_vanishes_and_appears();
        let rows = [lost, found, lab.gossip_is_cut(), lab.all_vanish_but_one()];
        announce(&format!("\n{}", table(&rows)));
    });
}

#[test]
fn a_host_that_gets_another_address_is_there_under_its_name() {
    let name = "faults::network::a_host_that_gets_another_address_is_there_under_its_name";
    isolated(name, || {
        let mut network = Network::new();
        let witness = network.host("hb");
        let (ha, [h1, h2]) = (network.host("ha"), ["h1", "h2"].map(|h| network.host(h)));
        let thief = network.host("thief");
        let seed = witness.gossip();
        let witness = Balancer::start_on(&witness, &[]);
        let balancer = Balancer::start_finding_itself(&ha, &["--join", &seed.to_string()]);
        let start = |host| Server::start_finding_itself(host, seed);
        let _servers = [&h1, &h2].map(start);
        let anywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 3000));
        let _thief = Process::start_on(&thief.place(), &app("thief", anywhere));
        until_members_agree(&[&witness, &balancer], 4);
        balancer.wait_for(&[("h1", "up"), ("h2", "up")]);
        let rows = [
            a_server_moves(&balancer, &h2, &thief),
            a_balancer_moves(&balancer, &witness, &ha),
        ];
        announce(&format!("\n{}", table(&rows)));
    });
}

/// A server's host loses its address to another host, where something else
/// answers at the same port, and gets a new one once everyone has given it up.
fn a_server_moves(balancer: &Balancer, host: &Host, thief: &Host) -> Row {
    let mut changes = Vec::new();
    let report = under_load(balancer, |_| {
        host.lose_address(Cable::Gossip);
        thief.gain_address(Cable::Gossip, host.number);
        until_up(balancer, "h2", false, Instant::now());
        let ip = host.gain_address(Cable::Gossip, 100);
        changes.push(until_up(balancer, "h2", true, Instant::now()));
        assert_eq!(balancer.server("h2")["address"], format!("{ip}:3000"));
    });
    let tags: BTreeSet<String> = (0..50)
        .map(|_| balancer.connect().get(&[]).unwrap().json()["tag"].to_string())
        .collect();
    let expected = ["h1", "h2"].map(|tag| format!("\"{tag}\""));
    assert_eq!(tags, BTreeSet::from(expected), "who answers");
    Row::new(
        "a server gets another address",
        report,
        &changes,
        Allowed::PostsInside,
    )
}

/// A balancer's host gets another address for gossip.
fn a_balancer_moves(balancer: &Balancer, witness: &Balancer, host: &Host) -> Row {
    let moved = Instant::now();
    host.lose_address(Cable::Gossip);
    let ip = host.gain_address(Cable::Gossip, 101);
    let gossip = SocketAddr::from((ip, 7946)).to_string();
    eventually("it is known at its new address", || {
        let members = witness.list("members");
        let there =
            |member: &serde_json::Value| member["address"] == *gossip && member["state"] == "alive";
        members.iter().any(there).then_some(())
    });
    until_members_agree(&[witness, balancer], 4);
    let changes = [moved.elapsed()];
    balancer
        .process
        .says("it says so", |line| line.contains(&gossip).then_some(()));
    Row::new(
        "a balancer gets another address, no load",
        Report::default(),
        &changes,
        Allowed::Nothing,
    )
}

/// Waits until each of these knows so many members to be alive.
fn until_members_agree(balancers: &[&Balancer], count: usize) {
    eventually("all views agree", || {
        let agree = balancers.iter().all(|balancer| {
            let alive = |member: &serde_json::Value| member["state"] == "alive";
            balancer.list("members").iter().filter(|m| alive(m)).count() == count
        });
        agree.then_some(())
    });
}

/// Two balancers and three servers, each on a host of its own.
struct Lab {
    ha: Host,
    balancer: Balancer,
    /// Another balancer, which sees what the first cannot.
    witness: Balancer,
    hosts: [Host; 3],
    _servers: [Server; 3],
}

impl Lab {
    fn new() -> Self {
        let mut network = Network::new();
        let ha = network.host("ha");
        let balancer = Balancer::start_on(&ha, &[]);
        let seed = balancer.gossip.to_string();
        let witness = Balancer::start_on(&network.host("hb"), &["--join", &seed]);
        let hosts = ["h1", "h2", "h3"].map(|name| network.host(name));
        let servers = hosts
            .each_ref()
            .map(|host| Server::start_on(host, &balancer));
        let lab = Self {
            ha,
            balancer,
            witness,
            hosts,
            _servers: servers,
        };
        lab.until_agreed(Instant::now());
        lab
    }

    /// Waits until both balancers see every member alive and every server up;
    /// the time since `start`.
    fn until_agreed(&self, start: Instant) -> Duration {
        until_members_agree(&[&self.balancer, &self.witness], 5);
        self.balancer.wait_for(&ALL_UP);
        self.witness.wait_for(&ALL_UP);
        start.elapsed()
    }

    /// How a balancer's gossip sees a member.
    fn state(balancer: &Balancer, of: &Host) -> String {
        let address = of.gossip().to_string();
        let members = balancer.list("members");
        let states = members.iter().filter(|member| member["address"] == address);
        // Of several lives at an address the last is the one that counts.
        let latest = states.max_by_key(|member| member["epoch"].as_u64());
        latest.map_or_else(String::new, |member| member["state"].to_string())
    }

    fn host_vanishes_and_appears(&self) -> [Row; 2] {
        let host = &self.hosts[1];
        let mut changes = Vec::new();
        let report = under_load(&self.balancer, |_| {
            let cut = Instant::now();
            host.vanish();
            changes.push(until_up(&self.balancer, "h2", false, cut));
        });
        let lost = Row::new("a host vanishes", report, &changes, Allowed::PostsInside);
        let mut changes = Vec::new();
        let report = under_load(&self.balancer, |_| {
            let healed = Instant::now();
            host.appear();
            changes.push(until_up(&self.balancer, "h2", true, healed));
        });
        self.until_agreed(Instant::now());
        let found = Row::new("the host is back", report, &changes, Allowed::Nothing);
        [lost, found]
    }

    /// The balancer hears nobody and nobody hears it, while requests reach it
    /// and servers are reached as ever.
    fn gossip_is_cut(&self) -> Row {
        let mut changes = Vec::new();
        let report = under_load(&self.balancer, |load| {
            let cut = Instant::now();
            self.ha.pull(Cable::Gossip);
            for host in &self.hosts {
                eventually("the balancer gives every server up", || {
                    (Self::state(&self.balancer, host) == "\"down\"").then_some(())
                });
            }
            eventually("the others give the balancer up", || {
                (Self::state(&self.witness, &self.ha) == "\"down\"").then_some(())
            });
            while cut.elapsed() < CUT {
                load.go_on_for(1);
                assert_eq!(self.balancer.servers().len(), 3, "it keeps its last pool");
            }
            let healed = Instant::now();
            self.ha.plug_in(Cable::Gossip);
            changes.push(self.until_agreed(healed));
        });
        Row::new(
            "gossip with the balancer cut for 15 s",
            report,
            &changes,
            Allowed::PostsInside,
        )
    }

    /// Two of three at once: the one that is left takes it all.
    fn all_vanish_but_one(&self) -> Row {
        let mut changes = Vec::new();
        let lost = &self.hosts[..2];
        let report = under_load(&self.balancer, |_| {
            let cut = Instant::now();
            lost.iter().for_each(Host::vanish);
            for host in lost {
                changes.push(until_up(&self.balancer, &host.name, false, cut));
            }
        });
        lost.iter().for_each(Host::appear);
        self.until_agreed(Instant::now());
        Row::new(
            "two hosts of three vanish at once",
            report,
            &changes,
            Allowed::PostsInside,
        )
    }
}
