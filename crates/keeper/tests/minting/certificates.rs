//! Client certificates as credentials.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use ringfence_keeper::protocol::RefusalCode;
use ringfence_model::Credential;
use ringfence_snapshot::node::Shown;
use ringfence_snapshot::{ClientAuthority, Der, Identity, IdentityKind, credential_of};
use ringfence_token::{CERTIFICATE, What};

use crate::common::now;
use crate::world::{FENCE, World, ask, revoked};

const FILE: &str = "ca/partners.pem";

struct Ca {
    root: Der,
    issuer: Issuer<'static, KeyPair>,
}

fn ca() -> Ca {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "partners");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let root = Der(params.self_signed(&key).unwrap().der().to_vec());
    Ca { root, issuer: Issuer::new(params, key) }
}

impl Ca {
    fn leaf(&self, seconds: u64) -> Der {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "lab-7");
        params.is_ca = IsCa::ExplicitNoCa;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = (SystemTime::now() - Duration::from_secs(600)).into();
        params.not_after =
            (SystemTime::now() + Duration::from_secs(seconds) - Duration::from_secs(300)).into();
        Der(params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().der().to_vec())
    }

    fn authority(&self, file: &str) -> ClientAuthority {
        ClientAuthority { file: file.into(), roots: vec![self.root.clone()] }
    }
}

#[tokio::test]
async fn a_client_is_who_its_certificate_says_by_the_authority_that_the_fence_names() {
    let w = World::new().await;
    let (ca, other) = (ca(), ca());
    let fence = FENCE.replace("api_key]", &format!("api_key, {{ certificate: {FILE} }}]"));
    w.sign_with(2, &fence, vec![ca.authority(FILE)]).await;
    let good = ca.leaf(360);
    let show = |chain: Vec<Der>| ask(Shown::Certificate { authority: FILE.into(), chain });
    let minted = w.mint(show(vec![good.clone()])).await.unwrap();
    assert!(minted.expires_at <= now() + 61, "no longer than the certificate");
    let lab = w.verify(minted.token.expose()).await.unwrap();
    let identity = Identity::of_transaction(&lab).unwrap();
    assert_eq!(
        (identity.kind, &*identity.provider, &*identity.id),
        (IdentityKind::Client, "certificate:partners", "lab-7")
    );

    for (what, chain) in [
        ("of another authority", vec![other.leaf(360)]),
        ("over", vec![ca.leaf(200)]),
        ("the authority itself", vec![ca.root.clone()]),
        ("none", Vec::new()),
        ("nonsense", vec![Der(vec![0x30, 0])]),
        ("behind nonsense", vec![Der(vec![0x30, 0]), good.clone()]),
        ("too many", vec![good.clone(); 20]),
    ] {
        let refusal = w.mint(show(chain)).await.unwrap_err();
        assert_eq!(refusal.code, RefusalCode::Denied, "{what}: {refusal}");
    }
    let fingerprint = ringfence_keys::to_hex(&ringfence_keys::digest::sha256(&good.0));
    w.tell_revoked(&[revoked(CERTIFICATE, What::Token(fingerprint))]).await;
    assert!(w.mint(show(vec![good.clone()])).await.unwrap_err().reason.contains("revoked"));
    w.tell_revoked(&[]).await;
    // Another authority under the same file, one that is nowhere accepted any more, and a service that accepts none.
    let mut elsewhere = show(vec![good.clone()]);
    elsewhere.ask.workload = "spiffe://clinic.example/service/records".into();
    assert_eq!(w.mint(elsewhere).await.unwrap_err().code, RefusalCode::NotAllowed);
    w.sign_with(3, &fence, vec![other.authority(FILE)]).await;
    assert_eq!(w.mint(show(vec![good.clone()])).await.unwrap_err().code, RefusalCode::Denied);
    w.sign_with(4, FENCE, vec![ca.authority(FILE)]).await;
    assert_eq!(w.mint(show(vec![good])).await.unwrap_err().code, RefusalCode::NotAllowed);
}

#[tokio::test]
async fn clients_of_two_authorities_that_are_called_alike_are_two() {
    const OTHERS: &str = "ca/others.pem";
    let w = World::new().await;
    let (ours, theirs) = (ca(), ca());
    let accepted = format!("api_key, {{ certificate: {FILE} }}, {{ certificate: {OTHERS} }}]");
    let authorities = || vec![ours.authority(FILE), theirs.authority(OTHERS)];
    w.sign_with(2, &FENCE.replace("api_key]", &accepted), authorities()).await;
    let show = |authority: &str, ca: &Ca| {
        ask(Shown::Certificate { authority: authority.to_owned(), chain: vec![ca.leaf(360)] })
    };
    for (file, ca, provider) in
        [(FILE, &ours, "certificate:partners"), (OTHERS, &theirs, "certificate:others")]
    {
        let token = w.verify(w.mint(show(file, ca)).await.unwrap().token.expose()).await.unwrap();
        let lab = Identity::of_transaction(&token).unwrap();
        assert_eq!((&*lab.provider, &*lab.id), (provider, "lab-7"));
        assert_eq!(credential_of(&token), Ok(Credential::Certificate(file.into())));
    }
    // Neither can be shown as the other's, as one of both, or of one that nobody accepts.
    for (file, ca, code) in [
        (OTHERS, &ours, RefusalCode::Denied),
        (FILE, &theirs, RefusalCode::Denied),
        ("ca/third.pem", &ours, RefusalCode::NotAllowed),
        ("", &ours, RefusalCode::NotAllowed),
        ("partners", &ours, RefusalCode::NotAllowed),
    ] {
        assert_eq!(w.mint(show(file, ca)).await.unwrap_err().code, code, "{file}");
    }
    // What the gateway does not accept any more is not minted for, however well it is known elsewhere.
    let elsewhere =
        FENCE.replace("accept: [{ token: staff }] }", &format!("accept: [{{ certificate: {OTHERS} }}] }}"));
    w.sign_with(
        3,
        &elsewhere.replace("api_key]", &format!("api_key, {{ certificate: {FILE} }}]")),
        authorities(),
    )
    .await;
    assert_eq!(w.mint(show(OTHERS, &theirs)).await.unwrap_err().code, RefusalCode::NotAllowed);
}
