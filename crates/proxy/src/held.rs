//! Bodies that are read before their message may pass: held in memory, judged there, then sent on.
//!
//! Most bodies stream and are never here. A route whose stages judge bodies has them held, requests by [`read`], responses by the
//! exchange ([`crate::exchange`]); `protect.rs` asks its stages, in their order, and is the one place to add another:
//!
//! 1. It says by the head alone whether the request may not pass, and how much of the body it wants to see: a [`Hold`].
//! 2. It is given that much as a [`Body`], decompressed where it came so, and says whether the request may pass.
//! 3. It says by the head of a response how much of the body it wants to see, and is given that.
//!
//! What is held counts against what its thread may hold ([`Budget`]), and must come in time. When memory gets short, those give way
//! that have been waiting for the rest of theirs the longest: whoever sends slowly takes nothing from those who do not.

mod budget;
mod coding;

use bytes::{Bytes, BytesMut};
use ringfence_model::Limits;
use ringfence_waf::body::sniff::{self, Look};

pub(crate) use self::budget::{Budget, Share};
pub(crate) use self::coding::Coding;
use self::coding::{Decoded, Unreadable};
use crate::body::{Broken, Piece, Trailers};
use crate::deny::Deny;
use crate::front::Front;
use crate::h1::Framing;
use crate::handle::Ctx;
use crate::view::HeadView;

/// How long a body that is held may take in any case, in milliseconds; then it must have come at [`RATE`].
const GRACE_MS: u64 = 30_000;
/// Bytes per millisecond.
const RATE: u64 = 16;
/// What a request that waits to be judged takes besides its body: its transaction.
const WAITING: usize = 32 << 10;
/// How much is made room for at least, so that it need not be made for each that comes.
const ROOM: usize = 4 << 20;
/// So far it is looked for how a body begins.
const SNIFFED: usize = 1 << 10;

/// How much of a body is to be held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hold<'a> {
    /// Bytes that are judged.
    pub(crate) most: usize,
    /// Who refuses longer ones; otherwise what is judged is their head, and the rest streams on.
    pub(crate) reject: Option<Reject<'a>>,
    /// Who refuses what is compressed in a way that is not known here; otherwise it is judged as it came.
    pub(crate) coded: Option<Reject<'a>>,
    /// Only if it begins like text: its type says that it is none. Others stream.
    pub(crate) only_text: bool,
}

/// A stage that refuses bodies which it cannot judge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reject<'a> {
    /// More bytes than this.
    pub(crate) beyond: usize,
    pub(crate) stage: &'static str,
    pub(crate) rule: &'static str,
    /// Where the fence says so.
    pub(crate) position: Option<&'a str>,
}

/// What a stage is given of a body.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Body<'a> {
    /// As it came, or decompressed.
    pub(crate) bytes: &'a [u8],
    /// Whether this is all of it.
    pub(crate) whole: bool,
    /// As it came, where it was decompressed.
    pub(crate) packed: Option<&'a [u8]>,
}

/// What was read of a body.
#[derive(Debug)]
pub(crate) struct Held {
    content: Content,
    trailers: Option<Trailers>,
    share: Share,
}

/// The same for those who judge it, on whatever thread: a copy of it is another look at the same bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    bytes: Bytes,
    ended: bool,
    /// What is judged in place of `bytes`, where they are compressed.
    plain: Option<Decoded>,
}

impl<'a> Hold<'a> {
    /// As much as both want.
    pub(crate) fn and(self, other: Self) -> Self {
        let reject = match (self.reject, other.reject) {
            (Some(a), Some(b)) => Some(if a.beyond <= b.beyond { a } else { b }),
            (one, other) => one.or(other),
        };
        let most = self.most.max(other.most);
        match (self.only_text, other.only_text) {
            (true, false) => Self { most, ..other },
            (false, true) => Self { most, ..self },
            (only_text, _) => Self { most, reject, coded: self.coded.or(other.coded), only_text },
        }
    }
}

