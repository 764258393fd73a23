//! A network of containers and machines: a bridge on the host. A container has a pair of virtual Ethernet devices
//! (veth(4)), one end at the bridge, the other, `eth0`, in its network namespace; a machine has a TAP device at the bridge,
//! the other end of which is its network card's cable.
//!
//! All of it is said to the kernel by netlink (rtnetlink(7)), each time on a thread of its own: one that has joined a
//! container's namespace (setns(2)) cannot be used for anything else.

use std::fs::{self, File};
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::PathBuf;
use std::pin::pin;
use std::thread;

use futures_core::Stream;
use ipnet::{IpNet, Ipv4Net};
use microvm::network::{Interface, Link, Tap};
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection};
use rustix::fs::{FlockOperation, flock};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Error;
use super::error::Context as _;

/// What a container calls its devices, before their numbers.
const INSIDE: &str = "eth";

/// The longest IP packet, in bytes, where a network says no other: Ethernet's.
pub(crate) const MTU: u16 = 1500;

/// A network's bridge.
#[derive(Clone, Debug)]
pub(crate) struct Bridge {
    /// Its name, at most 15 bytes (IFNAMSIZ).
    pub name: String,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Its own addresses, which containers send to what is elsewhere, with their networks' prefixes.
    pub addresses: Vec<IpNet>,
    /// The longest IP packet, in bytes.
    pub mtu: u16,
}

/// A container's or machine's place in a network.
#[derive(Clone, Debug)]
pub(crate) struct Plug {
    /// The bridge.
    pub bridge: Bridge,
    /// The address inside.
    pub address: Ipv4Addr,
    /// Bits of it that name the network.
    pub prefix: u8,
    /// All addresses inside, the same one among them.
    pub addresses: Vec<IpNet>,
    /// The hardware address inside.
    pub mac: [u8; 6],
    /// The name of the host's end.
    pub device: String,
    /// The way to what is elsewhere, by family, where this place is it.
    pub gateways: Vec<IpAddr>,
}

/// The hardware address that belongs to an address: docker's rule, with a first byte for those of nobody's making.
pub(crate) fn hardware(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// A hardware address as people write it: six bytes in hexadecimal, between colons or hyphens.
pub(crate) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let bytes: Option<Vec<u8>> = parts
        .iter()
        .map(|part| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2 && !part.starts_with('+')))
        .collect();
    bytes?.try_into().ok()
}

/// Nobody else changes the lab's bridges of this network namespace as long as the lock lives, whatever lab it is.
///
/// # Errors
/// Where the namespace cannot be opened.
pub(crate) fn lock() -> Result<File, Error> {
    const NAMESPACE: &str = "/proc/self/ns/net";
    let namespace = File::open(NAMESPACE).context("open", NAMESPACE)?;
    flock(&namespace, FlockOperation::LockExclusive).context("lock", NAMESPACE)?;
    Ok(namespace)
}

/// Whether a bridge is there.
///
/// # Errors
/// Where the kernel cannot be asked.
pub(crate) fn is_up(bridge: &Bridge) -> Result<bool, Error> {
    let name = bridge.name.clone();
    talk(None, async move |handle| Ok(find(&handle, &name).await?.is_some()))
        .context("look for", &bridge.name)
}

/// Makes a bridge. That it is there already is no error.
///
/// # Errors
/// Where the kernel refuses.
pub(crate) fn raise(bridge: &Bridge) -> Result<(), Error> {
    let own = bridge.clone();
    talk(None, async move |handle| {
        // An address of its own: else it has the least of those that are plugged in, which come and go.
        let link = LinkBridge::new(&own.name).address(own.mac.to_vec()).mtu(own.mtu.into()).build();
        known(handle.link().add(link).execute().await)?;
        let index = found(&handle, &own.name).await?;
        for address in &own.addresses {
            known(give(&handle, index, address).await)?;
        }
        handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await
    })
    .context("make the bridge", &bridge.name)
}

/// Removes a bridge that nothing is plugged into. Whether it is gone.
///
/// # Errors
/// Where the kernel refuses; that there is none is no error.
pub(crate) fn lower(name: &str) -> Result<bool, Error> {
    let own = name.to_owned();
    talk(None, async move |handle| {
        let Some(bridge) = find(&handle, &own).await? else { return Ok(true) };
        let mut links = pin!(handle.link().get().execute());
        while let Some(link) = next(links.as_mut()).await {
            if link?.attributes.contains(&LinkAttribute::Controller(bridge)) {
                return Ok(false);
            }
        }
        handle.link().del(bridge).execute().await?;
        Ok(true)
    })
    .context("remove the bridge", name)
}

