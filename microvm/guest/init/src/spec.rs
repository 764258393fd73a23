//! The payloads of `Setup` and `Exec`, checked whole before any of it is acted on.

use core::ffi::CStr;

use freestanding::Errno;
use freestanding::sys::terminal::Size;
use guest_wire::{Field, Fields, Tag};

use crate::failure::Failure;
use crate::network::{Interface, OwnFile};

const BAD_SETUP: Failure<'static> = Failure::new(Errno::PROTO, "read Setup", b"");
const BAD_RENEW: Failure<'static> = Failure::new(Errno::PROTO, "read Renew", b"");
const BAD_EXEC: Failure<'static> = Failure::new(Errno::PROTO, "read Exec", b"");

/// What `Setup` says, read in place.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    payload: &'a [u8],
    /// The block device, or folder, with the root file system.
    pub root_device: &'a CStr,
    /// Its file system; `bind` for a folder.
    pub root_type: &'a CStr,
    /// The workload cannot write to it.
    pub root_read_only: bool,
    /// It is written to itself, without an overlay.
    pub root_writable: bool,
    /// The tag of the virtio-fs device with what the host shares.
    pub shares: Option<&'a CStr>,
    /// Host name.
    pub host_name: Option<&'a CStr>,
    /// NIS domain name.
    pub domain_name: Option<&'a CStr>,
    /// The host's CLOCK_REALTIME: seconds, nanoseconds.
    pub time: Option<(u64, u64)>,
}

/// One mount of the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mount<'a> {
    /// mount(2)'s flags.
    pub flags: u64,
    /// Source.
    pub source: &'a CStr,
    /// Target, in the sandbox's root.
    pub target: &'a CStr,
    /// File system type.
    pub kind: &'a CStr,
    /// Options of the file system.
    pub data: &'a CStr,
}

impl<'a> Mount<'a> {
    fn read(field: Field<'a>) -> Option<Self> {
        let flags = field.u64_at(0)?;
        let (source, rest) = text(field.bytes.get(8..)?)?;
        let (target, rest) = text(rest)?;
        let (kind, rest) = text(rest)?;
        let (data, rest) = text(rest)?;
        (rest.is_empty() && target.to_bytes().starts_with(b"/")).then_some(Self {
            flags,
            source,
            target,
            kind,
            data,
        })
    }
}

/// Splits a text ending in NUL from what follows it.
fn text(bytes: &[u8]) -> Option<(&CStr, &[u8])> {
    let text = CStr::from_bytes_until_nul(bytes).ok()?;
    Some((text, bytes.get(text.count_bytes() + 1..)?))
}

fn sysctl(field: Field<'_>) -> Option<(&CStr, &CStr)> {
    let (name, rest) = text(field.bytes)?;
    let (value, rest) = text(rest)?;
    let climbs = name.to_bytes().split(|&byte| byte == b'/').any(|part| part == b"..");
    (rest.is_empty() && !climbs).then_some((name, value))
}

impl<'a> Setup<'a> {
    /// Reads the payload.
    ///
    /// # Errors
    /// A field is malformed, or of `Exec`, or the root is missing.
    pub fn read(payload: &'a [u8]) -> Result<Self, Failure<'static>> {
        let mut setup = Self {
            payload,
            root_device: c"",
            root_type: c"",
            root_read_only: false,
            root_writable: false,
            shares: None,
            host_name: None,
            domain_name: None,
            time: None,
        };
        let mut rest = Fields::new(payload);
        for field in rest.by_ref() {
            setup.field(field).ok_or(BAD_SETUP)?;
        }
        if !rest.is_done() || setup.root_device.is_empty() || setup.root_type.is_empty() {
            return Err(BAD_SETUP);
        }
        Ok(setup)
    }

    fn field(&mut self, field: Field<'a>) -> Option<()> {
        match field.tag {
            Tag::RootDevice => self.root_device = field.text()?,
            Tag::RootType => self.root_type = field.text()?,
            Tag::RootReadOnly => self.root_read_only = true,
            Tag::RootWritable => self.root_writable = true,
            Tag::Shares => self.shares = Some(field.text()?),
            Tag::HostName => self.host_name = Some(field.text()?),
            Tag::DomainName => self.domain_name = Some(field.text()?),
            Tag::Time => self.time = Some((field.u64_at(0)?, field.u64_at(8)?)),
            Tag::Mount => drop(Mount::read(field)?),
            Tag::MaskedPath | Tag::ReadOnlyPath => drop(field.text()?),
            Tag::Sysctl => drop(sysctl(field)?),
            Tag::Interface => drop(Interface::read(field)?),
            Tag::File => drop(OwnFile::read(field)?),
            _ => return None,
        }
        Some(())
    }

    /// All of it, for what reads its own fields.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The mounts, in order.
    pub fn mounts(&self) -> impl Iterator<Item = Mount<'a>> + use<'a> {
        Fields::new(self.payload).filter(|field| field.tag == Tag::Mount).filter_map(Mount::read)
    }

    /// Names below /proc/sys and their values.
    pub fn sysctls(&self) -> impl Iterator<Item = (&'a CStr, &'a CStr)> + use<'a> {
        Fields::new(self.payload).filter(|field| field.tag == Tag::Sysctl).filter_map(sysctl)
    }

