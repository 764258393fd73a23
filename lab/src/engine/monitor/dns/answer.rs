//! What is answered to a question about names: who is there, by name, alias and id, and which address is whose (RFC 1034, 1035).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use simple_dns::rdata::{A, AAAA, PTR, RData};
use simple_dns::{CLASS, Name, OPCODE, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};

/// How long an answer may be kept, in seconds: addresses come and go with containers.
const LIFE: u32 = 5;
/// The longest message over UDP that every client takes (RFC 1035, section 4.2.1).
const SHORT: u16 = 512;

/// Who is there.
pub(crate) trait Names: Send + Sync {
    /// The addresses that a name stands for, as this asker may know them; none where it is no name here.
    fn addresses(&self, asker: Ipv4Addr, name: &str) -> Option<Vec<IpAddr>>;

    /// The name of an address that the asker may know.
    fn name(&self, asker: Ipv4Addr, address: IpAddr) -> Option<String>;

    /// The servers to ask for everything else.
    fn servers(&self, asker: Ipv4Addr) -> Vec<SocketAddr>;
}

/// What is to be said to a question.
pub(super) enum Answer {
    /// Nothing: it is none.
    Nothing,
    Known(Vec<u8>),
    /// Another server has to be asked.
    Elsewhere,
}

pub(super) fn answer(question: &[u8], names: &dyn Names, asker: Ipv4Addr, short: bool) -> Answer {
    let Ok(packet) = Packet::parse(question) else { return Answer::Nothing };
    if packet.has_flags(PacketFlag::RESPONSE) {
        return Answer::Nothing;
    }
    let say = |reply: Option<Vec<u8>>| reply.map_or(Answer::Nothing, Answer::Known);
    if packet.opcode() != OPCODE::StandardQuery {
        return say(failure(question, RCODE::NotImplemented));
    }
    let [asked] = &packet.questions[..] else { return say(failure(question, RCODE::FormatError)) };
    let name = asked.qname.to_string().to_ascii_lowercase();
    let records: Vec<RData<'_>> = if let Some(addresses) = names.addresses(asker, &name) {
        let (a, aaaa) = (QTYPE::TYPE(TYPE::A), QTYPE::TYPE(TYPE::AAAA));
        // Where it is there, but has nothing of this kind: an answer without records (RFC 2308, section 2.2).
        let record = |address: IpAddr| match address {
            IpAddr::V4(address) if asked.qtype == a || asked.qtype == QTYPE::ANY => {
                Some(RData::A(A { address: address.into() }))
            }
            IpAddr::V6(address) if asked.qtype == aaaa || asked.qtype == QTYPE::ANY => {
                Some(RData::AAAA(AAAA { address: address.into() }))
            }
            _ => None,
        };
        addresses.into_iter().filter_map(record).collect()
    } else if let Some(found) = reversed(&name).and_then(|address| names.name(asker, address)) {
        let Ok(found) = Name::new(&found) else { return Answer::Elsewhere };
        vec![RData::PTR(PTR(found.into_owned()))]
    } else {
        return Answer::Elsewhere;
    };
    let mut reply = Packet::new_reply(packet.id());
    let copied = PacketFlag::RECURSION_DESIRED;
    if packet.has_flags(copied) {
        reply.set_flags(copied);
    }
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    reply.questions.push(asked.clone());
    for record in records {
        reply.answers.push(ResourceRecord::new(asked.qname.clone(), CLASS::IN, LIFE, record));
    }
    let most =
        if short { packet.opt().map_or(SHORT, |opt| opt.udp_packet_size.max(SHORT)) } else { u16::MAX };
    let bytes = reply.build_bytes_vec_compressed().ok();
    let fits = bytes.as_ref().is_some_and(|bytes| bytes.len() <= usize::from(most));
    if fits {
        return say(bytes);
    }
    // The client asks again over TCP.
    reply.answers.clear();
    reply.set_flags(PacketFlag::TRUNCATION);
    say(reply.build_bytes_vec_compressed().ok())
}

/// The answer that there is none.
pub(super) fn failure(question: &[u8], why: RCODE) -> Option<Vec<u8>> {
    let packet = Packet::parse(question).ok()?;
    let mut reply = Packet::new_reply(packet.id());
    *reply.opcode_mut() = packet.opcode();
    *reply.rcode_mut() = why;
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    reply.questions.clone_from(&packet.questions);
    reply.build_bytes_vec_compressed().ok()
}