impl Reject<'_> {
    fn deny(&self, status: u16, reason: String) -> Deny {
        Deny::new(status, self.stage, self.rule, reason).position(self.position.map(str::to_owned))
    }

    fn too_long(&self) -> Deny {
        self.deny(413, format!("the body is longer than the {} bytes that are judged", self.beyond))
    }
}

impl Content {
    /// As much of it as a stage wants to see.
    pub(crate) fn body(&self, most: usize) -> Body<'_> {
        let (bytes, whole) = self.all();
        let packed = self.plain.is_some().then_some(&*self.bytes);
        Body { bytes: bytes.get(..most).unwrap_or(bytes), whole: whole && bytes.len() <= most, packed }
    }

    /// Bytes that there are to judge.
    pub(crate) fn len(&self) -> usize {
        self.all().0.len()
    }

    fn all(&self) -> (&[u8], bool) {
        match &self.plain {
            Some(plain) => (&plain.bytes, plain.whole),
            None => (&self.bytes, self.ended),
        }
    }
}

impl Held {
    pub(crate) fn new(share: Share) -> Self {
        Self { content: Content::default(), trailers: None, share }
    }

    /// What was sent before and is sent again; `share` counts it already.
    pub(crate) fn again(bytes: Bytes, ended: bool, share: Share) -> Self {
        Self { content: Content { bytes, ended, plain: None }, trailers: None, share }
    }

    /// Bytes that were read.
    pub(crate) fn len(&self) -> usize {
        self.content.bytes.len()
    }

    /// Whether it came to its end.
    pub(crate) fn ended(&self) -> bool {
        self.content.ended
    }

    /// Whether there is nothing to be sent on but the end.
    pub(crate) fn is_empty(&self) -> bool {
        self.content.bytes.is_empty() && self.trailers.is_none()
    }

    /// As much of it as a stage wants to see.
    pub(crate) fn body(&self, most: usize) -> Body<'_> {
        self.content.body(most)
    }

    /// For those who judge it elsewhere.
    pub(crate) fn content(&self) -> Content {
        self.content.clone()
    }

    /// Adds a piece; refused when the thread holds as much as it may.
    pub(crate) fn add(&mut self, piece: Bytes, last: bool) -> Result<(), Deny> {
        if !self.share.grow(piece.len()) {
            return Err(no_memory());
        }
        self.content.ended = last;
        if self.content.bytes.is_empty() {
            // Most are one piece, which need not be copied.
            self.content.bytes = piece;
            return Ok(());
        }
        let mut all = match std::mem::take(&mut self.content.bytes).try_into_mut() {
            Ok(all) => all,
            Err(shared) => {
                let mut all = BytesMut::with_capacity(2 * (shared.len() + piece.len()));
                all.extend_from_slice(&shared);
                all
            }
        };
        all.extend_from_slice(&piece);
        self.content.bytes = all.freeze();
        Ok(())
    }

    /// Ends it.
    pub(crate) fn end(&mut self) {
        self.content.ended = true;
    }

    /// Keeps what follows the body.
    pub(crate) fn add_trailers(&mut self, trailers: Trailers) {
        self.trailers = Some(trailers);
    }

    /// Whether it begins like text, when that can be told. What cannot be unpacked is for whoever judges it.
    fn is_text(&self, coding: Coding) -> Option<bool> {
        let is_text = |bytes: &[u8]| match sniff::begins(bytes) {
            Some(look) => Some(look != Look::Other),
            None => (self.content.ended || self.content.bytes.len() > SNIFFED).then_some(true),
        };
        match coding {
            Coding::Identity | Coding::Unknown => is_text(&self.content.bytes),
            Coding::Gzip | Coding::Deflate if self.content.bytes.is_empty() => None,
            Coding::Gzip | Coding::Deflate => {
                match coding::decode(coding, &self.content.bytes, self.content.ended, SNIFFED) {
                    Ok(decoded) => is_text(&decoded.bytes),
                    Err(_) => Some(true),
                }
            }
        }
    }

    /// Decompresses what was read, as far as `most` bytes.
    pub(crate) fn decode(&mut self, coding: Coding, most: usize) -> Result<(), Unreadable> {
        self.content.plain = None;
        if coding == Coding::Identity || self.content.bytes.is_empty() {
            return Ok(());
        }
        let plain = coding::decode(coding, &self.content.bytes, self.content.ended, most)?;
        if !self.share.grow(plain.bytes.len()) {
            return Err(Unreadable::NoMemory);
        }
        self.content.plain = Some(plain);
        Ok(())
    }

    /// What is to be sent on, and what counts it until it has left.
    pub(crate) fn into_parts(self) -> (Bytes, Option<Trailers>, bool, Share) {
        (self.content.bytes, self.trailers, self.content.ended, self.share)
    }
}

