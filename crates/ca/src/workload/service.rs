//! The five calls.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use ringfence_keeper::ClientError;
use ringfence_keeper::protocol::RefusalCode;
use ringfence_keys::VerifyingKey;
use ringfence_snapshot::Bundle;
use ringfence_token::KeySet;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::connection::Peer;
use super::identity::{Identity, State, Svid};
use super::issuer::Issuer;
use super::limits::{Limiter, Limits};
use super::wire::{
    JwtBundlesRequest, JwtBundlesResponse, JwtSvid, JwtSvidRequest, JwtSvidResponse, ValidateJwtSvidRequest,
    ValidateJwtSvidResponse, X509BundlesRequest, X509BundlesResponse, X509Svid, X509SvidRequest,
    X509SvidResponse,
};
use super::{Events, WorkloadEvent, now};
use crate::issuer::CaError;

/// The header that a caller must send, so that no browser or proxy can be tricked into calling.
const HEADER: &str = "workload.spiffe.io";

#[expect(
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub(crate) mod generated {
    include!(concat!(env!("OUT_DIR"), "/.SpiffeWorkloadAPI.rs"));
}

/// The API of one service.
pub(crate) struct Api {
    ca: Arc<dyn Issuer>,
    identity: Arc<Identity>,
    limiter: Limiter,
    events: Events,
    service: Arc<str>,
}

type Stream<T> = ReceiverStream<Result<T, Status>>;

/// What a stream needs from its call.
struct Admitted {
    peer: Peer,
    permit: OwnedSemaphorePermit,
}

impl Api {
    pub(crate) fn new(
        ca: Arc<dyn Issuer>,
        identity: Arc<Identity>,
        limits: Limits,
        events: Events,
        service: Arc<str>,
    ) -> Self {
        Self { ca, identity, limiter: Limiter::new(limits), events, service }
    }

    /// Lets a call in: attested, with the header, within the limits. An unattested caller learns nothing else.
    fn admit<T>(&self, request: &Request<T>) -> Result<Admitted, Status> {
        let peer = request
            .extensions()
            .get::<Peer>()
            .filter(|peer| peer.workload.is_some() && !*peer.ended.borrow());
        let Some(peer) = peer else { return Err(Status::permission_denied("no identity issued")) };
        if request.metadata().get(HEADER).is_none_or(|value| value != "true") {
            return Err(Status::invalid_argument("security header missing from request"));
        }
        if !self.limiter.call(Instant::now()) {
            return Err(Status::resource_exhausted("too many calls; ask less often"));
        }
        let permit =
            self.limiter.stream().ok_or_else(|| Status::resource_exhausted("too many open streams"))?;
        Ok(Admitted { peer: peer.clone(), permit })
    }

    fn trust_domain_id(&self) -> String {
        self.identity.id().trust_domain().id().as_str().to_owned()
    }
}

#[tonic::async_trait]
impl generated::spiffe_workload_a_p_i_server::SpiffeWorkloadAPI for Api {
    type FetchX509SVIDStream = Stream<X509SvidResponse>;
    type FetchX509BundlesStream = Stream<X509BundlesResponse>;
    type FetchJWTBundlesStream = Stream<JwtBundlesResponse>;

