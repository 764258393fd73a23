//! A guest's kernel in miniature: it asks as FUSE does, and also as no kernel would.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::super::testing::{Buffer, Driver};
use super::protocol::{ANSWER, op, set};
use super::*;

/// The first share, and the second, which is read-only.
const SHARED: u64 = 2;
const READ_ONLY: u64 = 3;

const ENOENT: i32 = 2;
const EBADF: i32 = 9;
const EPERM: i32 = 1;
const EINVAL: i32 = 22;
const EROFS: i32 = 30;
const ELOOP: i32 = 40;
const ESTALE: i32 = 116;
const EXDEV: i32 = 18;
const ENFILE: i32 = 23;
const ENXIO: i32 = 6;
const EOPNOTSUPP: i32 = 95;

struct Guest {
    driver: Driver,
    folder: TempDir,
    user: u32,
}

/// What a look-up gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    node: u64,
    ino: u64,
    size: u64,
    mode: u32,
    links: u32,
    owner: (u32, u32),
}

impl Entry {
    fn of(bytes: &[u8]) -> Self {
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        Self {
            node: long(0),
            ino: long(40),
            size: long(48),
            mode: word(100),
            links: word(104),
            owner: (word(108), word(112)),
        }
    }
}

impl Guest {
    /// A guest to which `shared` and `fixed`, the latter read-only, are shared; beside them lies what is not.
    fn new() -> Self {
        Self::with(1 << 16, 1 << 16)
    }

    fn with(most_open: usize, most: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["shared", "fixed"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("fixed/file"), "fixed").unwrap();
        fs::write(folder.path().join("secret"), "secret").unwrap();
        let share = |name: &str, read_only| Share::open(name, &folder.path().join(name), read_only).unwrap();
        let shares = vec![share("shared", false), share("fixed", true)];
        let mut device = Fs::new("lab", shares.clone(), 64).unwrap();
        device.server = Server::new(Nodes::new(shares, most_open, most).unwrap(), 64);
        let mut guest = Self { driver: Driver::new(Box::new(device)), folder, user: 0 };
        let init = [7u32, 38, 1 << 20, !0, 0].map(u32::to_le_bytes).concat();
        assert_eq!(guest.ask(op::INIT, 0, &[&init]).unwrap()[..8], [7u32, 31].map(u32::to_le_bytes).concat());
        guest
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join("shared").join(name)
    }

    /// One request with its answer; an error is its number.
    fn ask(&mut self, opcode: u32, node: u64, args: &[&[u8]]) -> Result<Vec<u8>, i32> {
        let args = args.concat();
        let request = request(opcode, node, self.user, &args);
        let answer = self
            .driver
            .request(1, &[Buffer::Read(&request), Buffer::Write(ANSWER as u32), Buffer::Write(70_000)])
            .expect("answered");
        let (len, error) = (word(&answer, 0) as usize, word(&answer, 4) as i32);
        assert_eq!(answer[8..16], 77u64.to_le_bytes(), "the request's number");
        if error == 0 { Ok(answer[ANSWER..len].to_vec()) } else { Err(-error) }
    }

    fn look_up(&mut self, node: u64, name: &str) -> Result<Entry, i32> {
        self.ask(op::LOOKUP, node, &[name.as_bytes(), b"\0"]).map(|bytes| Entry::of(&bytes))
    }

    fn open(&mut self, node: u64, flags: u32) -> Result<u64, i32> {
        self.ask(op::OPEN, node, &[&flags.to_le_bytes(), &[0; 4]]).map(|bytes| long(&bytes, 0))
    }

    /// Creates a file: its entry and its handle.
    fn create(&mut self, node: u64, name: &str, flags: u32) -> Result<(Entry, u64), i32> {
        let args = [flags | 0o100, 0o100_644, 0, 0].map(u32::to_le_bytes).concat();
        let bytes = self.ask(op::CREATE, node, &[&args, name.as_bytes(), b"\0"])?;
        Ok((Entry::of(&bytes), long(&bytes, 128)))
    }

    fn read(&mut self, node: u64, handle: u64, offset: u64, size: u32) -> Result<Vec<u8>, i32> {
        let args = [&handle.to_le_bytes()[..], &offset.to_le_bytes(), &size.to_le_bytes(), &[0; 20]].concat();
        self.ask(op::READ, node, &[&args])
    }

