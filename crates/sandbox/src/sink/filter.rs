//! Which frames reach the sink at all: classic BPF, so that allowed traffic costs a few instructions in the kernel and
//! nothing here.

use std::collections::BTreeSet;

use socket2::SockFilter;

/// Bytes of a frame that are kept: headers and a DNS question.
pub(crate) const SNAP: u32 = 512;

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF_INDEXED: u16 = 0x48;
const LOAD_WORD_INDEXED: u16 = 0x40;
const LOAD_BYTE_INDEXED: u16 = 0x50;
/// X becomes four times the low nibble of a byte: the length of an IPv4 header.
const LOAD_HEADER_LENGTH: u16 = 0xb1;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_SET: u16 = 0x45;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;
/// Where the kernel keeps what is not in the frame.
const ANCILLARY: u32 = 0xffff_f000;
const PACKET_TYPE: u32 = ANCILLARY + 4;
const LINK_INDEX: u32 = ANCILLARY + 8;
const OUTGOING: u32 = 4;

/// A program built from blocks that end it; a block is left by falling through.
#[derive(Default)]
struct Program(Vec<SockFilter>);

impl Program {
    fn push(&mut self, code: u16, k: u32) -> &mut Self {
        self.0.push(SockFilter::new(code, 0, 0, k));
        self
    }

    fn ret(&mut self, take: bool) -> &mut Self {
        self.push(RETURN, if take { SNAP } else { 0 })
    }

    /// Ends with `take` if the accumulator equals `k`.
    fn end_if(&mut self, k: u32, take: bool) -> &mut Self {
        self.0.push(SockFilter::new(JUMP_EQUAL, 0, 1, k));
        self.ret(take)
    }

    /// Ends with `take` unless the accumulator equals `k`.
    fn end_unless(&mut self, k: u32, take: bool) -> &mut Self {
        self.0.push(SockFilter::new(JUMP_EQUAL, 1, 0, k));
        self.ret(take)
    }

    /// Ends with `take` unless the accumulator has one of the bits.
    fn end_unless_set(&mut self, bits: u32, take: bool) -> &mut Self {
        self.0.push(SockFilter::new(JUMP_SET, 1, 0, bits));
        self.ret(take)
    }

    /// Runs `block` if the accumulator equals `k`; the block must end the program.
    fn block_if(&mut self, k: u32, block: impl FnOnce(&mut Self)) -> &mut Self {
        let mut inner = Self::default();
        block(&mut inner);
        // Blocks here are short; a longer one needs another kind of jump.
        let over =
            u8::try_from(inner.0.len()).expect("invariant: a conditional block has at most 255 instructions");
        self.0.push(SockFilter::new(JUMP_EQUAL, 0, over, k));
        self.0.append(&mut inner.0);
        self
    }
}

