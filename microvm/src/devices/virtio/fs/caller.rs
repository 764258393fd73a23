//! Whose the files are: users and groups of the guest on the host.
//!
//! A VMM that runs as root gives the guest's users to the host as they are, as a container without a user namespace does: who
//! makes a file in the guest owns it on the host. One that runs as an ordinary user can only make files of its own; the guest's
//! root is that user then, as in a rootless container, and others cannot own anything.
//!
//! Who may do what, the guest's kernel decides (the mount option `default_permissions`, which virtio-fs always sets). The host
//! does what that kernel asks with the VMM's own rights, so a guest can do to a share whatever the VMM can.

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_thread_res_gid, set_thread_res_uid,
};

/// How the guest's users and groups are the host's.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owners {
    /// They are the same.
    Same,
    /// The guest's root is this one, and there is no other.
    Root { uid: u32, gid: u32 },
}

impl Owners {
    /// As this process can.
    pub(super) fn of_process() -> Self {
        match (geteuid(), getegid()) {
            (uid, _) if uid.is_root() => Self::Same,
            (uid, gid) => Self::Root { uid: uid.as_raw(), gid: gid.as_raw() },
        }
    }

    /// A file's owner as the guest sees it.
    pub(super) fn seen(self, owner: u32, group: u32) -> (u32, u32) {
        match self {
            Self::Same => (owner, group),
            Self::Root { uid, gid } => {
                (if owner == uid { 0 } else { owner }, if group == gid { 0 } else { group })
            }
        }
    }

    /// The owner to give a file, where the guest names one.
    pub(super) fn owner(
        self,
        owner: Option<u32>,
        group: Option<u32>,
    ) -> Result<(Option<Uid>, Option<Gid>), Errno> {
        let (mut owner, mut group) = (owner, group);
        if let Self::Root { uid, gid } = self {
            // An id that is the process's already is left alone; the others it may not give.
            owner = owner.map(|id| if id == 0 { uid } else { id });
            group = group.map(|id| if id == 0 { gid } else { id });
        }
        // -1 means "as it is" to the system calls.
        if owner == Some(u32::MAX) || group == Some(u32::MAX) {
            return Err(Errno::INVAL);
        }
        Ok((owner.map(Uid::from_raw), group.map(Gid::from_raw)))
    }

    /// Makes something in the name of one of the guest's users, whom it then belongs to. The set-group-ID bit of the directory
    /// and its default ACL work as for any process.
    ///
    /// The identity is this thread's for so long (credentials(7)); the effective user's change takes its capabilities, of which
    /// it gets those back that let it make a file wherever the guest's kernel allowed it.
    pub(super) fn as_caller<T>(
        self,
        uid: u32,
        gid: u32,
        work: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let (own_uid, own_gid) = (geteuid(), getegid());
        match self {
            Self::Same if (uid, gid) != (own_uid.as_raw(), own_gid.as_raw()) => {}
            _ => return work(),
        }
        if uid == u32::MAX || gid == u32::MAX {
            return Err(Errno::INVAL);
        }
        set_thread_res_gid(None, Gid::from_raw(gid), None)?;
        let result = set_thread_res_uid(None, Uid::from_raw(uid), None).and_then(|()| {
            let result = keep_capabilities().and_then(|()| work());
            set_thread_res_uid(None, own_uid, None)?;
            result
        });
        set_thread_res_gid(None, own_gid, None)?;
        result
    }
}

/// Makes effective what is permitted, but for what would keep the set-group-ID bit where the caller may not.
fn keep_capabilities() -> Result<(), Errno> {
    let sets = capabilities(None)?;
    set_capabilities(None, CapabilitySets { effective: sets.permitted & !CapabilitySet::FSETID, ..sets })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_user_is_the_guests_root() {
        let owners = Owners::Root { uid: 1000, gid: 100 };
        assert_eq!(owners.seen(1000, 5), (0, 5));
        let given = owners.owner(Some(0), None).unwrap();
        assert_eq!(given, (Some(Uid::from_raw(1000)), None));
        assert_eq!(owners.owner(Some(u32::MAX), None), Err(Errno::INVAL));
    }

    #[test]
    fn the_thread_is_itself_again_after_it_was_somebody_else() {
        if !geteuid().is_root() {
            println!("SKIPPED (root only): files of other users");
            assert!(std::env::var_os("CI").is_none(), "in CI every test must run");
            return;
        }
        let before = capabilities(None).unwrap();
        let inside =
            Owners::Same.as_caller(1000, 100, || Ok((geteuid().as_raw(), getegid().as_raw()))).unwrap();
        assert_eq!(inside, (1000, 100));
        assert_eq!(Owners::Same.as_caller(u32::MAX, 0, || Ok(())), Err(Errno::INVAL));
        assert_eq!(Owners::Same.as_caller(7, 7, || Err::<(), _>(Errno::EXIST)), Err(Errno::EXIST));
        assert_eq!((geteuid().as_raw(), getegid().as_raw()), (0, 0));
        assert_eq!(capabilities(None).unwrap().effective, before.effective);
    }
}
