//! A vsock packet's header: `struct virtio_vsock_hdr` (virtio 1.3, section 5.10.6).

/// Bytes of a header.
pub(super) const HEADER: usize = 44;

/// Streams of bytes, the one kind of socket that is served (section 5.10.6, VIRTIO_VSOCK_TYPE_STREAM).
pub(super) const STREAM: u16 = 1;

/// Flags of a shutdown: the sender will not receive any more, will not send any more (section 5.10.6.5).
pub(super) const NO_RECEIVE: u32 = 1;
pub(super) const NO_SEND: u32 = 2;

/// What a packet is for (section 5.10.6, VIRTIO_VSOCK_OP_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// Connect.
    Request = 1,
    /// Connected.
    Response = 2,
    /// There is no such connection, or not any more.
    Reset = 3,
    /// One direction, or both, are at their end.
    Shutdown = 4,
    /// Data.
    Data = 5,
    /// How much the sender has room for.
    CreditUpdate = 6,
    /// The sender wants to be told that.
    CreditRequest = 7,
}

impl Op {
    const ALL: [Self; 7] = [
        Self::Request,
        Self::Response,
        Self::Reset,
        Self::Shutdown,
        Self::Data,
        Self::CreditUpdate,
        Self::CreditRequest,
    ];

    fn of(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|op| *op as u16 == number)
    }
}

/// A header. Those from the guest are taken as they are: nothing in them is checked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) src_cid: u64,
    pub(super) dst_cid: u64,
    pub(super) src_port: u32,
    pub(super) dst_port: u32,
    /// Bytes of data behind the header.
    pub(super) len: u32,
    pub(super) kind: u16,
    /// None for a number that means nothing.
    pub(super) op: Option<Op>,
    pub(super) flags: u32,
    /// The sender's buffer for this connection, in bytes, and how many bytes have left it so far, modulo 2^32
    /// (section 5.10.6.3).
    pub(super) buf_alloc: u32,
    pub(super) fwd_cnt: u32,
}

impl Header {
    pub(super) fn decode(bytes: [u8; HEADER]) -> Self {
        let field = |at: usize, len: usize| {
            bytes[at..at + len].iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte))
        };
        Self {
            src_cid: field(0, 8),
            dst_cid: field(8, 8),
            src_port: field(16, 4) as u32,
            dst_port: field(20, 4) as u32,
            len: field(24, 4) as u32,
            kind: field(28, 2) as u16,
            op: Op::of(field(30, 2) as u16),
            flags: field(32, 4) as u32,
            buf_alloc: field(36, 4) as u32,
            fwd_cnt: field(40, 4) as u32,
        }
    }

    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let op = self.op.map_or(0, |op| op as u16);
        let fields: [(usize, &[u8]); 10] = [
            (0, &self.src_cid.to_le_bytes()),
            (8, &self.dst_cid.to_le_bytes()),
            (16, &self.src_port.to_le_bytes()),
            (20, &self.dst_port.to_le_bytes()),
            (24, &self.len.to_le_bytes()),
            (28, &self.kind.to_le_bytes()),
            (30, &op.to_le_bytes()),
            (32, &self.flags.to_le_bytes()),
            (36, &self.buf_alloc.to_le_bytes()),
            (40, &self.fwd_cnt.to_le_bytes()),
        ];
        for (at, field) in fields {
            bytes[at..at + field.len()].copy_from_slice(field);
        }
        bytes
    }

    /// The answer that there is no such connection.
    pub(super) fn refusal(&self) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            len: 0,
            kind: self.kind,
            op: Some(Op::Reset),
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_what_it_was_after_the_journey() {
        let bytes: [u8; HEADER] = std::array::from_fn(|at| {
            if at == 30 {
                5
            } else if at == 31 {
                0
            } else {
                at as u8
            }
        });
        let header = Header::decode(bytes);
        assert_eq!((header.src_port, header.dst_port, header.op), (0x1312_1110, 0x1716_1514, Some(Op::Data)));
        assert_eq!(header.encode(), bytes);
    }
}