/// For the shim's end of the wire (`link`): everything that the service sends, but for TCP to a declared port of a callee's
/// address, answers to what was allowed, and the chatter that makes a wire work.
pub(crate) fn outside(link: u32, ports: &BTreeSet<u16>) -> Vec<SockFilter> {
    let mut p = Program::default();
    p.push(LOAD_WORD, LINK_INDEX).end_unless(link, false);
    p.push(LOAD_WORD, PACKET_TYPE).end_if(OUTGOING, false);
    p.push(LOAD_HALF, 12);
    p.block_if(0x86dd, |p| {
        p.push(LOAD_BYTE, 20);
        p.block_if(58, |p| {
            // Neighbour discovery (133 to 137), and errors (1 to 4) about what was allowed.
            p.push(LOAD_BYTE, 54);
            for chatter in [133, 134, 135, 136, 137, 1, 2, 3, 4] {
                p.end_if(chatter, false);
            }
            p.ret(true);
        });
        // Listener reports carry a hop-by-hop header and go to ff02::16.
        p.block_if(0, |p| {
            p.push(LOAD_WORD, 38).end_unless(0xff02_0000, true);
            p.push(LOAD_WORD, 50).end_if(0x16, false).ret(true);
        });
        // Nothing listens on IPv6, so a resent SYN is a dial, and there is nothing but dials.
        p.ret(true);
    });
    p.end_unless(0x0800, false);
    p.push(LOAD_BYTE, 23);
    p.block_if(1, |p| {
        p.push(LOAD_HEADER_LENGTH, 14)
            .push(LOAD_BYTE_INDEXED, 14)
            .end_if(3, false)
            .end_if(11, false)
            .ret(true);
    });
    p.block_if(2, |p| {
        p.push(LOAD_WORD, 30).end_if(0xe000_0016, false).ret(true);
    });
    p.end_unless(6, true);
    // TCP to the callees' prefix, 198.18.0.0/15?
    p.push(LOAD_WORD, 30).push(AND, 0xfffe_0000).end_unless(0xc612_0000, true);
    // A later fragment of it: our own stack never makes one, a service without raw sockets cannot.
    p.push(LOAD_HALF, 20).end_unless_not_set(0x1fff);
    // Only an opening SYN is a dial.
    p.push(LOAD_HEADER_LENGTH, 14).push(LOAD_BYTE_INDEXED, 14 + 13).push(AND, 0x12).end_unless(0x02, false);
    p.push(LOAD_HALF_INDEXED, 14 + 2);
    for port in ports {
        p.end_if(u32::from(*port), false);
    }
    p.ret(true);
    p.0
}

impl Program {
    /// Takes the frame if the accumulator has one of the bits.
    fn end_unless_not_set(&mut self, bits: u32) -> &mut Self {
        self.0.push(SockFilter::new(JUMP_SET, 0, 1, bits));
        self.ret(true)
    }
}

/// For loopback in the service's network: refusals of its own dials, but for those of `own`, the port where the service will
/// listen and where it is asked whether it does.
pub(crate) fn loopback(link: u32, own: Option<u16>) -> Vec<SockFilter> {
    let mut p = Program::default();
    p.push(LOAD_WORD, LINK_INDEX).end_unless(link, false);
    // Each frame passes loopback twice.
    p.push(LOAD_WORD, PACKET_TYPE).end_if(OUTGOING, false);
    p.push(LOAD_HALF, 12);
    p.block_if(0x86dd, |p| {
        p.push(LOAD_BYTE, 20);
        p.block_if(58, |p| {
            p.push(LOAD_BYTE, 54).end_if(1, true).ret(false);
        });
        p.end_unless(6, false);
        p.push(LOAD_BYTE, 54 + 13).end_unless_set(0x04, false);
        p.push(LOAD_WORD, 54 + 4).end_unless(0, false);
        p.push(LOAD_HALF, 54);
        if let Some(own) = own {
            p.end_if(u32::from(own), false);
        }
        p.ret(true);
    });
    p.end_unless(0x0800, false);
    p.push(LOAD_BYTE, 23);
    p.block_if(1, |p| {
        p.push(LOAD_HEADER_LENGTH, 14).push(LOAD_BYTE_INDEXED, 14).end_if(3, true).ret(false);
    });
    p.end_unless(6, false);
    p.push(LOAD_HEADER_LENGTH, 14);
    // A refused SYN is answered with RST and sequence number 0; a connection that is cut has another one.
    p.push(LOAD_BYTE_INDEXED, 14 + 13).end_unless_set(0x04, false);
    p.push(LOAD_WORD_INDEXED, 14 + 4).end_unless(0, false);
    p.push(LOAD_HALF_INDEXED, 14);
    if let Some(own) = own {
        p.end_if(u32::from(own), false);
    }
    p.ret(true);
    p.0
}

/// Takes nothing, for sockets that only send.
pub(crate) fn nothing() -> Vec<SockFilter> {
    vec![SockFilter::new(RETURN, 0, 0, 0)]
}