    async fn fetch_x509_svid(
        &self,
        request: Request<X509SvidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        let admitted = self.admit(&request)?;
        let mut state = self.identity.watch();
        let mut bundle = self.ca.bundle();
        let first = ready(&mut state).await?;
        let id = self.identity.id().as_str().to_owned();
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let _permit = admitted.permit;
            let mut svid = first;
            loop {
                let response = x509_response(&id, &svid, &bundle.borrow_and_update());
                if sender.send(Ok(response)).await.is_err() {
                    return;
                }
                let alive = tokio::select! {
                    changed = state.changed() => changed.is_ok(),
                    changed = bundle.changed() => changed.is_ok(),
                    () = ended(admitted.peer.ended.clone()) => false,
                    () = sender.closed() => false,
                };
                if !alive {
                    return;
                }
                let now = state.borrow_and_update().clone();
                match now {
                    State::Ready(new) => svid = new,
                    State::Pending => {}
                    State::Denied => {
                        let _ = sender.send(Err(Status::permission_denied("no identity issued"))).await;
                        return;
                    }
                    State::Failed(reason) => {
                        let _ = sender.send(Err(Status::unavailable(reason))).await;
                        return;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        let admitted = self.admit(&request)?;
        let domain = self.trust_domain_id();
        Ok(Response::new(bundle_stream(self.ca.bundle(), admitted, move |bundle| X509BundlesResponse {
            crl: Vec::new(),
            bundles: HashMap::from([(domain.clone(), concatenated(bundle))]),
        })))
    }

    async fn fetch_jwt_svid(
        &self,
        request: Request<JwtSvidRequest>,
    ) -> Result<Response<JwtSvidResponse>, Status> {
        let _admitted = self.admit(&request)?;
        let request = request.into_inner();
        request.check().map_err(Status::invalid_argument)?;
        let id = self.identity.id().as_str();
        if !request.spiffe_id.is_empty() && request.spiffe_id != id {
            return Err(Status::permission_denied("no identity issued"));
        }
        let (svid, not_after) = self.ca.sign_jwt(id, request.audience).await.map_err(|e| explain(&e))?;
        self.events.tell(WorkloadEvent::Issued {
            service: self.service.clone(),
            kind: "jwt",
            serial: String::new(),
            not_after,
        });
        Ok(Response::new(JwtSvidResponse {
            svids: vec![JwtSvid { spiffe_id: id.to_owned(), svid, hint: String::new() }],
        }))
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        let admitted = self.admit(&request)?;
        let domain = self.trust_domain_id();
        Ok(Response::new(bundle_stream(self.ca.bundle(), admitted, move |bundle| JwtBundlesResponse {
            bundles: HashMap::from([(domain.clone(), key_set(bundle).to_json("jwt-svid").into_bytes())]),
        })))
    }

    async fn validate_jwt_svid(
        &self,
        request: Request<ValidateJwtSvidRequest>,
    ) -> Result<Response<ValidateJwtSvidResponse>, Status> {
        let _admitted = self.admit(&request)?;
        let request = request.into_inner();
        request.check().map_err(Status::invalid_argument)?;
        let keys = key_set(&self.ca.bundle().borrow());
        let domain = self.identity.id().trust_domain();
        let token = ringfence_token::verify_svid(&request.svid, domain, &keys, &request.audience, now())
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let issued_at = token.all_claims().get("iat").and_then(serde_json::Value::as_u64).unwrap_or(0);
        if self.ca.is_revoked(token.subject().as_str(), issued_at) {
            return Err(Status::invalid_argument(
                "the token was revoked with all that its subject was issued",
            ));
        }
        let claims = token.all_claims().iter().map(|(name, value)| (name.clone(), to_proto(value)));
        Ok(Response::new(ValidateJwtSvidResponse {
            spiffe_id: token.subject().as_str().to_owned(),
            claims: Some(Struct { fields: claims.collect::<BTreeMap<_, _>>() }),
        }))
    }
}

/// Waits for the first SVID.
async fn ready(state: &mut watch::Receiver<State>) -> Result<Arc<Svid>, Status> {
    let known = state.wait_for(|state| !matches!(state, State::Pending)).await;
    match known.map(|state| state.clone()) {
        Ok(State::Ready(svid)) => Ok(svid),
        Ok(State::Denied) => Err(Status::permission_denied("no identity issued")),
        Ok(State::Failed(reason)) => Err(Status::unavailable(reason)),
        Ok(State::Pending) | Err(_) => Err(Status::unavailable("the workload api of this service ends")),
    }
}

/// The present bundle and each newer one, until the caller ends.
fn bundle_stream<T: Send + 'static>(
    mut bundle: watch::Receiver<Arc<Bundle>>,
    admitted: Admitted,
    response: impl Fn(&Bundle) -> T + Send + 'static,
) -> Stream<T> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let _permit = admitted.permit;
        loop {
            let message = response(&bundle.borrow_and_update());
            if sender.send(Ok(message)).await.is_err() {
                return;
            }
            let alive = tokio::select! {
                changed = bundle.changed() => changed.is_ok(),
                () = ended(admitted.peer.ended.clone()) => false,
                () = sender.closed() => false,
            };
            if !alive {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

async fn ended(mut ended: watch::Receiver<bool>) {
    // An error means that the watcher is gone, and with it the connection.
    let _ = ended.wait_for(|ended| *ended).await;
}

fn x509_response(id: &str, svid: &Svid, bundle: &Bundle) -> X509SvidResponse {
    let svid = X509Svid {
        spiffe_id: id.to_owned(),
        x509_svid: svid.chain.clone(),
        x509_svid_key: svid.key.expose().clone(),
        bundle: concatenated(bundle),
        hint: String::new(),
    };
    X509SvidResponse { svids: vec![svid], crl: Vec::new(), federated_bundles: HashMap::new() }
}

fn concatenated(bundle: &Bundle) -> Vec<u8> {
    bundle.x509.iter().flat_map(|der| der.0.iter().copied()).collect()
}

fn key_set(bundle: &Bundle) -> KeySet {
    let key = |key: &ringfence_snapshot::JwtKey| {
        VerifyingKey::from_spki(&key.spki.0).ok().map(|spki| (key.kid.clone(), spki))
    };
    KeySet::from_keys(bundle.jwt.iter().filter_map(key))
}

fn explain(e: &CaError) -> Status {
    match e {
        CaError::Revoked(_) => Status::permission_denied("no identity issued"),
        CaError::Keeper(ClientError::Refused(refusal)) if refusal.code == RefusalCode::NotAllowed => {
            Status::permission_denied("no identity issued")
        }
        CaError::Keeper(ClientError::Refused(refusal)) if refusal.code == RefusalCode::Malformed => {
            Status::invalid_argument(refusal.reason.clone())
        }
        e => Status::unavailable(e.to_string()),
    }
}

/// JSON as protobuf has it. The depth is bounded by the reader of tokens.
fn to_proto(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(b) => Kind::BoolValue(*b),
        Json::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or(f64::NAN)),
        Json::String(s) => Kind::StringValue(s.clone()),
        Json::Array(list) => Kind::ListValue(ListValue { values: list.iter().map(to_proto).collect() }),
        Json::Object(map) => {
            Kind::StructValue(Struct { fields: map.iter().map(|(k, v)| (k.clone(), to_proto(v))).collect() })
        }
    };
    Value { kind: Some(kind) }
}