/// Reads as much of the body as `hold` wants, if that is not held already.
pub(crate) async fn read(
    ctx: &Ctx<'_>,
    view: HeadView<'_>,
    front: &mut Front<'_>,
    limits: &Limits,
    hold: Hold<'_>,
    held: &mut Option<Held>,
) -> Result<(), Deny> {
    // What it is judged with waits as well.
    let mut waiting = ctx.worker.budget.share();
    let excess = ctx.worker.budget.excess();
    if excess > 0 {
        ctx.worker.live.give_way(excess.max(ROOM));
    }
    if !waiting.grow(WAITING) {
        return Err(no_memory());
    }
    let coding = Coding::of(view.fields());
    if hold.only_text {
        proceed(ctx, view, front, limits, held).await?;
        let held = held.get_or_insert_with(|| Held::new(ctx.worker.budget.share()));
        fill(ctx, front, limits, held, |held| held.is_text(coding).is_some()).await?;
        if !held.is_text(coding).unwrap_or(true) {
            return Ok(());
        }
    }
    let coding = match (coding, hold.coded) {
        (Coding::Unknown, Some(coded)) => {
            let reason = "the body is compressed in a way that cannot be judged: only gzip or deflate can, and one of them";
            return Err(coded.deny(415, reason.into()));
        }
        (Coding::Unknown, None) => Coding::Identity,
        (coding, _) => coding,
    };
    if let Framing::Length(length) = view.framing() {
        if limits.body.is_some_and(|most| length > most) {
            return Err(over(limits));
        }
        if let Some(reject) = hold.reject.filter(|reject| length > reject.beyond as u64) {
            return Err(reject.too_long());
        }
    }
    proceed(ctx, view, front, limits, held).await?;
    let held = held.get_or_insert_with(|| Held::new(ctx.worker.budget.share()));
    let most = hold.reject.map_or(hold.most, |reject| reject.beyond.min(hold.most));
    // One byte more, if there is one, tells that the body is longer.
    fill(ctx, front, limits, held, |held| held.len() > most).await?;
    let refused = |status, reason: &str| {
        let (stage, rule) = hold.coded.map_or(("parse", "body.coding"), |coded| (coded.stage, coded.rule));
        let position = hold.coded.and_then(|coded| coded.position).map(str::to_owned);
        Deny::new(status, stage, rule, reason).position(position)
    };
    match held.decode(coding, hold.most) {
        Ok(()) => {}
        Err(Unreadable::NoMemory) => return Err(no_memory()),
        Err(Unreadable::Malformed) if hold.coded.is_some() => {
            return Err(refused(400, "the body is not what its Content-Encoding says, or more than that"));
        }
        Err(Unreadable::Bomb) if hold.coded.is_some() => {
            return Err(refused(413, "the body is a small thing that unpacks to a huge one"));
        }
        // Who only watches sees it as it came.
        Err(Unreadable::Malformed | Unreadable::Bomb) => {}
    }
    match hold.reject {
        Some(reject) if !held.body(reject.beyond).whole => Err(reject.too_long()),
        _ => Ok(()),
    }
}