    fn write(
        &mut self,
        node: u64,
        handle: u64,
        offset: u64,
        data: &[u8],
        open_flags: u32,
    ) -> Result<u32, i32> {
        let size = data.len() as u32;
        let args = [&handle.to_le_bytes()[..], &offset.to_le_bytes(), &size.to_le_bytes(), &[0; 12]].concat();
        let bytes = self.ask(op::WRITE, node, &[&args, &open_flags.to_le_bytes(), &[0; 4], data])?;
        Ok(word(&bytes, 0))
    }

    fn remove(&mut self, opcode: u32, node: u64, name: &str) -> Result<Vec<u8>, i32> {
        self.ask(opcode, node, &[name.as_bytes(), b"\0"])
    }

    fn set(
        &mut self,
        node: u64,
        valid: u32,
        size: u64,
        mode: u32,
        owner: (u32, u32),
    ) -> Result<Vec<u8>, i32> {
        let args = [&valid.to_le_bytes()[..], &[0; 12], &size.to_le_bytes(), &[0; 44]].concat();
        let rest = [mode, 0, owner.0, owner.1, 0].map(u32::to_le_bytes).concat();
        self.ask(op::SETATTR, node, &[&args, &rest])
    }

    fn names(&mut self, node: u64) -> Vec<String> {
        let handle = long(&self.ask(op::OPENDIR, node, &[&[0; 8]]).unwrap(), 0);
        let (mut names, mut offset) = (Vec::new(), 0u64);
        loop {
            let args = [&handle.to_le_bytes()[..], &offset.to_le_bytes(), &512u32.to_le_bytes(), &[0; 20]];
            let list = self.ask(op::READDIR, node, &args).unwrap();
            let mut rest = &list[..];
            if rest.is_empty() {
                names.sort();
                return names;
            }
            while !rest.is_empty() {
                let len = word(rest, 16) as usize;
                offset = long(rest, 8);
                names.push(String::from_utf8(rest[24..24 + len].to_vec()).unwrap());
                rest = &rest[(24 + len).next_multiple_of(8)..];
            }
        }
    }
}

