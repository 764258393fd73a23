//! The addresses of a network: which there are, which are taken, which comes next.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bollard_stubs::models::IpamConfig;
use ipnet::{IpNet, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::engine::Error;

/// The addresses of one family in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// All of them.
    pub subnet: IpNet,
    /// Those that containers are given which ask for none in particular.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<IpNet>,
    /// The bridge's own.
    pub gateway: IpAddr,
    /// Those that something else on the network has, by names for people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub taken: BTreeMap<String, IpAddr>,
    /// Whether the user chose the subnet: then it stays, and containers may choose their addresses in it.
    #[serde(default)]
    pub chosen: bool,
}

impl Pool {
    /// One whose subnet nobody chose.
    pub(super) fn new(subnet: impl Into<IpNet>) -> Self {
        let subnet = subnet.into();
        Self { subnet, range: None, gateway: first(&subnet), taken: BTreeMap::new(), chosen: false }
    }

    /// What a request asks for. `None` where it asks for no subnet in particular.
    pub(super) fn asked(config: &IpamConfig) -> Result<Option<Self>, Error> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let wrong = |what: String| Error::bad(format!("invalid network config: {what}"));
        let Some(text) = given(&config.subnet) else {
            if [&config.ip_range, &config.gateway].into_iter().any(|text| given(text).is_some()) {
                return Err(wrong("an ip-range or a gateway needs a subnet that it is in".to_owned()));
            }
            return Ok(None);
        };
        let block = |what: &str, text: &str| -> Result<IpNet, Error> {
            let net: IpNet = text
                .parse()
                .map_err(|_| wrong(format!("invalid {what} {text}: invalid CIDR block notation")))?;
            // Any address of it names a block, as it does for ip-address(8).
            Ok(net.trunc())
        };
        let subnet = block("subnet", &text)?;
        let range = given(&config.ip_range).map(|text| block("ip-range", &text)).transpose()?;
        if let Some(range) = range.filter(|range| !subnet.contains(range)) {
            return Err(wrong(format!(
                "invalid ip-range {range}: parent subnet {subnet} doesn't contain it"
            )));
        }
        let inside = |what: &str, text: &str| -> Result<IpAddr, Error> {
            let address: IpAddr =
                text.parse().map_err(|_| wrong(format!("invalid {what} {text}: invalid address")))?;
            if subnet.contains(&address) {
                return Ok(address);
            }
            Err(wrong(format!("invalid {what} {text}: parent subnet {subnet} doesn't contain this address")))
        };
        let gateway = given(&config.gateway).map(|text| inside("gateway", &text)).transpose()?;
        let taken = config.auxiliary_addresses.iter().flatten();
        let taken: Result<_, Error> = taken
            .map(|(name, text)| Ok((name.clone(), inside(&format!("auxiliary address {name}"), text)?)))
            .collect();
        let most = if subnet.addr().is_ipv4() { 30 } else { 126 };
        if subnet.prefix_len() > most {
            return Err(wrong(format!("subnet {subnet} is too small: at most /{most}")));
        }
        let gateway = gateway.unwrap_or_else(|| first(&subnet));
        Ok(Some(Self { subnet, range, gateway, taken: taken?, chosen: true }))
    }

    /// Whether it and another have an address in common.
    pub(super) fn overlaps(&self, other: &IpNet) -> bool {
        self.subnet.contains(other) || other.contains(&self.subnet)
    }

    /// The least address that nobody has.
    pub(super) fn free(&self, used: &HashSet<IpAddr>) -> Option<IpAddr> {
        let block = self.range.unwrap_or(self.subnet);
        let (from, to) = (number(block.network()), number(block.broadcast()));
        // The first of a subnet names it (or any router, RFC 4291, section 2.6.1); IPv4's last is everyone (RFC 922).
        let ends = [self.subnet.network(), self.subnet.broadcast()];
        let ends = &ends[..if self.subnet.addr().is_ipv4() { 2 } else { 1 }];
        (from..=to).map(|number| address(number, &block)).find(|address| {
            !used.contains(address)
                && *address != self.gateway
                && !ends.contains(address)
                && !self.taken.values().any(|taken| taken == address)
        })
    }

    /// The same place in another subnet of the same size.
    pub(super) fn moved(&self, place: IpAddr, to: &IpNet) -> IpAddr {
        let offset = number(place).wrapping_sub(number(self.subnet.network()));
        address(number(to.network()).wrapping_add(offset), to)
    }
}