    /// Paths to hide.
    pub fn masked_paths(&self) -> impl Iterator<Item = &'a CStr> + use<'a> {
        texts(Fields::new(self.payload), Tag::MaskedPath)
    }

    /// Paths to make read-only.
    pub fn read_only_paths(&self) -> impl Iterator<Item = &'a CStr> + use<'a> {
        texts(Fields::new(self.payload), Tag::ReadOnlyPath)
    }
}

fn texts(fields: Fields<'_>, tag: Tag) -> impl Iterator<Item = &CStr> + use<'_> {
    fields.filter(move |field| field.tag == tag).filter_map(|field| field.text())
}

/// What `Renew` says, read in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Renew<'a> {
    /// All of it, for what reads its own fields.
    pub payload: &'a [u8],
    /// Random bytes.
    pub seed: Option<&'a [u8]>,
    /// Host name.
    pub host_name: Option<&'a CStr>,
    /// The host's CLOCK_REALTIME: seconds, nanoseconds.
    pub time: Option<(u64, u64)>,
}

impl<'a> Renew<'a> {
    /// Reads the payload.
    ///
    /// # Errors
    /// A field is malformed, or of another message.
    pub fn read(payload: &'a [u8]) -> Result<Self, Failure<'static>> {
        let mut renew = Self { payload, ..Self::default() };
        let mut rest = Fields::new(payload);
        for field in rest.by_ref() {
            match field.tag {
                Tag::Seed => renew.seed = Some(field.bytes),
                Tag::HostName => renew.host_name = Some(field.text().ok_or(BAD_RENEW)?),
                Tag::Time => {
                    renew.time = field.u64_at(0).zip(field.u64_at(8));
                    renew.time.ok_or(BAD_RENEW)?;
                }
                Tag::Interface => drop(Interface::read(field).ok_or(BAD_RENEW)?),
                Tag::File => drop(OwnFile::read(field).ok_or(BAD_RENEW)?),
                _ => return Err(BAD_RENEW),
            }
        }
        if rest.is_done() { Ok(renew) } else { Err(BAD_RENEW) }
    }
}

/// Capability sets: one bit a capability, capabilities(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySets {
    /// What may ever be gained.
    pub bounding: u64,
    /// In force.
    pub effective: u64,
    /// May pass through execve(2) of a file that has them as inheritable.
    pub inheritable: u64,
    /// May be put in force.
    pub permitted: u64,
    /// Pass through execve(2) of any file.
    pub ambient: u64,
}

/// What `Exec` says, read in place.
#[derive(Clone, Copy, Debug)]
pub struct Exec<'a> {
    payload: &'a [u8],
    /// How many pointers `argv` and `envp` take together, their ends included.
    pub pointers: usize,
    /// Working directory.
    pub cwd: &'a CStr,
    /// User and group.
    pub user: (u32, u32),
    /// File mode creation mask.
    pub umask: u32,
    /// A terminal of this size.
    pub terminal: Option<Size>,
    /// Capabilities, if they are to be changed.
    pub capabilities: Option<CapabilitySets>,
    /// Set no_new_privs.
    pub no_new_privileges: bool,
    /// OOM score adjustment.
    pub oom_score_adj: Option<i32>,
    /// /dev/null as standard input.
    pub no_input: bool,
}

