//! Who the workload is: `USER[:GROUP]`, by name or number, looked up in the image's own `/etc/passwd` and `/etc/group`.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::error::{Error, Result};

/// passwd(5) and group(5) of an image are text files of a few hundred lines.
const LARGEST: u64 = 4 << 20;

/// The identity that a workload runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// The primary group's number.
    pub gid: u32,
    /// The further groups that the image's `/etc/group` puts the user into.
    pub groups: Vec<u32>,
    /// The home directory, `/` where the image does not know the user.
    pub home: String,
}

/// The two files of an image.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    /// Reads them from an image's directories, the topmost first ([`super::Store::layer_dirs`]), or from one directory
    /// that is a whole root file system. A missing file is an empty one.
    ///
    /// # Errors
    /// Where a file is there and cannot be read.
    pub fn read(directories: &[PathBuf]) -> Result<Self> {
        Ok(Self { passwd: first(directories, "etc/passwd")?, group: first(directories, "etc/group")? })
    }

    /// Looks up `USER[:GROUP]`; an empty one is root, as docker has it. A number need not be known to the image.
    ///
    /// # Errors
    /// Where a name is not in the image, or a number is not one of a user.
    pub fn resolve(&self, user: &str) -> Result<User> {
        let (user, group) = match user.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
            None => (user, None),
        };
        let user = if user.is_empty() { "0" } else { user };
        let number = id(user);
        // By name first: a name may consist of digits.
        let line = self.passwd_lines().find(|line| line.name == user);
        let line = line.or_else(|| number.and_then(|uid| self.passwd_lines().find(|line| line.uid == uid)));
        let missing = |file| Error::User { user: user.to_owned(), file };
        let uid = line.as_ref().map(|line| line.uid).or(number).ok_or_else(|| missing("/etc/passwd"))?;
        let name = line.as_ref().map_or(user, |line| line.name);
        let (gid, groups) = if let Some(group) = group {
            // A group given is the only one (docker, `GetExecUser`).
            let known = self.group_lines().find(|line| line.name == group).map(|line| line.gid);
            let missing = || Error::User { user: format!("{user}:{group}"), file: "/etc/group" };
            (known.or_else(|| id(group)).ok_or_else(missing)?, Vec::new())
        } else {
            let gid = line.as_ref().map_or(0, |line| line.gid);
            let member = |line: &Group<'_>| line.members.split(',').any(|member| member == name);
            let mut groups: Vec<u32> = self.group_lines().filter(member).map(|line| line.gid).collect();
            groups.sort_unstable();
            groups.dedup();
            (gid, groups)
        };
        let home = line.map(|line| line.home).filter(|home| home.starts_with('/')).unwrap_or("/");
        Ok(User { uid, gid, groups, home: home.to_owned() })
    }

    fn passwd_lines(&self) -> impl Iterator<Item = Passwd<'_>> {
        // passwd(5): name:password:UID:GID:GECOS:directory:shell
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            let uid = id(fields.nth(1)?)?;
            let gid = id(fields.next()?)?;
            Some(Passwd { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
        })
    }

    fn group_lines(&self) -> impl Iterator<Item = Group<'_>> {
        // group(5): name:password:GID:members
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            Some(Group { name, gid: id(fields.nth(1)?)?, members: fields.next().unwrap_or_default() })
        })
    }
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// A user's or group's number; -1 is none (`chown(2)`).
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|&id| id != u32::MAX)
}

/// The file in the topmost directory that says anything about it.
fn first(directories: &[PathBuf], name: &str) -> Result<String> {
    for directory in directories {
        let failed = || Error::io("reading", directory.join(name));
        let root = File::open(directory).map_err(failed())?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = match rustix::fs::openat2(&root, name, flags, Mode::empty(), resolve) {
            // Not in this layer; ENXIO: a whiteout, which is a device without a driver; ELOOP: a link to itself.
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(Errno::NXIO | Errno::LOOP) => break,
            file => File::from(file.map_err(|errno| failed()(errno.into()))?),
        };
        if !file.metadata().map_err(failed())?.is_file() {
            break;
        }
        let mut content = Vec::new();
        file.take(LARGEST).read_to_end(&mut content).map_err(failed())?;
        return Ok(String::from_utf8_lossy(&content).into_owned());
    }
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd:
                "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv/web:\n7:x:1007:1007::/home/seven:/bin/sh\n\
                     broken\nwide:x:99999999999:0::/:\n"
                    .to_owned(),
            group: "root:x:0:\nweb:x:34:\nlogs:x:4:adm,web\nvideo:x:44:web\nnone:x:-1:web\n".to_owned(),
        }
    }

    fn user(uid: u32, gid: u32, groups: &[u32], home: &str) -> User {
        User { uid, gid, groups: groups.to_vec(), home: home.to_owned() }
    }

    #[test]
    fn a_user_is_found_by_name_or_number_with_all_groups() {
        let web = user(33, 34, &[4, 44], "/srv/web");
        assert_eq!(accounts().resolve("web").unwrap(), web);
        assert_eq!(accounts().resolve("33").unwrap(), web);
        assert_eq!(accounts().resolve("").unwrap(), user(0, 0, &[], "/root"));
    }

    #[test]
    fn a_group_given_is_the_only_one() {
        assert_eq!(accounts().resolve("web:logs").unwrap(), user(33, 4, &[], "/srv/web"));
        assert_eq!(accounts().resolve("web:1234").unwrap().gid, 1234);
    }

    #[test]
    fn a_number_that_the_image_does_not_know_is_taken_as_it_is() {
        assert_eq!(accounts().resolve("1000:1000").unwrap(), user(1000, 1000, &[], "/"));
    }

    #[test]
    fn a_name_of_digits_is_a_name_first() {
        assert_eq!(accounts().resolve("7").unwrap().uid, 1007);
    }

    #[test]
    fn unknown_names_and_impossible_numbers_are_refused() {
        for name in ["nobody", "web:nogroup", "4294967295", "-1", "wide"] {
            assert!(matches!(accounts().resolve(name), Err(Error::User { .. })), "{name}");
        }
    }
}
