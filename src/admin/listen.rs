//! The sockets that commands come in by.

use std::{
    fs, io,
    net::TcpListener,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};

use super::Address;
use crate::net;

/// Connections the kernel keeps until they are accepted: as many as there
/// are places.
const BACKLOG: i32 = 64;

/// Only the socket's owner may connect.
const OWNER_ONLY: u32 = 0o600;

/// A bound socket.
#[derive(Debug)]
pub enum Listener {
    /// On the network.
    Tcp(TcpListener),
    /// A file of this machine.
    Unix(UnixListener),
}

impl Listener {
    /// Binds the address. A socket file that nobody listens on any more is
    /// replaced.
    pub fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(addr) => net::bind_alone(*addr).map(Self::Tcp),
            Address::Unix(path) => bind_unix(path).map(Self::Unix),
        }
    }

    /// Where it listens: with port 0 the kernel chose.
    pub fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Self::Unix(listener) => {
                let addr = listener.local_addr()?;
                let path = addr.as_pathname().unwrap_or(Path::new(""));
                Ok(Address::Unix(path.into()))
            }
        }
    }
}

/// Socket files, removed when this is dropped.
#[derive(Debug, Default)]
#[must_use = "dropping it removes the files"]
pub struct SocketFiles(Vec<(PathBuf, Inode)>);

/// What tells a file from another of its name.
type Inode = (u64, u64);

impl SocketFiles {
    /// The file of a listener, where it has one.
    pub(super) fn add(&mut self, listener: &Listener) {
        if let Ok(Address::Unix(path)) = listener.address()
            && let Ok(inode) = inode(&path)
        {
            self.0.push((path, inode));
        }
    }
}

impl Drop for SocketFiles {
    fn drop(&mut self) {
        for (path, own) in &self.0 {
            // Another process may have put its own there in the meantime.
            if inode(path).is_ok_and(|inode| inode == *own) {
                fs::remove_file(path).ok();
            }
        }
    }
}

fn inode(path: &Path) -> io::Result<Inode> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Before it listens: until then nobody can connect.
    fs::set_permissions(path, fs::Permissions::from_mode(OWNER_ONLY))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Removes the socket file that a process left behind when it was killed, and
/// nothing else.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file that is no socket",
        )),
        Ok(_) => match UnixStream::connect(path) {
            Err(err) if err.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
            Err(err) => Err(err),
            Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        },
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(err) => Err(err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of its own for each test, gone with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(test: &str) -> Self {
            let name = format!("tidings-listen-{test}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn address(&self) -> Address {
            Address::Unix(self.0.join("admin.sock"))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
        let scratch = Scratch::new("stale");
        let first = Listener::bind(&scratch.address()).unwrap();
        assert_eq!(first.address().unwrap(), scratch.address());
        let taken = Listener::bind(&scratch.address()).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        Listener::bind(&scratch.address()).unwrap();
    }

    #[test]
    fn only_its_owner_may_connect() {
        let scratch = Scratch::new("mode");
        let _listener = Listener::bind(&scratch.address()).unwrap();
        let file = fs::metadata(scratch.0.join("admin.sock")).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, OWNER_ONLY);
    }

    #[test]
    fn a_socket_file_goes_with_its_process_unless_another_has_the_name() {
        let scratch = Scratch::new("end");
        let path = scratch.0.join("admin.sock");
        let files = |listener: &Listener| {
            let mut files = SocketFiles::default();
            files.add(listener);
            files
        };
        let first = Listener::bind(&scratch.address()).unwrap();
        let of_first = files(&first);
        // Beside the first, so that it is surely another file.
        let other = scratch.0.join("other.sock");
        let second = Listener::bind(&Address::Unix(other.clone())).unwrap();
        fs::rename(other, &path).unwrap();
        drop(of_first);
        assert!(path.exists());
        drop(second);
        fs::remove_file(&path).unwrap();

        let third = Listener::bind(&scratch.address()).unwrap();
        drop(files(&third));
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let scratch = Scratch::new("file");
        fs::write(scratch.0.join("admin.sock"), "precious").unwrap();
        Listener::bind(&scratch.address()).unwrap_err();
        assert_eq!(
            fs::read_to_string(scratch.0.join("admin.sock")).unwrap(),
            "precious"
        );
    }
}