fn request(opcode: u32, node: u64, user: u32, args: &[u8]) -> Vec<u8> {
    let len = (REQUEST + args.len()) as u32;
    let numbers = [&len.to_le_bytes()[..], &opcode.to_le_bytes(), &77u64.to_le_bytes(), &node.to_le_bytes()];
    [&numbers.concat()[..], &user.to_le_bytes(), &user.to_le_bytes(), &[0; 8], args].concat()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn the_top_has_an_entry_for_each_share_and_nothing_can_be_made_there() {
    let mut guest = Guest::new();
    assert_eq!(guest.names(1), ["fixed", "shared"]);
    assert_eq!((guest.look_up(1, "shared").unwrap().node, guest.look_up(1, "fixed").unwrap().node), (2, 3));
    assert_eq!(guest.look_up(1, "other"), Err(ENOENT));
    assert_eq!(guest.ask(op::MKDIR, 1, &[&[0; 8], b"new\0"]), Err(ESTALE));
    assert_eq!(guest.driver.read_config::<8>(0), *b"lab\0\0\0\0\0");
    assert_eq!(guest.driver.read_config::<4>(36), 1u32.to_le_bytes());
}

#[test]
fn what_either_side_writes_the_other_reads_at_once() {
    let mut guest = Guest::new();
    fs::write(guest.path("from-host"), "one").unwrap();
    let file = guest.look_up(SHARED, "from-host").unwrap();
    let handle = guest.open(file.node, 2).unwrap();
    assert_eq!(guest.read(file.node, handle, 0, 100).unwrap(), b"one");
    fs::write(guest.path("from-host"), "longer").unwrap();
    assert_eq!(guest.look_up(SHARED, "from-host").unwrap().size, 6);
    assert_eq!(guest.read(file.node, handle, 2, 3).unwrap(), b"nge");
    assert_eq!(guest.write(file.node, handle, 0, b"L", 2), Ok(1));
    assert_eq!(fs::read(guest.path("from-host")).unwrap(), b"Longer");
}

#[test]
fn an_append_goes_to_the_end_wherever_the_guest_thinks_that_is() {
    let mut guest = Guest::new();
    let append = 1 | 0o2000;
    let (file, handle) = guest.create(SHARED, "log", append).unwrap();
    fs::write(guest.path("log"), "host ").unwrap();
    assert_eq!(guest.write(file.node, handle, 0, b"guest", append), Ok(5));
    assert_eq!(fs::read(guest.path("log")).unwrap(), b"host guest");
}

#[test]
fn a_removed_file_stays_open_and_its_name_is_free() {
    let mut guest = Guest::with(1, 100);
    let (file, handle) = guest.create(SHARED, "file", 2).unwrap();
    guest.remove(op::UNLINK, SHARED, "file").unwrap();
    assert_eq!(guest.look_up(SHARED, "file"), Err(ENOENT));
    assert_eq!(guest.write(file.node, handle, 0, b"still", 2), Ok(5));
    assert_eq!(guest.read(file.node, handle, 0, 9).unwrap(), b"still");
    let attributes = guest.ask(op::GETATTR, file.node, &[&[0; 16]]).unwrap();
    assert_eq!(word(&attributes, 16 + 64), 0, "no links are left");
}

#[test]
fn what_the_guest_makes_belongs_to_whoever_made_it_there() {
    if !is_root() {
        println!("SKIPPED (root only): files of other users");
        assert!(std::env::var_os("CI").is_none(), "in CI every test must run");
        return;
    }
    let mut guest = Guest::new();
    fs::set_permissions(guest.path(""), fs::Permissions::from_mode(0o700)).unwrap();
    guest.user = 1234;
    // All four ways, in a directory that the user could not enter on the host: the guest's kernel has allowed it.
    let (file, _) = guest.create(SHARED, "file", 1).unwrap();
    assert_eq!((file.owner, file.mode), ((1234, 1234), 0o100_644));
    guest.ask(op::MKDIR, SHARED, &[&0o777u32.to_le_bytes(), &[0; 4], b"folder\0"]).unwrap();
    guest.ask(op::SYMLINK, SHARED, &[b"link\0", b"/etc/passwd\0"]).unwrap();
    let fifo = [0o010_600u32, 0, 0, 0].map(u32::to_le_bytes).concat();
    guest.ask(op::MKNOD, SHARED, &[&fifo, b"fifo\0"]).unwrap();
    for name in ["file", "folder", "link", "fifo"] {
        let status = fs::symlink_metadata(guest.path(name)).unwrap();
        assert_eq!((status.uid(), status.gid()), (1234, 1234), "{name}");
    }
    assert_eq!(fs::metadata(guest.path("folder")).unwrap().mode() & 0o777, 0o777, "no umask of ours");
    guest.set(file.node, set::UID | set::GID | set::MODE, 0, 0o4755, (7, 8)).unwrap();
    let status = fs::metadata(guest.path("file")).unwrap();
    assert_eq!((status.uid(), status.gid(), status.mode() & 0o7777), (7, 8, 0o4755));
    assert_eq!(guest.set(file.node, set::UID, 0, 0, (u32::MAX, 0)), Err(EINVAL));
}

#[test]
fn links_names_and_renames_are_the_hosts() {
    let mut guest = Guest::new();
    let (file, _) = guest.create(SHARED, "one", 1).unwrap();
    let same = guest.ask(op::LINK, SHARED, &[&file.node.to_le_bytes(), b"two\0"]).unwrap();
    assert_eq!((Entry::of(&same).node, Entry::of(&same).links), (file.node, 2));
    fs::write(guest.path("other"), "other").unwrap();
    let other = guest.look_up(SHARED, "other").unwrap();
    let rename = |guest: &mut Guest, flags: u32, names: &[u8]| {
        guest.ask(op::RENAME2, SHARED, &[&SHARED.to_le_bytes(), &flags.to_le_bytes(), &[0; 4], names])
    };
    assert_eq!(rename(&mut guest, 1, b"one\0other\0"), Err(17), "RENAME_NOREPLACE");
    rename(&mut guest, 2, b"one\0other\0").unwrap();
    assert_eq!(guest.look_up(SHARED, "one").unwrap().node, other.node, "RENAME_EXCHANGE");
    assert_eq!(rename(&mut guest, 8, b"one\0other\0"), Err(EINVAL), "what there is not");
    guest.ask(op::SYMLINK, SHARED, &[b"link\0", b"../secret\0"]).unwrap();
    let link = guest.look_up(SHARED, "link").unwrap();
    assert_eq!(guest.ask(op::READLINK, link.node, &[]).unwrap(), b"../secret");
    assert_eq!(guest.names(SHARED), [".", "..", "link", "one", "other", "two"]);
    guest.set(other.node, set::SIZE, 2, 0, (0, 0)).unwrap();
    assert_eq!(fs::read(guest.path("one")).unwrap(), b"ot");
}

#[test]
fn no_link_and_no_name_leads_out_of_a_share() {
    let mut guest = Guest::new();
    symlink("../secret", guest.path("link")).unwrap();
    symlink("..", guest.path("up")).unwrap();
    for name in ["..", ".", "", "a/b", "../secret", "/etc/passwd"] {
        assert_eq!(guest.look_up(SHARED, name), Err(EINVAL), "{name:?}");
    }
    let link = guest.look_up(SHARED, "link").unwrap();
    assert_eq!(guest.open(link.node, 0), Err(ELOOP));
    assert_eq!(guest.set(link.node, set::SIZE, 0, 0, (0, 0)), Err(ELOOP));
    let up = guest.look_up(SHARED, "up").unwrap();
    assert!(guest.look_up(up.node, "secret").is_err());
    // A name that was a directory's when it was looked up, and a link's when it is used.
    fs::create_dir(guest.path("folder")).unwrap();
    let folder = guest.look_up(SHARED, "folder").unwrap();
    fs::remove_dir(guest.path("folder")).unwrap();
    symlink("..", guest.path("folder")).unwrap();
    assert_eq!(guest.look_up(folder.node, "secret"), Err(ENOENT));
    assert_eq!(guest.create(SHARED, "link", 2), Err(ELOOP));
    assert_eq!(fs::read(guest.folder.path().join("secret")).unwrap(), b"secret");
}

#[test]
fn only_files_and_directories_are_opened_and_few_devices_made() {
    let mut guest = Guest::new();
    let fifo = [0o010_600u32, 0, 0, 0].map(u32::to_le_bytes).concat();
    guest.ask(op::MKNOD, SHARED, &[&fifo, b"fifo\0"]).unwrap();
    let node = guest.look_up(SHARED, "fifo").unwrap().node;
    assert_eq!(guest.open(node, 0), Err(ENXIO), "which would wait for a writer");
    assert_eq!(guest.create(SHARED, "fifo", 2), Err(ENXIO));
    let disk = [0o060_600u32, 8 << 8, 0, 0].map(u32::to_le_bytes).concat();
    assert_eq!(guest.ask(op::MKNOD, SHARED, &[&disk, b"sda\0"]), Err(EPERM));
    let memory = [0o020_600u32, 1 << 8 | 1, 0, 0].map(u32::to_le_bytes).concat();
    assert_eq!(guest.ask(op::MKNOD, SHARED, &[&memory, b"mem\0"]), Err(EPERM));
}

#[test]
fn what_is_shared_read_only_cannot_be_changed_in_any_way() {
    let mut guest = Guest::new();
    let file = guest.look_up(READ_ONLY, "file").unwrap();
    let reader = guest.open(file.node, 0).unwrap();
    assert_eq!(guest.read(file.node, reader, 0, 100).unwrap(), b"fixed");
    assert_eq!(guest.write(file.node, reader, 0, b"x", 0), Err(EBADF));
    for flags in [1, 2, 0o1000] {
        assert_eq!(guest.open(file.node, flags), Err(EROFS));
    }
    assert_eq!(guest.create(READ_ONLY, "new", 2), Err(EROFS));
    assert_eq!(guest.create(READ_ONLY, "file", 0), Err(EROFS));
    assert_eq!(guest.remove(op::UNLINK, READ_ONLY, "file"), Err(EROFS));
    assert_eq!(guest.set(file.node, set::SIZE, 0, 0, (0, 0)), Err(EROFS));
    assert_eq!(guest.ask(op::SETXATTR, file.node, &[&[0; 8], b"user.x\0"]), Err(EROFS));
    let both = [&READ_ONLY.to_le_bytes()[..], b"file\0new\0"].concat();
    assert_eq!(guest.ask(op::RENAME, SHARED, &[&both]), Err(EROFS));
    // Through the share that can be written, it is not the same file.
    assert_eq!(guest.ask(op::LINK, SHARED, &[&file.node.to_le_bytes(), b"mine\0"]), Err(EXDEV));
    let both = [&SHARED.to_le_bytes()[..], b"file\0mine\0"].concat();
    assert_eq!(guest.ask(op::RENAME, READ_ONLY, &[&both]), Err(EROFS));
}

#[test]
fn more_files_may_be_known_than_descriptors_and_all_are_found_again() {
    let mut guest = Guest::with(4, 100);
    let mut nodes = Vec::new();
    for number in 0..40 {
        fs::create_dir_all(guest.path(&format!("a/{number}/b"))).unwrap();
        fs::write(guest.path(&format!("a/{number}/b/file")), number.to_string()).unwrap();
    }
    let a = guest.look_up(SHARED, "a").unwrap().node;
    for number in 0..30 {
        let middle = guest.look_up(a, &number.to_string()).unwrap().node;
        let folder = guest.look_up(middle, "b").unwrap().node;
        nodes.push(guest.look_up(folder, "file").unwrap().node);
    }
    for (number, &node) in nodes.iter().enumerate() {
        let handle = guest.open(node, 0).unwrap();
        assert_eq!(guest.read(node, handle, 0, 9).unwrap(), number.to_string().as_bytes());
        guest.ask(op::RELEASE, node, &[&handle.to_le_bytes(), &[0; 16]]).unwrap();
    }
    // One that the host replaced is not mistaken for the old one.
    fs::rename(guest.path("a/0/b/file"), guest.path("a/0/b/old")).unwrap();
    fs::write(guest.path("a/0/b/file"), "new").unwrap();
    assert_eq!(guest.open(nodes[0], 0), Err(ESTALE));
    // No more than the bound are known; the guest has to forget some.
    let more = (30..40).find_map(|number| guest.look_up(a, &number.to_string()).err());
    assert_eq!(more, Some(ENFILE));
    let forget = request(op::FORGET, nodes[5], 0, &1u64.to_le_bytes());
    guest.driver.add(0, &[Buffer::Read(&forget)]);
    guest.driver.settle();
    assert_eq!(guest.open(nodes[5], 0), Err(ESTALE));
}

#[test]
fn attributes_of_users_and_capabilities_are_kept_and_others_are_none_of_the_guests_business() {
    let mut guest = Guest::new();
    let (file, _) = guest.create(SHARED, "file", 1).unwrap();
    let set = |guest: &mut Guest, name: &[u8], value: &[u8]| {
        let size = (value.len() as u32).to_le_bytes();
        guest.ask(op::SETXATTR, file.node, &[&size, &[0; 4], name, b"\0", value])
    };
    if set(&mut guest, b"user.colour", b"red") == Err(EOPNOTSUPP) {
        println!("SKIPPED (the temporary directory's file system has no user attributes)");
        assert!(std::env::var_os("CI").is_none(), "in CI every test must run");
        return;
    }
    for name in [&b"trusted.overlay.redirect"[..], b"security.selinux", b"system.posix_acl_access"] {
        assert_eq!(set(&mut guest, name, b"x"), Err(EOPNOTSUPP));
    }
    let ask = |guest: &mut Guest, opcode, size: u32, name: &[u8]| {
        guest.ask(opcode, file.node, &[&size.to_le_bytes(), &[0; 4], name])
    };
    assert_eq!(ask(&mut guest, op::GETXATTR, 100, b"user.colour\0").unwrap(), b"red");
    assert_eq!(ask(&mut guest, op::GETXATTR, 0, b"user.colour\0").unwrap()[..4], 3u32.to_le_bytes());
    assert_eq!(ask(&mut guest, op::GETXATTR, 1, b"user.colour\0"), Err(34));
    assert_eq!(ask(&mut guest, op::LISTXATTR, 100, b"").unwrap(), b"user.colour\0");
    guest.remove(op::REMOVEXATTR, file.node, "user.colour").unwrap();
    assert_eq!(ask(&mut guest, op::GETXATTR, 100, b"user.colour\0"), Err(61));
}

#[test]
fn holes_space_copies_and_syncs_work_on_open_files() {
    let mut guest = Guest::new();
    let (file, handle) = guest.create(SHARED, "file", 2).unwrap();
    guest.write(file.node, handle, 8192, b"data", 2).unwrap();
    let ask = |guest: &mut Guest, opcode, numbers: &[u64]| {
        let numbers: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        guest.ask(opcode, file.node, &[&numbers])
    };
    assert_eq!(long(&ask(&mut guest, op::LSEEK, &[handle, 8192, 4]).unwrap(), 0), 8196, "SEEK_HOLE");
    assert_eq!(ask(&mut guest, op::LSEEK, &[handle, 0, 9]), Err(EINVAL));
    ask(&mut guest, op::FALLOCATE, &[handle, 0, 20000, 0]).unwrap();
    assert_eq!(fs::metadata(guest.path("file")).unwrap().len(), 20000);
    let (copy, to) = guest.create(SHARED, "copy", 2).unwrap();
    let copied = ask(&mut guest, op::COPY_FILE_RANGE, &[handle, 8192, copy.node, to, 0, 4, 0]).unwrap();
    assert_eq!((word(&copied, 0), fs::read(guest.path("copy")).unwrap()), (4, b"data".to_vec()));
    for flags in [0, 1] {
        ask(&mut guest, op::FSYNC, &[handle, flags]).unwrap();
    }
    assert_eq!(ask(&mut guest, op::FSYNC, &[99, 0]), Err(EBADF));
    ask(&mut guest, op::SYNCFS, &[0]).unwrap();
    assert!(long(&ask(&mut guest, op::STATFS, &[]).unwrap(), 0) > 0);
    assert_eq!(guest.read(file.node, handle, u64::MAX, 1), Err(EINVAL));
    assert_eq!(guest.write(file.node, handle, i64::MAX as u64, b"x", 2), Err(EINVAL));
    assert_eq!(guest.read(SHARED, handle, 0, 1), Err(EBADF), "of another node");
}

#[test]
fn a_driver_that_is_reset_knows_nothing_any_more() {
    let mut guest = Guest::new();
    let (file, handle) = guest.create(SHARED, "file", 2).unwrap();
    guest.driver.restart();
    assert_eq!(guest.read(file.node, handle, 0, 1), Err(EBADF));
    assert_eq!(guest.open(file.node, 0), Err(ESTALE));
    assert_eq!(guest.look_up(SHARED, "file").unwrap().mode, 0o100_644);
}

/// A request of any kind about the nodes and handles that there may be, with names and numbers that mean something.
fn anything() -> impl Strategy<Value = (u32, u64, Vec<u8>)> {
    let piece = prop_oneof![
        (0..8u64).prop_map(|number| number.to_le_bytes().to_vec()),
        any::<u32>().prop_map(|number| number.to_le_bytes().to_vec()),
        Just(0o100_666u32.to_le_bytes().to_vec()),
        Just(u64::MAX.to_le_bytes().to_vec()),
        prop::sample::select(vec![
            &b"a\0"[..],
            b"b\0",
            b"link\0",
            b"..\0",
            b"../../secret\0",
            b"a",
            b"user.x\0"
        ])
        .prop_map(<[u8]>::to_vec),
        prop::collection::vec(any::<u8>(), 0..90),
    ];
    let args = prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat());
    (0..55u32, prop_oneof![0..12u64, any::<u64>()], args)
}

/// What lies beside the writable share, which must stay as it is.
fn untouched(folder: &Path) -> (Vec<u8>, Vec<u8>, usize) {
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    (read("secret"), read("fixed/file"), fs::read_dir(folder).unwrap().count())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_message_is_answered_and_nothing_beside_the_share_changes(
        messages in prop::collection::vec(anything(), 0..80),
    ) {
        let mut guest = Guest::with(8, 40);
        symlink("../secret", guest.path("link")).unwrap();
        let before = untouched(guest.folder.path());
        for (opcode, node, args) in messages {
            if [op::FORGET, op::BATCH_FORGET].contains(&opcode) {
                let forget = request(opcode, node, 0, &args);
                guest.driver.request(0, &[Buffer::Read(&forget)]);
            } else {
                let _ = guest.ask(opcode, node, &[&args]);
            }
            prop_assert!(!guest.driver.needs_reset());
        }
        prop_assert_eq!(untouched(guest.folder.path()), before);
    }
}
