//! Extended attributes (xattr(7)): those that a container's programs can set too.
//!
//! `user.*` and a file's capabilities. The others belong to the host's kernel and its overlays: `trusted.*` needs a right that no
//! container has, labels mean nothing to another kernel, and an ACL's users are checked by the guest, which is not told of them.

use rustix::fs::OFlags;
use rustix::fs::{XattrFlags, fgetxattr, fgetxattr_query, flistxattr, fremovexattr, fsetxattr};
use rustix::io::Errno;

use super::protocol::{Answer, Args};
use super::server::Server;

/// The longest value and the longest list (XATTR_SIZE_MAX, XATTR_LIST_MAX).
const MOST: usize = 65536;

/// The longest name (XATTR_NAME_MAX).
const NAME: usize = 255;

type Result<T> = std::result::Result<T, Errno>;

fn is_shown(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name == b"security.capability"
}

fn name<'a>(args: &mut Args<'a>) -> Result<&'a [u8]> {
    match args.text()? {
        name if name.len() > NAME => Err(Errno::RANGE),
        name if is_shown(name) => Ok(name),
        _ => Err(Errno::OPNOTSUPP),
    }
}

/// The answer to a question for at most `size` bytes; 0 asks for the length.
fn sized(size: u32, bytes: Vec<u8>) -> Result<Answer> {
    match size as usize {
        0 => Ok(Answer::default().u32(bytes.len() as u32).u32(0)),
        most if bytes.len() > most => Err(Errno::RANGE),
        _ => Ok(Answer(bytes)),
    }
}

impl Server {
    pub(super) fn set_xattr(&mut self, node: u64, args: &mut Args<'_>) -> Result<Answer> {
        let (size, flags) = (args.u32()?, args.u32()?);
        let name = name(args)?;
        let value = args.0.get(..size as usize).ok_or(Errno::INVAL)?;
        let flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        self.nodes.check_writable(node)?;
        fsetxattr(self.for_xattrs(node)?, name, value, flags)?;
        Ok(Answer::default())
    }

    pub(super) fn get_xattr(&mut self, node: u64, args: &mut Args<'_>) -> Result<Answer> {
        let (size, _) = (args.u32()?, args.u32()?);
        let name = name(args)?;
        let file = self.for_xattrs(node)?;
        if size == 0 {
            return Ok(Answer::default().u32(fgetxattr_query(file, name)? as u32).u32(0));
        }
        let mut value = vec![0; (size as usize).min(MOST)];
        let len = fgetxattr(file, name, &mut value[..])?;
        value.truncate(len);
        Ok(Answer(value))
    }

    pub(super) fn list_xattrs(&mut self, node: u64, args: &mut Args<'_>) -> Result<Answer> {
        let (size, _) = (args.u32()?, args.u32()?);
        let mut all = vec![0; MOST];
        let len = match self.for_xattrs(node) {
            Ok(file) => flistxattr(file, &mut all[..])?,
            Err(Errno::OPNOTSUPP) => 0,
            Err(errno) => return Err(errno),
        };
        let shown = all[..len].split_inclusive(|&byte| byte == 0);
        sized(size, shown.filter(|name| is_shown(&name[..name.len() - 1])).flatten().copied().collect())
    }

    pub(super) fn remove_xattr(&mut self, node: u64, args: &mut Args<'_>) -> Result<Answer> {
        let name = name(args)?;
        self.nodes.check_writable(node)?;
        fremovexattr(self.for_xattrs(node)?, name)?;
        Ok(Answer::default())
    }

    /// A file or directory, open. Links, devices and FIFOs cannot have attributes of these kinds.
    fn for_xattrs(&mut self, node: u64) -> Result<std::fs::File> {
        self.nodes.reopen(node, OFlags::RDONLY).map_err(|errno| match errno {
            Errno::LOOP | Errno::NXIO => Errno::OPNOTSUPP,
            other => other,
        })
    }
}