/// The address in a name such as `2.0.213.10.in-addr.arpa` (RFC 1035, section 3.5), or of 32 digits below `ip6.arpa`, the last
/// first (RFC 3596, section 2.5).
fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(digits) = name.strip_suffix(".ip6.arpa") {
        let digits: String = digits.split('.').rev().collect();
        let bits = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32)?;
        return Some(Ipv6Addr::from(bits).into());
    }
    let address: Ipv4Addr = name.strip_suffix(".in-addr.arpa")?.parse().ok()?;
    let [a, b, c, d] = address.octets();
    Some(Ipv4Addr::new(d, c, b, a).into())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use simple_dns::{QCLASS, Question};

    /// Two containers, one of which the asker 10.0.0.9 may not know; and where else to ask.
    pub(crate) struct Two(pub(crate) Vec<SocketAddr>);

    impl Names for Two {
        fn addresses(&self, asker: Ipv4Addr, name: &str) -> Option<Vec<IpAddr>> {
            match name {
                "web" => Some(vec![Ipv4Addr::new(10, 0, 0, 2).into(), "fd00::2".parse().unwrap()]),
                "many" => Some((0..200).map(|last| Ipv4Addr::new(10, 0, 0, last).into()).collect()),
                "secret" if asker.octets()[3] != 9 => Some(vec![Ipv4Addr::new(10, 0, 0, 3).into()]),
                _ => None,
            }
        }
        fn name(&self, _asker: Ipv4Addr, address: IpAddr) -> Option<String> {
            ["10.0.0.2", "fd00::2"].contains(&&*address.to_string()).then(|| "web.net".to_owned())
        }
        fn servers(&self, _asker: Ipv4Addr) -> Vec<SocketAddr> {
            self.0.clone()
        }
    }

    pub(crate) fn question(name: &str, kind: QTYPE) -> Vec<u8> {
        let mut packet = Packet::new_query(77);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        packet.questions.push(Question::new(
            Name::new(name).unwrap().into_owned(),
            kind,
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        packet.build_bytes_vec().unwrap()
    }

    fn said(name: &str, kind: QTYPE, asker: [u8; 4]) -> Option<(RCODE, Vec<String>)> {
        match answer(&question(name, kind), &Two(Vec::new()), asker.into(), true) {
            Answer::Known(reply) => {
                let packet = Packet::parse(&reply).unwrap();
                assert!(packet.id() == 77 && packet.has_flags(PacketFlag::RESPONSE));
                let records = packet.answers.iter().map(|record| match &record.rdata {
                    RData::A(a) => Ipv4Addr::from(a.address).to_string(),
                    RData::AAAA(aaaa) => Ipv6Addr::from(aaaa.address).to_string(),
                    RData::PTR(name) => name.0.to_string(),
                    other => format!("{other:?}"),
                });
                Some((packet.rcode(), records.collect()))
            }
            Answer::Elsewhere | Answer::Nothing => None,
        }
    }

    #[test]
    fn a_name_has_its_addresses_and_an_address_its_name() {
        let a = QTYPE::TYPE(TYPE::A);
        let asker = [10, 0, 0, 8];
        assert_eq!(said("WEB", a, asker).unwrap().1, ["10.0.0.2"]);
        let empty = said("secret", QTYPE::TYPE(TYPE::AAAA), asker).unwrap();
        assert_eq!(empty, (RCODE::NoError, Vec::new()), "it is there, but has no such address");
        assert_eq!(said("2.0.0.10.in-addr.arpa", QTYPE::TYPE(TYPE::PTR), asker).unwrap().1, ["web.net"]);
        assert_eq!(said("web", QTYPE::TYPE(TYPE::AAAA), asker).unwrap().1, ["fd00::2"]);
        let six = format!("2{}.0.0.d.f.ip6.arpa", ".0".repeat(27));
        assert_eq!(said(&six, QTYPE::TYPE(TYPE::PTR), asker).unwrap().1, ["web.net"]);
        assert_eq!(said("secret", a, asker).unwrap().1, ["10.0.0.3"]);
        assert_eq!(said("secret", a, [10, 0, 0, 9]), None, "not for everyone");
        assert_eq!(said("example.org", a, asker), None, "that is known elsewhere");
    }

    #[test]
    fn what_does_not_fit_into_a_datagram_is_asked_for_again_over_tcp() {
        let names = Two(Vec::new());
        let asked = question("many", QTYPE::TYPE(TYPE::A));
        let Answer::Known(reply) = answer(&asked, &names, Ipv4Addr::LOCALHOST, true) else { panic!() };
        assert!(reply.len() <= 512 && Packet::parse(&reply).unwrap().has_flags(PacketFlag::TRUNCATION));
        let Answer::Known(reply) = answer(&asked, &names, Ipv4Addr::LOCALHOST, false) else { panic!() };
        assert_eq!(Packet::parse(&reply).unwrap().answers.len(), 200);
    }

    proptest! {
        #[test]
        fn whatever_comes_it_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0..40usize, byte: u8) {
            answer(&bytes, &Two(Vec::new()), Ipv4Addr::LOCALHOST, true);
            failure(&bytes, RCODE::Refused);
            let mut nearly = question("web", QTYPE::TYPE(TYPE::A));
            if let Some(place) = nearly.get_mut(at) {
                *place = byte;
            }
            answer(&nearly, &Two(Vec::new()), Ipv4Addr::LOCALHOST, true);
        }
    }
}
