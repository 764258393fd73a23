//! A network of containers: a bridge on the host, and for each container a pair of virtual Ethernet devices (veth(4)), one
//! end at the bridge, the other, `eth0`, in the container's network namespace.
//!
//! All of it is said to the kernel by netlink (rtnetlink(7)), each time on a thread of its own: one that has joined a
//! container's namespace (setns(2)) cannot be used for anything else.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::PathBuf;
use std::thread;

use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Error;
use super::error::Context as _;

/// The container's device.
const INSIDE: &str = "eth0";

/// A container's place in a network.
#[derive(Clone, Debug)]
pub(crate) struct Plug {
    /// The bridge's name, at most 15 bytes (IFNAMSIZ).
    pub bridge: String,
    /// The bridge's own address, which containers send to what is elsewhere.
    pub gateway: Ipv4Addr,
    /// The container's address.
    pub address: Ipv4Addr,
    /// Bits of both that name the network.
    pub prefix: u8,
    /// The name of the host's end.
    pub device: String,
    /// Which device it is inside, from 0.
    pub number: usize,
}

/// Plugs a container in; the bridge is made where it is missing.
///
/// # Errors
/// Where the kernel refuses, or the container is gone.
pub(crate) fn plug(plug: &Plug, pid: i64) -> Result<(), Error> {
    let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
    let namespace = File::open(&path).context("open", path.display())?;
    let outside = plug.clone();
    let inside_fd = namespace.try_clone().context("open", path.display())?;
    talk(None, async move |handle| {
        let bridge = match find(&handle, &outside.bridge).await? {
            Some(index) => index,
            None => make_bridge(&handle, &outside).await?,
        };
        // The peer is born in the container's namespace, so that nobody sees it here.
        let temporary = format!("{}p", outside.device);
        handle.link().add(LinkVeth::new(&outside.device, &temporary).build()).execute().await?;
        let ours = found(&handle, &outside.device).await?;
        let theirs = found(&handle, &temporary).await?;
        handle.link().set(LinkUnspec::new_with_index(ours).controller(bridge).up().build()).execute().await?;
        let moved = LinkUnspec::new_with_index(theirs).setns_by_fd(inside_fd.as_raw_fd()).name(format!(
            "{}{}",
            &INSIDE[..3],
            outside.number
        ));
        handle.link().set(moved.build()).execute().await
    })
    .context("plug a container into", &plug.bridge)?;
    let inside = plug.clone();
    talk(Some(namespace), async move |handle| {
        let device = found(&handle, &format!("{}{}", &INSIDE[..3], inside.number)).await?;
        handle.address().add(device, IpAddr::V4(inside.address), inside.prefix).execute().await?;
        handle.link().set(LinkUnspec::new_with_index(device).up().build()).execute().await?;
        if inside.number == 0 {
            let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(inside.gateway).build();
            handle.route().add(route).execute().await?;
        }
        Ok(())
    })
    .context("set up the network in a container of", &plug.bridge)
}

/// Takes a container out of a network: with one end of the pair goes the other.
///
/// # Errors
/// Where the kernel refuses; that it is out already is none.
pub(crate) fn unplug(device: &str) -> Result<(), Error> {
    remove(device)
}

/// Removes a network's bridge.
///
/// # Errors
/// Where the kernel refuses; that there is none is no error.
pub(crate) fn remove(device: &str) -> Result<(), Error> {
    let name = device.to_owned();
    talk(None, async move |handle| match find(&handle, &name).await? {
        Some(index) => handle.link().del(index).execute().await,
        None => Ok(()),
    })
    .context("remove network device", device)
}

async fn make_bridge(handle: &Handle, plug: &Plug) -> Result<u32, rtnetlink::Error> {
    match handle.link().add(LinkBridge::new(&plug.bridge).build()).execute().await {
        // Another container's start was faster; it sets it up as well.
        Err(error) if code(&error) == Some(rustix::io::Errno::EXIST.raw_os_error()) => {}
        other => other?,
    }
    let index = found(handle, &plug.bridge).await?;
    match handle.address().add(index, IpAddr::V4(plug.gateway), plug.prefix).execute().await {
        Err(error) if code(&error) == Some(rustix::io::Errno::EXIST.raw_os_error()) => {}
        other => other?,
    }
    handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await?;
    Ok(index)
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
    use std::future::poll_fn;
    use std::pin::pin;
    let mut links = pin!(handle.link().get().match_name(name.to_owned()).execute());
    // `next` of a stream, without a crate for it.
    let first = poll_fn(|context| futures_core::Stream::poll_next(links.as_mut(), context)).await;
    match first {
        Some(Ok(link)) => Ok(link.header.index),
        Some(Err(error)) => Err(error),
        None => Err(rtnetlink::Error::RequestFailed),
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
fn talk(
    namespace: Option<File>,
    work: impl AsyncFnOnce(Handle) -> Result<(), rtnetlink::Error> + Send + 'static,
) -> Result<(), std::io::Error> {
    let thread =
        thread::Builder::new().name("netlink".to_owned()).spawn(move || -> Result<(), std::io::Error> {
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
