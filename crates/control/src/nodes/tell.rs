//! Telling one proxy, near or far: whatever is newest, in order, and before a snapshot the files that it names.

use std::collections::{BTreeMap, HashSet};

use ringfence_channel::Sender;
use ringfence_snapshot::node::ToProxy;
use ringfence_snapshot::{ContentPart, Digest};
use ringfence_wire::Outgoing;
use tokio::sync::watch;

use super::{Newest, Parcel};

/// How a proxy is told: over the channel of one beside control, or the session of a host that joined.
#[derive(Clone, Debug)]
pub(crate) enum Teller {
    Here(Sender<ToProxy>),
    There(Outgoing),
}

/// It is not there any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone;

impl Teller {
    pub(crate) async fn send(&self, message: &ToProxy) -> Result<(), Gone> {
        match self {
            Self::Here(sender) => sender.send(message, &[]).await.map_err(|_| Gone),
            Self::There(outgoing) => outgoing.send(message).await.map_err(|_| Gone),
        }
    }
}

/// Tells one proxy whatever is newest, until its channel ends or it is given up.
pub(super) async fn tell(
    node: String,
    sender: Teller,
    mut newest: watch::Receiver<Newest>,
    mut has: watch::Receiver<Option<Vec<Digest>>>,
) {
    let mut there = None;
    // One that was just introduced asks for its certificates anyway.
    let (mut snapshots, mut renewals) = (0, newest.borrow().renewals);
    let mut told: BTreeMap<String, u64> = BTreeMap::new();
    let mut cookies: Option<u32> = None;
    loop {
        let now = newest.borrow_and_update().clone();
        if let Some(snapshot) = now.snapshot.filter(|_| now.snapshots > snapshots) {
            let sent = bring(&sender, &now.parcel, &mut has, &mut there).await;
            if sent.is_err() || sender.send(&snapshot).await.is_err() {
                return;
            }
        }
        for (provider, (number, keys)) in &now.keys {
            if told.insert(provider.clone(), *number) != Some(*number) && sender.send(keys).await.is_err() {
                return;
            }
        }
        let opens = now.gateways.as_ref().is_none_or(|gateways| gateways.contains(&node));
        if let Some((number, keys)) = &now.cookies
            && opens
            && cookies.replace(*number) != Some(*number)
            && sender.send(keys).await.is_err()
        {
            return;
        }
        if now.renewals > renewals && sender.send(&ToProxy::Renew).await.is_err() {
            return;
        }
        (snapshots, renewals) = (now.snapshots, now.renewals);
        if newest.changed().await.is_err() {
            return;
        }
    }
}

/// Brings the files of a snapshot to one proxy, but for those that are `there`; all of them are then.
async fn bring(
    sender: &Teller,
    parcel: &Parcel,
    has: &mut watch::Receiver<Option<Vec<Digest>>>,
    there: &mut Option<HashSet<Digest>>,
) -> Result<(), ()> {
    if !parcel.is_empty() {
        let news = has.has_changed().unwrap_or(false);
        let said = has.wait_for(Option::is_some).await.map_err(drop)?;
        let said: HashSet<Digest> = said.iter().flatten().copied().collect();
        match there {
            None => *there = Some(said),
            // It said so before it got what made it forget some.
            Some(there) if news => there.retain(|digest| said.contains(digest)),
            Some(_) => {}
        }
    }
    for (digest, bytes) in parcel {
        if there.as_ref().is_some_and(|there| there.contains(digest)) {
            continue;
        }
        for part in ContentPart::all(*digest, bytes) {
            sender.send(&ToProxy::Content(part)).await.map_err(drop)?;
        }
    }
    *there = Some(parcel.iter().map(|(digest, _)| *digest).collect());
    Ok(())
}