/// Tells a client that waits for it to send its body, once.
async fn proceed(
    ctx: &Ctx<'_>,
    view: HeadView<'_>,
    front: &mut Front<'_>,
    limits: &Limits,
    held: &Option<Held>,
) -> Result<(), Deny> {
    if held.is_some() || !view.expects_continue() || front.request_is_end() {
        return Ok(());
    }
    front.put_continue();
    ctx.live.arm(ctx.worker.now_ms() + limits.idle.as_millis() as u64);
    let flushed = ctx.live.within(std::future::poll_fn(|cx| front.poll_flush(cx))).await;
    if matches!(flushed, Ok(Ok(()))) { Ok(()) } else { Err(gone()) }
}

/// Reads until it ends, or is enough.
async fn fill(
    ctx: &Ctx<'_>,
    front: &mut Front<'_>,
    limits: &Limits,
    held: &mut Held,
    is_enough: impl Fn(&Held) -> bool,
) -> Result<(), Deny> {
    let filled = pieces(ctx, front, limits, held, is_enough).await;
    ctx.live.set_held(0, 0);
    if filled.is_ok() {
        // One that was to give way with its last piece there: what comes next has a time of its own.
        ctx.live.disarm();
    }
    filled
}

async fn pieces(
    ctx: &Ctx<'_>,
    front: &mut Front<'_>,
    limits: &Limits,
    held: &mut Held,
    is_enough: impl Fn(&Held) -> bool,
) -> Result<(), Deny> {
    let begun = ctx.worker.now_ms();
    // Whoever sends next to nothing makes room at a full door, held or not.
    let mut pace = ctx.live.pace().run(begun);
    while !held.ended() && !is_enough(held) {
        if front.request_is_end() {
            held.end();
            break;
        }
        let whole = begun + GRACE_MS + held.len() as u64 / RATE;
        ctx.live.arm(whole.min(ctx.worker.now_ms() + limits.idle.as_millis() as u64));
        ctx.live.set_held(WAITING + held.len(), begun);
        pace.note(held.len() as u64, true);
        match ctx.live.within(std::future::poll_fn(|cx| front.poll_piece(cx))).await {
            Ok(Ok(Piece::Data(data))) => held.add(data, front.request_is_end())?,
            Ok(Ok(Piece::Trailers(trailers))) => held.add_trailers(trailers),
            Ok(Ok(Piece::End)) => held.end(),
            Ok(Err(Broken::Refused(refusal))) => {
                return Err(Deny::new(refusal.status(), "parse", "framing", refusal.to_string()));
            }
            Ok(Err(Broken::Io(_) | Broken::H2(_))) => return Err(gone()),
            Err(_) if ctx.live.gave_way() => return Err(gave_way()),
            Err(_) => return Err(too_slow()),
        }
        // A piece that was there already neither takes back that this one gives way nor makes its time longer.
        if !held.ended() && !is_enough(held) {
            if ctx.live.gave_way() {
                return Err(gave_way());
            }
            if ctx.worker.now_ms() >= whole {
                return Err(too_slow());
            }
        }
        if limits.body.is_some_and(|most| held.len() as u64 > most) {
            return Err(over(limits));
        }
    }
    Ok(())
}

/// As the exchange refuses bodies that stream.
fn over(limits: &Limits) -> Deny {
    let most = limits.body.unwrap_or_default();
    Deny::new(413, "limit", "limit.body", format!("the body is larger than the limit of {most} bytes"))
}

fn gave_way() -> Deny {
    let reason =
        "memory for bodies that wait to be judged got short, and this one had been coming for the longest";
    Deny::new(503, "limit", "limit.held", reason)
}

fn too_slow() -> Deny {
    let reason = "the body must be judged before it may pass, and took longer than the limit allows";
    Deny::failure(408, "limit.idle", reason)
}

fn no_memory() -> Deny {
    let reason = "bodies that wait to be judged take all the memory that they may";
    Deny::new(503, "limit", "limit.held", reason)
}

fn gone() -> Deny {
    Deny::failure(499, "client.gone", "the client closed the connection")
}