/// Plugs a container in, into a bridge that is there.
///
/// # Errors
/// Where the kernel refuses, or the container is gone.
// ANCHOR: plug
pub(crate) fn plug(plug: &Plug, pid: i64) -> Result<(), Error> {
    let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
    let open = || File::open(&path).context("open", path.display());
    let (namespace, outside) = (open()?, plug.clone());
    let taken = talk(Some(open()?), async |handle| names(&handle).await)
        .context("list devices of", path.display())?;
    let name = (0..=taken.len()).map(|number| format!("{INSIDE}{number}")).find(|name| !taken.contains(name));
    let (name, inside) = (name.unwrap_or_default(), plug.clone());
    let named = name.clone();
    let target = open()?;
    talk(None, async move |handle| {
        let bridge = found(&handle, &outside.bridge.name).await?;
        // What was killed here before has left half of this.
        if let Some(old) = find(&handle, &outside.device).await? {
            handle.link().del(old).execute().await?;
        }
        // The peer is moved to the container's namespace before it is anything here.
        let temporary = format!("{}p", outside.device);
        handle.link().add(LinkVeth::new(&outside.device, &temporary).build()).execute().await?;
        let ours = found(&handle, &outside.device).await?;
        let theirs = found(&handle, &temporary).await?;
        let mtu = u32::from(outside.bridge.mtu);
        let cable = LinkUnspec::new_with_index(ours).controller(bridge).mtu(mtu).up();
        handle.link().set(cable.build()).execute().await?;
        let moved = LinkUnspec::new_with_index(theirs).setns_by_fd(target.as_raw_fd()).mtu(mtu).name(named);
        handle.link().set(moved.build()).execute().await
    })
    .context("plug a container into", &plug.bridge.name)?;
    talk(Some(namespace), async move |handle| {
        let device = found(&handle, &name).await?;
        for address in &inside.addresses {
            give(&handle, device, address).await?;
        }
        let up = LinkUnspec::new_with_index(device).address(inside.mac.to_vec()).up();
        handle.link().set(up.build()).execute().await?;
        lead(&handle, &inside.gateways).await
    })
    .context("set up the network in a container of", &plug.bridge.name)
}
// ANCHOR_END: plug

/// Shows a container that runs its way to what is elsewhere.
///
/// # Errors
/// Where the kernel refuses, or the container is gone.
pub(crate) fn lead_out(pid: i64, gateways: &[IpAddr]) -> Result<(), Error> {
    let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
    let namespace = File::open(&path).context("open", path.display())?;
    let gateways = gateways.to_vec();
    talk(Some(namespace), async move |handle| lead(&handle, &gateways).await)
        .context("change the default route in", path.display())
}

/// Plugs a machine in that is yet to be made, into a bridge that is there: its network card, whose TAP device goes with it.
///
/// # Errors
/// Where the kernel refuses.
// ANCHOR: plug_machine
pub(crate) fn plug_machine(plug: &Plug) -> Result<Interface, Error> {
    let tap = Tap::create(&plug.device)?;
    let outside = plug.clone();
    talk(None, async move |handle| {
        let bridge = found(&handle, &outside.bridge.name).await?;
        let ours = found(&handle, &outside.device).await?;
        let cable = LinkUnspec::new_with_index(ours).controller(bridge).mtu(outside.bridge.mtu.into()).up();
        handle.link().set(cable.build()).execute().await
    })
    .context("plug a machine into", &plug.bridge.name)?;
    Ok(Interface {
        link: Link::Tap(tap),
        mac: plug.mac,
        mtu: plug.bridge.mtu,
        address: plug.address,
        prefix: plug.prefix,
        gateway: plug.gateways.iter().find_map(|gateway| match gateway {
            IpAddr::V4(gateway) => Some(*gateway),
            IpAddr::V6(_) => None,
        }),
    })
}
// ANCHOR_END: plug_machine

