//! The machine's network: its loopback, its cards, and the files that say who is where.
//!
//! The sandbox shares the guest's network: the wall is the machine's own. So PID 1 sets it up, before there is a process,
//! and sets it up anew in each machine that is made of a snapshot.

use core::ffi::CStr;

use freestanding::sys::mount::{self, flags};
use freestanding::sys::{file, net, process};
use freestanding::{Errno, Fd, OwnedFd, Text};
use guest_wire::{Field, Fields, Tag};

use crate::failure::{During, Failure};
use crate::path;

/// Where the sandbox's own files lie, by their numbers.
const FILES: &CStr = c"/files";

/// A network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its hardware address.
    pub hardware: [u8; 6],
    /// Its IPv4 address.
    pub address: [u8; 4],
    /// How many bits of it name the network.
    pub prefix: u8,
    /// Where everything goes that is for elsewhere.
    pub gateway: Option<[u8; 4]>,
}

impl Interface {
    /// Reads the field.
    pub fn read(field: Field<'_>) -> Option<Self> {
        let (hardware, rest) = field.bytes.split_first_chunk()?;
        let (address, rest) = rest.split_first_chunk()?;
        let (&prefix, rest) = rest.split_first()?;
        let gateway: [u8; 4] = rest.try_into().ok()?;
        let gateway = (gateway != [0; 4]).then_some(gateway);
        (prefix <= 32).then_some(Self { hardware: *hardware, address: *address, prefix, gateway })
    }
}

/// A file of the sandbox's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnFile<'a> {
    /// Where it is to be seen.
    pub path: &'a CStr,
    /// What it holds.
    pub content: &'a [u8],
}

impl<'a> OwnFile<'a> {
    /// Reads the field.
    pub fn read(field: Field<'a>) -> Option<Self> {
        let path = CStr::from_bytes_until_nul(field.bytes).ok()?;
        let content = field.bytes.get(path.count_bytes() + 1..)?;
        path.to_bytes().starts_with(b"/").then_some(Self { path, content })
    }
}

fn files(payload: &[u8]) -> impl Iterator<Item = OwnFile<'_>> {
    Fields::new(payload).filter(|field| field.tag == Tag::File).filter_map(OwnFile::read)
}

/// Sets up what the fields of a `Setup` or `Renew` say. In PID 1.
///
/// # Errors
/// The step that failed.
pub fn prepare(payload: &[u8]) -> Result<(), Failure<'_>> {
    let mut cards = Fields::new(payload).filter(|field| field.tag == Tag::Interface).peekable();
    match net::requests() {
        Ok(socket) => {
            net::switch(*socket, b"lo", true).during("switch on", b"lo")?;
            for (number, card) in cards.filter_map(Interface::read).enumerate() {
                set_up(*socket, number, &card)?;
            }
        }
        // A kernel without IPv4 serves programs that ask for none.
        Err(errno) if cards.peek().is_some() => return Err(Failure::new(errno, "socket", b"")),
        Err(_) => {}
    }
    for (number, own) in files(payload).enumerate() {
        if number == 0 {
            match file::mkdir(FILES, 0o755) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(Failure::new(errno, "mkdir", FILES.to_bytes())),
            }
        }
        let mut path = Text::<64>::new();
        path.text(FILES.to_bytes()).text("/").number(number as u64);
        let open = file::flags::WRITE | file::flags::CREATE | file::flags::TRUNCATE;
        path.c_str()
            .ok_or(Errno::NAMETOOLONG)
            .and_then(|path| file::open(path, open, 0o644))
            .and_then(|file| file.write_all(own.content))
            .during("write", own.path.to_bytes())?;
    }
    Ok(())
}

fn set_up(socket: Fd, number: usize, card: &Interface) -> Result<(), Failure<'static>> {
    let mut name = Text::<16>::new();
    let name = name.text("eth").number(number as u64).bytes();
    // Off first: one that a snapshot had on forgets its routes by it.
    net::switch(socket, name, false).during("find network card", b"eth")?;
    net::set_hardware_address(socket, name, card.hardware).during("set the hardware address of", b"eth")?;
    net::set_address(socket, name, card.address, card.prefix).during("set the address of", b"eth")?;
    net::switch(socket, name, true).during("switch on", b"eth")?;
    card.gateway
        .map_or(Ok(()), |gateway| net::add_gateway(socket, gateway))
        .during("add a gateway for", b"eth")
}

/// The folder of the sandbox's own files, to be opened before the root is another; none where there are none.
///
/// # Errors
/// Where it cannot be opened.
pub fn open_files(payload: &[u8]) -> Result<Option<OwnedFd>, Failure<'static>> {
    if files(payload).next().is_none() {
        return Ok(None);
    }
    let folder = file::open(FILES, file::flags::READ | file::flags::DIRECTORY, 0);
    folder.map(Some).during("open", FILES.to_bytes())
}

/// Puts the sandbox's own files over the image's. In the first process, whose root is the sandbox's.
///
/// # Errors
/// The step that failed.
pub fn show_files(folder: Fd, payload: &[u8]) -> Result<(), Failure<'_>> {
    for (number, own) in files(payload).enumerate() {
        // A relative source starts at the working directory, which lies outside the root.
        process::chdir_to(folder).during("chdir", FILES.to_bytes())?;
        let mut name = Text::<32>::new();
        let name = name.number(number as u64).c_str().unwrap_or(c"");
        // A read-only image may have no place for it; a program that misses it finds that there is none.
        let _ = path::make_file(own.path);
        match mount::mount(name, own.path, c"", flags::BIND, c"") {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(Failure::new(errno, "mount", own.path.to_bytes())),
        }
    }
    process::chdir(c"/").during("chdir", b"/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_read_as_it_was_written() {
        let bytes = [2, 0, 0, 0, 0, 7, 10, 213, 0, 2, 24, 10, 213, 0, 1];
        let card = Interface::read(Field { tag: Tag::Interface, bytes: &bytes }).unwrap();
        assert_eq!((card.address, card.prefix, card.gateway), ([10, 213, 0, 2], 24, Some([10, 213, 0, 1])));
        for wrong in
            [&bytes[..14], &[&bytes[..], &[0]].concat(), &[&bytes[..10], &[33], &bytes[11..]].concat()]
        {
            assert_eq!(Interface::read(Field { tag: Tag::Interface, bytes: wrong }), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_files_path_begins_at_the_root_and_what_it_holds_may_be_anything() {
        let read = |bytes| OwnFile::read(Field { tag: Tag::File, bytes });
        assert_eq!(read(b"/etc/hosts\0a\0b"), Some(OwnFile { path: c"/etc/hosts", content: b"a\0b" }));
        assert_eq!((read(b"etc/hosts\0x"), read(b"/etc/hosts")), (None, None));
    }
}
