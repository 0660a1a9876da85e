//! Containers of the tests' own, on a network of their own, by the `docker`
//! command that people type.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
};

use super::{cluster::Desk, free_port};

/// A network, and the containers on it. All go with it.
#[derive(Debug)]
pub(crate) struct Engine {
    network: String,
    webapp: String,
    tidings: String,
    pub(crate) http: SocketAddr,
    pub(crate) desk: Desk,
}

impl Engine {
    /// A network without a container. `Err` is why there can be none.
    pub(crate) fn new() -> Result<Self, String> {
        let image = |variable: &str| {
            std::env::var(variable)
                .map_err(|_| format!("{variable} names no image; run tests/containers/run"))
        };
        let (tidings, webapp) = (image("IT_TIDINGS_IMAGE")?, image("IT_WEBAPP_IMAGE")?);
        docker(&["version"])?;
        let network = format!("tidings-test-{}", std::process::id());
        docker(&["network", "create", &network])?;
        let here = Ipv4Addr::LOCALHOST.into();
        Ok(Self {
            network,
            webapp,
            tidings,
            http: free_port(here),
            desk: Desk {
                stats: free_port(here),
            },
        })
    }

    /// Starts the load balancer as the container `ha`.
    pub(crate) fn start_ha(&self) {
        let publish = |addr: SocketAddr, port: u16| format!("{addr}:{port}");
        let (http, stats) = (publish(self.http, 80), publish(self.desk.stats, 1936));
        self.run("ha", &["-p", &http, "-p", &stats], &self.tidings);
    }

    /// Starts the example app as a container of that name.
    pub(crate) fn start_webapp(&self, name: &str) {
        self.run(name, &[], &self.webapp);
    }

    fn run(&self, name: &str, flags: &[&str], image: &str) {
        let mut args = vec!["run", "-d", "--network", &self.network, "--name", name];
        args.extend(["--label", &self.network]);
        args.extend(flags);
        args.push(image);
        must(&args);
    }

    /// Pulls a container's cable, or puts it in again.
    pub(crate) fn cable(&self, verb: &str, name: &str) {
        must(&["network", verb, &self.network, name]);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let filter = format!("label={}", self.network);
        let ours = docker(&["ps", "-aq", "--filter", &filter]).unwrap_or_default();
        let ours: Vec<&str> = ours.lines().collect();
        if !ours.is_empty() {
            docker(&[&["rm", "-f"], ours.as_slice()].concat()).ok();
        }
        docker(&["network", "rm", &self.network]).ok();
    }
}

/// Does something to a container: `docker VERB NAME`.
pub(crate) fn does(verb: &str, name: &str) -> String {
    must(&[verb, name])
}

/// Whether the engine's health check finds a container well.
pub(crate) fn is_healthy(name: &str) -> bool {
    must(&["inspect", "-f", "{{.State.Health.Status}}", name]) == "healthy"
}

/// Runs a command in a container.
pub(crate) fn exec(name: &str, command: &[&str]) -> String {
    must(&[&["exec", name], command].concat())
}

/// Removes a container, dead or alive.
pub(crate) fn remove(name: &str) {
    must(&["rm", "-f", name]);
}

#[track_caller]
fn must(args: &[&str]) -> String {
    docker(args).unwrap_or_else(|why| panic!("docker {}: {why}", args.join(" ")))
}

/// Runs `docker` and returns what it prints, or why it failed.
fn docker(args: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(args).output();
    let output = output.map_err(|err| format!("docker cannot be run: {err}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}
