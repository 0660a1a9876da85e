//! Hosts with cables that can be pulled: network namespaces on two switches,
//! one for requests and one for gossip.
//!
//! ```text
//!   the test ── requests 10.66.0.0/24 ──┬──────┬──────┐
//!                                       ha     h1     h2 …
//!               gossip   10.66.1.0/24 ──┴──────┴──────┘
//! ```
//!
//! A test that needs them runs again as a process that has its network and its
//! mounts to itself. All that it makes is in there and has no name outside, so
//! the kernel takes it away with the last process, however that ends.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
};

use rustix::process::{Signal, geteuid, set_parent_process_death_signal};

use super::{announce, process::Place};

/// Set for the process that has the network to itself.
const ISOLATED: &str = "IT_ISOLATED";

/// Whether a network as below can be made here: its parts in small.
const PROBE: &str = "mount -t tmpfs tmpfs /var/run
    ip netns add probe
    ip link add switch type bridge
    ip link add cable type veth peer name eth0 netns probe
    ip netns exec probe ip link set lo up";

/// Runs `test`, which is the whole of the test `name`, in a network of its
/// own. Where that cannot be made, it says so to whoever runs the tests.
pub(crate) fn isolated(name: &str, test: impl FnOnce()) {
    if std::env::var_os(ISOLATED).is_some() {
        set_parent_process_death_signal(Some(Signal::KILL)).expect("a signal of our own");
        return test();
    }
    if let Err(why) = possible() {
        return announce(&format!("SKIPPED: {name} because {why}"));
    }
    let exe = std::env::current_exe().expect("this program's path");
    let again = unshare()
        .arg(exe)
        .args(["--exact", name, "--nocapture"])
        .env(ISOLATED, "1")
        .output()
        .expect("it ran a moment ago");
    let output = String::from_utf8_lossy(&again.stdout);
    for row in output.lines().filter(|line| line.starts_with('|')) {
        announce(row);
    }
    // A test of another name would be no test at all, and no failure.
    let passed = again.status.success() && output.contains("1 passed");
    let errors = String::from_utf8_lossy(&again.stderr);
    assert!(passed, "in a network of its own:\n{output}\n{errors}");
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount"]);
    if !geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
}

fn possible() -> Result<(), String> {
    let probe = unshare().args(["sh", "-ec", PROBE]).output();
    let output = probe.map_err(|err| format!("unshare (util-linux) cannot be run: {err}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let failed = || format!("no network namespaces can be made: {}", said.trim());
    output.status.success().then_some(()).ok_or_else(failed)
}

/// The two switches. At that for requests the test itself is a client.
#[derive(Debug)]
pub(crate) struct Network {
    hosts: u8,
}

/// A host with a cable to each switch.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) number: u8,
}

/// What a cable carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cable {
    Requests,
    Gossip,
}

impl Cable {
    const BOTH: [Self; 2] = [Self::Requests, Self::Gossip];

    fn switch(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Gossip => "gossip",
        }
    }

    fn addr(self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 66, self as u8, number)
    }
}

impl Network {
    /// Sets the switches up, in a process that [`isolated`] started.
    pub(crate) fn new() -> Self {
        // Here `ip` keeps its names; this mount is seen by nobody else.
        run("mount -t tmpfs tmpfs /var/run");
        for cable in Cable::BOTH {
            let switch = cable.switch();
            run(&format!("ip link add {switch} type bridge"));
            run(&format!("ip link set {switch} up"));
        }
        let own = Cable::Requests.addr(254);
        run(&format!("ip addr add {own}/24 dev requests"));
        Self { hosts: 0 }
    }

    /// Connects a host.
    pub(crate) fn host(&mut self, name: &str) -> Host {
        self.hosts += 1;
        let number = self.hosts;
        let host = Host {
            name: name.to_owned(),
            number,
        };
        run(&format!("ip netns add {name}"));
        run(&format!("ip -n {name} link set lo up"));
        for cable in Cable::BOTH {
            let (switch, plug, addr) = (cable.switch(), host.plug(cable), cable.addr(number));
            run(&format!(
                "ip link add {plug} type veth peer name {switch} netns {name}"
            ));
            run(&format!("ip link set {plug} master {switch} up"));
            run(&format!("ip -n {name} addr add {addr}/24 dev {switch}"));
            run(&format!("ip -n {name} link set {switch} up"));
        }
        host
    }
}

impl Host {
    /// Where it takes requests.
    pub(crate) fn addr(&self, port: u16) -> SocketAddr {
        (Cable::Requests.addr(self.number), port).into()
    }

    /// Where it speaks gossip.
    pub(crate) fn gossip(&self) -> SocketAddr {
        (Cable::Gossip.addr(self.number), 7946).into()
    }

    /// For processes that are to run there.
    pub(crate) fn place(&self) -> Place {
        Place::Host(self.name.clone())
    }

    /// Takes its address at a switch away.
    pub(crate) fn lose_address(&self, cable: Cable) {
        self.change_address("del", cable, self.number);
    }

    /// Gives it the address at a switch that a host of that number would have.
    pub(crate) fn gain_address(&self, cable: Cable, number: u8) -> Ipv4Addr {
        self.change_address("add", cable, number);
        cable.addr(number)
    }

    fn change_address(&self, change: &str, cable: Cable, number: u8) {
        let (name, switch, addr) = (&self.name, cable.switch(), cable.addr(number));
        run(&format!(
            "ip -n {name} addr {change} {addr}/24 dev {switch}"
        ));
    }

    /// Pulls a cable at the switch: what is on its way to or from the host
    /// vanishes without a word, as does the host where it loses both.
    pub(crate) fn pull(&self, cable: Cable) {
        run(&format!("ip link set {} down", self.plug(cable)));
    }

    /// Plugs it in again.
    pub(crate) fn plug_in(&self, cable: Cable) {
        run(&format!("ip link set {} up", self.plug(cable)));
    }

    /// The host is no more.
    pub(crate) fn vanish(&self) {
        for cable in Cable::BOTH {
            self.pull(cable);
        }
    }

    /// It is there again, as it was.
    pub(crate) fn appear(&self) {
        for cable in Cable::BOTH {
            self.plug_in(cable);
        }
    }

    /// The switch's end of a cable.
    fn plug(&self, cable: Cable) -> String {
        format!("{}-{}", self.name, cable.switch())
    }
}

#[track_caller]
fn run(command: &str) {
    let mut words = command.split(' ');
    let program = words.next().unwrap_or_default();
    let output = Command::new(program).args(words).output();
    let output = output.unwrap_or_else(|err| panic!("{command}: {err}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {said}");
}
