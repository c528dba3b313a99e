//! The two sockets of the contract: who finds them, who may speak on them.
//! Invariant: a socket that a living daemon serves is never taken away from it.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use tld_sys::privilege;
use tld_sys::unix_socket::{self, Peer};

/// Bytes that may wait on the request socket; how many datagrams is the system's to say (`net.unix.max_dgram_qlen`).
const WAITING: usize = 8 << 20;
const MODE: u32 = 0o660;
/// Group of the contract.
const GROUP: &str = "wazuh";

/// The socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody serves it.
    #[error("another daemon serves `{}`: stop it first (`wazuh-control stop` stops all of them)", path.display())]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot listen on `{}`", path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The socket for requests; each datagram comes with its sender.
pub(crate) fn datagrams(path: &Path) -> Result<UnixDatagram, ListenError> {
    let served = || UnixDatagram::unbound().is_ok_and(|socket| socket.connect(path).is_ok());
    let socket = place(path, served, |path| UnixDatagram::bind(path))?;
    let failed = |source| ListenError::Bind { path: path.to_path_buf(), source };
    unix_socket::request_credentials(&socket).map_err(failed)?;
    unix_socket::enlarge_receive_buffer(&socket, WAITING).map_err(failed)?;
    Ok(socket)
}

/// The socket for questions.
pub(crate) fn stream(path: &Path) -> Result<UnixListener, ListenError> {
    place(path, || UnixStream::connect(path).is_ok(), |path| UnixListener::bind(path))
}

/// Made under another name and moved into place with owner and mode, so that nobody finds it half made.
fn place<T>(
    path: &Path,
    served: impl Fn() -> bool,
    bind: impl Fn(&Path) -> io::Result<T>,
) -> Result<T, ListenError> {
    if served() {
        return Err(ListenError::Taken { path: path.to_path_buf() });
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let make = || {
        let _ = std::fs::remove_file(&fresh);
        let socket = bind(&fresh)?;
        if let Some(group) = privilege::group(GROUP) {
            // Without privilege the group stays ours, and so do the peers.
            let _ = chown(&fresh, None, Some(group));
        }
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(MODE))?;
        std::fs::rename(&fresh, path)?;
        Ok(socket)
    };
    make().map_err(|source| {
        let _ = std::fs::remove_file(&fresh);
        ListenError::Bind { path: path.to_path_buf(), source }
    })
}

/// Whose requests are obeyed: root's, and those of the installation's own user and group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admission {
    own: u32,
    owner: u32,
    group: u32,
}

impl Admission {
    /// For the installation at `home`, served by the user `own`.
    pub(crate) fn of(home: &Path) -> io::Result<Self> {
        let meta = std::fs::metadata(home)?;
        // What we make belongs to whom we are.
        let own = std::fs::metadata("/proc/self").map_or(meta.uid(), |process| process.uid());
        Ok(Self { own, owner: meta.uid(), group: meta.gid() })
    }

    pub(crate) fn admits(self, peer: Peer) -> bool {
        let by_group =
            || self.group != 0 && (peer.gid == self.group || privilege::is_member(peer.uid, self.group));
        peer.uid == 0 || peer.uid == self.own || peer.uid == self.owner || by_group()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_the_installations_user_and_its_group_are_admitted() {
        let admission = Admission { own: 5, owner: 6, group: 7_654_321 };
        let peer = |uid, gid| Peer { pid: 1, uid, gid };
        for (uid, gid) in [(0, 1), (5, 1), (6, 1), (1234, 7_654_321)] {
            assert!(admission.admits(peer(uid, gid)), "{uid}:{gid}");
        }
        assert!(!admission.admits(peer(1234, 1)));
        assert!(!admission.admits(peer(1234, 0)));
        let roots = Admission { own: 0, owner: 0, group: 0 };
        assert!(!roots.admits(peer(1234, 0)), "root's group is no group of an installation");
    }

    #[test]
    fn a_served_socket_is_not_taken_and_a_dead_one_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        let (one, other) = (home.path().join("execq"), home.path().join("com"));
        let living = (datagrams(&one).unwrap(), stream(&other).unwrap());
        assert!(matches!(datagrams(&one), Err(ListenError::Taken { .. })));
        assert!(matches!(stream(&other), Err(ListenError::Taken { .. })));
        assert_eq!(std::fs::metadata(&one).unwrap().mode() & 0o777, MODE);
        drop(living);
        let _again = (datagrams(&one).unwrap(), stream(&other).unwrap());
    }
}