impl<'a> Exec<'a> {
    /// Reads the payload.
    ///
    /// # Errors
    /// A field is malformed, or of `Setup`, or there is no argument.
    pub fn read(payload: &'a [u8]) -> Result<Self, Failure<'static>> {
        let mut exec = Self {
            payload,
            pointers: 2,
            cwd: c"/",
            user: (0, 0),
            umask: 0o022,
            terminal: None,
            capabilities: None,
            no_new_privileges: false,
            oom_score_adj: None,
            no_input: false,
        };
        let mut rest = Fields::new(payload);
        for field in rest.by_ref() {
            exec.field(field).ok_or(BAD_EXEC)?;
        }
        if !rest.is_done() || exec.arguments().next().is_none() {
            return Err(BAD_EXEC);
        }
        Ok(exec)
    }

    fn field(&mut self, field: Field<'a>) -> Option<()> {
        match field.tag {
            Tag::Arg | Tag::Env => {
                field.text()?;
                self.pointers += 1;
            }
            Tag::Cwd => self.cwd = field.text().filter(|path| !path.is_empty())?,
            Tag::User => {
                let both = field.u64_at(0)?;
                self.user = (both as u32, (both >> 32) as u32);
            }
            Tag::Group => drop(field.u32()?),
            Tag::Umask => self.umask = field.u32()? & 0o777,
            Tag::Terminal => {
                let &[r0, r1, c0, c1] = field.bytes else { return None };
                self.terminal =
                    Some(Size { rows: u16::from_le_bytes([r0, r1]), columns: u16::from_le_bytes([c0, c1]) });
            }
            Tag::Rlimit => drop(limit(field)?),
            Tag::Capabilities => {
                let set = |index: usize| field.u64_at(index * 8);
                self.capabilities = Some(CapabilitySets {
                    bounding: set(0)?,
                    effective: set(1)?,
                    inheritable: set(2)?,
                    permitted: set(3)?,
                    ambient: set(4)?,
                });
            }
            Tag::NoNewPrivileges => self.no_new_privileges = true,
            Tag::OomScoreAdj => self.oom_score_adj = Some(field.u32()? as i32),
            Tag::NoInput => self.no_input = true,
            _ => return None,
        }
        Some(())
    }

    /// The arguments.
    pub fn arguments(&self) -> impl Iterator<Item = &'a CStr> + use<'a> {
        texts(Fields::new(self.payload), Tag::Arg)
    }

    /// The environment.
    pub fn environment(&self) -> impl Iterator<Item = &'a CStr> + use<'a> {
        texts(Fields::new(self.payload), Tag::Env)
    }

    /// The value of PATH in that environment.
    pub fn path(&self) -> Option<&'a [u8]> {
        self.environment().find_map(|entry| entry.to_bytes().strip_prefix(b"PATH="))
    }

    /// Additional groups.
    pub fn groups(&self) -> impl Iterator<Item = u32> + use<'a> {
        Fields::new(self.payload).filter(|field| field.tag == Tag::Group).filter_map(|field| field.u32())
    }

    /// Resource limits: RLIMIT_ number, soft, hard.
    pub fn limits(&self) -> impl Iterator<Item = (u32, u64, u64)> + use<'a> {
        Fields::new(self.payload).filter(|field| field.tag == Tag::Rlimit).filter_map(limit)
    }
}