/// Takes a container or machine out of a network, by the host's end: with one end of a pair goes the other.
///
/// # Errors
/// Where the kernel refuses; that it is out already is none.
pub(crate) fn unplug(device: &str) -> Result<(), Error> {
    let name = device.to_owned();
    talk(None, async move |handle| {
        let Some(index) = find(&handle, &name).await? else { return Ok(()) };
        match handle.link().del(index).execute().await {
            // Its namespace ended this moment, and it with that.
            Err(error) if code(&error) == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(()),
            other => other,
        }
    })
    .context("remove network device", device)
}

/// The networks that this machine has a way to, but for the default one.
pub(crate) fn routes() -> Vec<Ipv4Net> {
    // Destination and mask are the second and the eighth column, as numbers in the machine's own order (proc(5)).
    let text = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let address =
        |text: &str| u32::from_str_radix(text, 16).ok().map(|number| Ipv4Addr::from(number.to_ne_bytes()));
    let read = |line: &str| {
        let mut columns = line.split_whitespace();
        let to = address(columns.nth(1)?)?;
        Ipv4Net::with_netmask(to, address(columns.nth(5)?)?).ok()
    };
    text.lines().filter_map(read).filter(|route| route.prefix_len() > 0).collect()
}

/// Gives a device an address. One of IPv6 can be used at once: that nobody else has it is known (IFA_F_NODAD, rtnetlink(7)).
async fn give(handle: &Handle, device: u32, address: &IpNet) -> Result<(), rtnetlink::Error> {
    let mut request = handle.address().add(device, address.addr(), address.prefix_len());
    if address.addr().is_ipv6() {
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
    }
    request.execute().await
}

/// Sets default routes.
async fn lead(handle: &Handle, gateways: &[IpAddr]) -> Result<(), rtnetlink::Error> {
    for gateway in gateways {
        let route = match *gateway {
            IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build(),
            IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).build(),
        };
        handle.route().add(route).replace().execute().await?;
    }
    Ok(())
}

/// The names of all devices.
async fn names(handle: &Handle) -> Result<Vec<String>, rtnetlink::Error> {
    let mut links = pin!(handle.link().get().execute());
    let mut names = Vec::new();
    while let Some(link) = next(links.as_mut()).await {
        names.extend(link?.attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        }));
    }
    Ok(names)
}

/// The index of a device; none where there is none of this name.
async fn find(handle: &Handle, name: &str) -> Result<Option<u32>, rtnetlink::Error> {
    // The name is the interface's alias in /sys/class/net, but that shows the mount's namespace, not the thread's.
    match found(handle, name).await {
        Ok(index) => Ok(Some(index)),
        Err(error) if code(&error) == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn found(handle: &Handle, name: &str) -> Result<u32, rtnetlink::Error> {
    let mut links = pin!(handle.link().get().match_name(name.to_owned()).execute());
    match next(links.as_mut()).await {
        Some(Ok(link)) => Ok(link.header.index),
        Some(Err(error)) => Err(error),
        None => Err(rtnetlink::Error::RequestFailed),
    }
}

/// `next` of a stream, without a crate for it.
async fn next<S: Stream<Item = Result<LinkMessage, rtnetlink::Error>>>(
    mut stream: std::pin::Pin<&mut S>,
) -> Option<S::Item> {
    poll_fn(|context| stream.as_mut().poll_next(context)).await
}

/// What somebody else has done already is done.
fn known(result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match result {
        Err(error) if code(&error) == Some(rustix::io::Errno::EXIST.raw_os_error()) => Ok(()),
        other => other,
    }
}

/// The errno of a netlink error.
fn code(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|code| -code.get()),
        _ => None,
    }
}

/// Talks to the kernel about the network of this process, or of a namespace.
fn talk<T: Send + 'static>(
    namespace: Option<File>,
    work: impl AsyncFnOnce(Handle) -> Result<T, rtnetlink::Error> + Send + 'static,
) -> Result<T, std::io::Error> {
    let thread =
        thread::Builder::new().name("netlink".to_owned()).spawn(move || -> Result<T, std::io::Error> {
            if let Some(namespace) = &namespace {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let (connection, handle, _) = new_connection()?;
                let connection = tokio::spawn(connection);
                let result = work(handle).await;
                connection.abort();
                result.map_err(|error| match code(&error) {
                    Some(code) => std::io::Error::from_raw_os_error(code),
                    None => std::io::Error::other(error),
                })
            })
        })?;
    thread.join().unwrap_or_else(|_| Err(std::io::Error::other("the thread that speaks netlink failed")))
}
