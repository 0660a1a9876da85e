//! HAProxy itself, for what the two are to do alike or with each other.

use std::{
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
};

use super::{announce, eventually, free_port, own_address};

/// One that runs, until it is dropped.
pub(crate) struct HaProxy {
    process: Child,
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    config: std::path::PathBuf,
}

/// Whether there is one to start. If not, whoever runs the tests is told that
/// this one says nothing.
pub(crate) fn is_installed(test: &str) -> bool {
    let version = Command::new("haproxy").arg("-v").output();
    let installed = version.is_ok_and(|output| output.status.success());
    if !installed {
        announce(&format!("SKIPPED: {test} because haproxy is not installed"));
    }
    installed
}

impl HaProxy {
    /// Starts one and waits until it listens: `BIND` in its configuration is
    /// its address.
    pub(crate) fn start(config: &str) -> Self {
        let addr = free_port(own_address());
        let path = std::env::temp_dir().join(format!("tidings-haproxy-{addr}.cfg"));
        std::fs::write(&path, config.replace("BIND", &addr.to_string())).unwrap();
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&path);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let haproxy = Self {
            process: process.expect("it was there a moment ago"),
            addr,
            config: path,
        };
        eventually("HAProxy listens", || TcpStream::connect(addr).ok());
        haproxy
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        std::fs::remove_file(&self.config).ok();
    }
}