fn limit(field: Field) -> Option<(u32, u64, u64)> {
    let (number, _) = field.bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*number), field.u64_at(4)?, field.u64_at(12)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use guest_wire::Writer;

    fn payload(write: impl FnOnce(&mut Writer<Vec<u8>>)) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        write(&mut writer);
        writer.finish()
    }

    fn root(writer: &mut Writer<Vec<u8>>) {
        writer.text(Tag::RootDevice, b"/dev/vda");
        writer.text(Tag::RootType, b"erofs");
    }

    #[test]
    fn a_setup_is_read_as_it_was_written() {
        let bytes = payload(|writer| {
            root(writer);
            writer.text(Tag::HostName, b"box");
            writer.field(Tag::Mount, &[&6u64.to_le_bytes(), b"proc\0/proc\0proc\0\0"]);
            writer.field(Tag::Sysctl, &[b"net/ipv4/ip_forward\x001\0"]);
            writer.text(Tag::MaskedPath, b"/proc/kcore");
        });
        let setup = Setup::read(&bytes).unwrap();
        assert_eq!((setup.root_device, setup.host_name), (c"/dev/vda", Some(c"box")));
        let proc = Mount { flags: 6, source: c"proc", target: c"/proc", kind: c"proc", data: c"" };
        assert_eq!(setup.mounts().collect::<Vec<_>>(), [proc]);
        assert_eq!(setup.sysctls().next(), Some((c"net/ipv4/ip_forward", c"1")));
        assert_eq!(setup.masked_paths().next(), Some(c"/proc/kcore"));
    }

    #[test]
    fn a_setup_that_makes_no_sense_is_refused() {
        let bad: [(&str, Vec<u8>); 6] = [
            ("no root", payload(|writer| writer.text(Tag::HostName, b"box"))),
            ("cut short", payload(root)[..12].to_vec()),
            ("a field of Exec", payload(|w| (root(w), w.text(Tag::Arg, b"x")).1)),
            (
                "a mount without data",
                payload(|w| (root(w), w.field(Tag::Mount, &[&[0; 8], b"a\0/b\0c\0"])).1),
            ),
            ("a relative target", payload(|w| (root(w), w.field(Tag::Mount, &[&[0; 8], b"a\0b\0c\0\0"])).1)),
            ("a climbing sysctl", payload(|w| (root(w), w.field(Tag::Sysctl, &[b"../../etc/x\x001\0"])).1)),
        ];
        for (what, bytes) in bad {
            assert_eq!(Setup::read(&bytes).err(), Some(BAD_SETUP), "{what}");
        }
    }

    #[test]
    fn an_exec_is_read_as_it_was_written() {
        let bytes = payload(|writer| {
            writer.text(Tag::Arg, b"sh");
            writer.text(Tag::Arg, b"-c");
            writer.text(Tag::Env, b"PATH=/bin");
            writer.field(Tag::User, &[&7u32.to_le_bytes(), &8u32.to_le_bytes()]);
            writer.field(Tag::Group, &[&9u32.to_le_bytes()]);
            writer.field(Tag::Terminal, &[&24u16.to_le_bytes(), &80u16.to_le_bytes()]);
            writer.field(Tag::Rlimit, &[&7u32.to_le_bytes(), &1u64.to_le_bytes(), &2u64.to_le_bytes()]);
            writer.field(Tag::OomScoreAdj, &[&(-5i32 as u32).to_le_bytes()]);
        });
        let exec = Exec::read(&bytes).unwrap();
        assert_eq!(exec.arguments().collect::<Vec<_>>(), [c"sh", c"-c"]);
        assert_eq!((exec.path(), exec.user, exec.pointers), (Some(&b"/bin"[..]), (7, 8), 5));
        assert_eq!(exec.terminal, Some(Size { rows: 24, columns: 80 }));
        assert_eq!(exec.groups().collect::<Vec<_>>(), [9]);
        assert_eq!(exec.limits().collect::<Vec<_>>(), [(7, 1, 2)]);
        assert_eq!(exec.oom_score_adj, Some(-5));
    }

    #[test]
    fn an_exec_that_makes_no_sense_is_refused() {
        for bytes in [
            payload(|_| ()),
            payload(|w| w.text(Tag::Env, b"A=1")),
            payload(|w| (w.text(Tag::Arg, b"x"), w.field(Tag::Terminal, &[&[0; 3]])).1),
            payload(|w| (w.text(Tag::Arg, b"x"), w.field(Tag::Capabilities, &[&[0; 39]])).1),
            payload(|w| (w.text(Tag::Arg, b"x"), w.field(Tag::Arg, &[b"no nul"])).1),
            payload(|w| (w.text(Tag::Arg, b"x"), w.text(Tag::Cwd, b"")).1),
        ] {
            assert_eq!(Exec::read(&bytes).err(), Some(BAD_EXEC));
        }
    }
}