/// The subnet of a network that wants IPv6 and leaves the choice: a unique local one (RFC 4193), of the network's own id.
pub(super) fn unique_local(id: &str) -> Ipv6Net {
    let digits = id.get(..14).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_default();
    // fd, 40 bits that nobody else has by chance, 16 for the subnet.
    let bits = 0xfdu128 << 120 | u128::from(digits) << 64;
    Ipv6Net::new_assert(Ipv6Addr::from(bits), 64)
}

/// The first address that something may have.
fn first(subnet: &IpNet) -> IpAddr {
    address(number(subnet.network()) + 1, subnet)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// An address of the family of this block.
fn address(number: u128, family: &IpNet) -> IpAddr {
    match family {
        IpNet::V4(_) => Ipv4Addr::from(number as u32).into(),
        IpNet::V6(_) => Ipv6Addr::from(number).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config(subnet: &str, range: &str, gateway: &str) -> IpamConfig {
        IpamConfig {
            subnet: Some(subnet.into()),
            ip_range: Some(range.into()),
            gateway: Some(gateway.into()),
            auxiliary_addresses: None,
        }
    }

    #[test]
    fn a_pool_is_what_is_asked_for_or_the_refusal_names_what_is_wrong() {
        let pool = Pool::asked(&config("172.28.0.0/16", "172.28.5.0/24", "172.28.5.254"));
        let pool = pool.unwrap().unwrap();
        assert!(pool.chosen && pool.gateway.to_string() == "172.28.5.254");
        assert_eq!(Pool::asked(&config("", "", "")).unwrap(), None);
        for (subnet, range, gateway, part) in [
            ("172.28.0.0", "", "", "CIDR"),
            ("172.28.0.0/16", "172.29.0.0/24", "", "ip-range"),
            ("172.28.0.0/16", "", "10.0.0.1", "gateway"),
            ("172.28.0.0/16", "", "fd00::1", "gateway"),
            ("172.28.0.0/31", "", "", "too small"),
            ("", "", "10.0.0.1", "subnet"),
        ] {
            let error = Pool::asked(&config(subnet, range, gateway)).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let lenient = Pool::asked(&config("2001:389::1/64", "", "")).unwrap().unwrap();
        assert_eq!(lenient.subnet.to_string(), "2001:389::/64");
    }

    #[test]
    fn addresses_come_in_order_and_never_what_somebody_has() {
        let mut pool = Pool::asked(&config("10.0.0.0/29", "", "")).unwrap().unwrap();
        pool.taken.insert("printer".into(), "10.0.0.3".parse().unwrap());
        let mut used = HashSet::new();
        let mut given = Vec::new();
        while let Some(address) = pool.free(&used) {
            used.insert(address);
            given.push(address.to_string());
        }
        assert_eq!(given, ["10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        let six = Pool::new(unique_local(&"ab".repeat(32)));
        assert_eq!(six.subnet.to_string(), "fdab:abab:abab:abab::/64");
        assert_eq!(six.free(&HashSet::new()).unwrap().to_string(), "fdab:abab:abab:abab::2");
    }

    proptest! {
        #[test]
        fn whatever_is_asked_for_is_refused_or_has_addresses(subnet in ".{0,20}", bits in 0u8..=140, four: u32, gateway in ".{0,12}") {
            let _ = Pool::asked(&config(&subnet, "", &gateway));
            if let Ok(Some(pool)) = Pool::asked(&config(&format!("{}/{bits}", Ipv4Addr::from(four)), "", "")) {
                let free = pool.free(&HashSet::new()).unwrap();
                prop_assert!(pool.subnet.contains(&free) && free != pool.gateway);
            }
        }
    }
}
