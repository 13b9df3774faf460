//! Sign-ins with a keeper and a federation process that say what the test wants.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};

use ringfence_ca::Options;
use ringfence_channel::BlockingChannel;
use ringfence_event::{Writer, WriterOptions};
use ringfence_keeper::Client;
use ringfence_keeper::protocol::{Answer, Call, Counts, Reply, Request, Status};
use ringfence_keys::SigningKey;
use ringfence_model::Fence;
use ringfence_oidc::protocol::Introspected;
use ringfence_snapshot::{Bundle, Identity, IdentityKind, JwtKey};
use ringfence_store::{Durability, Store};
use ringfence_token::{Origin, SessionSpec};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;

const ISSUER: &str = "https://id.example";

struct World {
    signins: SignIns,
    ground: Ground,
    asker: Asker,
    questions: mpsc::Receiver<ToFederation>,
    folder: TempDir,
    _writer: Writer,
}

fn fence(more: &str) -> Fence {
    let text = format!(
        "fence: t\ntrust_domain: t.example\nproviders:\n  staff: {{ issuer: {ISSUER}, client: {{ id: gateway, secret: {{ file: s }} }}, login: {{}}{more} }}\n  api: {{ issuer: https://api.example }}\nservices: {{ a: {{ }} }}\n"
    );
    Fence::parse(vec![("ringfence.yaml", text)]).unwrap()
}

/// A keeper that signs a session for whoever the ID token says, and lets an ID token `forged` be none.
fn keeper() -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        let channel = BlockingChannel::<Answer, Call>::new(theirs);
        let key = SigningKey::generate(ringfence_keys::Algorithm::Ed25519).unwrap();
        let opened = AtomicUsize::new(0);
        let txn = vec![JwtKey { kid: "k".into(), spki: key.verifying_key().to_spki().into() }];
        let sign = |id: &str, subject: &str| {
            let domain = TrustDomain::new("t.example").unwrap();
            let said = json!({ "sub": subject, "sid": format!("at-{subject}") });
            let origin = Origin::of_claims(ISSUER, said.as_object().unwrap()).unwrap();
            let identity =
                Identity { kind: IdentityKind::User, ..Identity::client("staff", subject, Vec::new()) };
            let Value::Object(members) = json!(identity) else { unreachable!() };
            let expires_at = now() + 3600;
            let spec = SessionSpec {
                trust_domain: &domain,
                id,
                subject,
                identity: members,
                mapping: "m",
                origin: &origin,
                issued_at: now(),
                expires_at,
            };
            let input = spec.signing_input(ringfence_token::Algorithm::EdDsa, "k").unwrap();
            let signature = key.sign(input.as_bytes()).unwrap();
            let token = input.seal(&signature).unwrap();
            let session = SessionToken { token: Secret::new(token), id: id.to_owned(), identity, expires_at };
            Ok(Reply::Session(Box::new(session)))
        };
        while let Ok((Call { id, request }, _)) = channel.recv() {
            let result = match request {
                Request::Status => Ok(Reply::Status(Box::new(status()))),
                Request::Bundle => Ok(Reply::Bundle(Bundle { txn: txn.clone(), ..Bundle::default() })),
                Request::DataKey(DataPurpose::Store) => Ok(Reply::DataKey { key: Secret::new([9; 32]) }),
                Request::OpenSession(open) if open.id_token.expose() == "forged" => {
                    Err(ringfence_keeper::protocol::Refusal {
                        code: KeeperCode::Denied,
                        reason: "the ID token is not believed".into(),
                    })
                }
                Request::OpenSession(open) => {
                    let number = opened.fetch_add(1, Ordering::Relaxed);
                    sign(&format!("session-{number}"), open.id_token.expose())
                }
                Request::RenewSession(renew) => {
                    let claims = renew.session.expose().split('.').nth(1).unwrap().to_owned();
                    let claims =
                        base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims);
                    let claims: Map<String, Value> = serde_json::from_slice(&claims.unwrap()).unwrap();
                    sign(claims["jti"].as_str().unwrap(), claims["sub"].as_str().unwrap())
                }
                other => panic!("not expected: {other:?}"),
            };
            if channel.send(&Answer { id, result }, &[]).is_err() {
                return;
            }
        }
    });
    ours
}

fn status() -> Status {
    Status {
        fence: "t".into(),
        trust_domain: "t.example".into(),
        generation: 1,
        signed: (1, 1),
        snapshot_expires_at: 0,
        roots: Vec::new(),
        issuing: Vec::new(),
        serving: Vec::new(),
        tokens: Vec::new(),
        txn: Vec::new(),
        counts: Counts::default(),
        log: (0, String::new()),
        minting: (0, String::new()),
    }
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let writer = Writer::open(folder.path(), "control", WriterOptions::default()).unwrap();
    let store = Store::open(&folder.path().join("state.db"), Durability::Full).await.unwrap();
    let ca = Ca::start(Client::new(keeper()).unwrap(), store.clone(), Options::default()).await.unwrap();
    let asker = Asker::default();
    let questions = asker.connect();
    let revocations = Revocations::new(store.clone(), writer.emitter());
    let signins = SignIns::new(asker.clone(), Sessions::new(store), revocations, writer.emitter());
    let ground = Ground { providers: Arc::new(fence(", opaque: introspect").providers), ca };
    World { signins, ground, asker, questions, folder, _writer: writer }
}

fn signed(subject: &str, refresh: Option<&str>) -> Outcome {
    let secret = |text: &str| Secret::new(text.to_owned());
    Outcome::SignedIn(Box::new(SignedIn {
        subject: subject.into(),
        claims: Map::new(),
        id_token: Some(secret(subject)),
        refresh_token: refresh.map(secret),
        sid: Some(format!("at-{subject}")),
        expires: now() + 600,
        access_expires: Some(now() + 300),
        scopes: vec!["openid".into()],
    }))
}

fn complete(provider: &str) -> Ask {
    Ask::Complete {
        provider: provider.into(),
        code: Secret::new("code".into()),
        iss: None,
        verifier: Secret::new("verifier".into()),
        nonce: "nonce".into(),
        redirect_uri: "https://t.example/.ringfence/callback/staff".into(),
        acr_values: Vec::new(),
        max_age: None,
    }
}

/// The number of a question, and what it asks.
fn kind(question: &ToFederation) -> (u64, &'static str) {
    match question {
        ToFederation::Begin { request, .. } => (*request, "begin"),
        ToFederation::Complete { request, .. } => (*request, "complete"),
        ToFederation::Refresh { request, .. } => (*request, "refresh"),
        ToFederation::EndSession { request, .. } => (*request, "end"),
        ToFederation::LogoutToken { request, .. } => (*request, "logout"),
        ToFederation::Introspect { request, .. } => (*request, "introspect"),
        other => panic!("{other:?}"),
    }
}

impl World {
    /// Asks, while the federation process answers with `outcomes` in order, and says what it was asked.
    async fn ask(
        &mut self,
        ask: Ask,
        outcomes: Vec<Result<Outcome, Refusal>>,
    ) -> (Result<Told, NoAnswer>, Vec<ToFederation>) {
        let mut asked = Vec::new();
        let federation = async {
            for outcome in outcomes {
                let question = self.questions.recv().await.expect("the asker lives");
                self.asker.answered(kind(&question).0, outcome);
                asked.push(question);
            }
        };
        let (told, ()) = tokio::join!(self.signins.answer(&self.ground, ask), federation);
        (told, asked)
    }

    async fn sign_in(&mut self, subject: &str, refresh: Option<&str>) -> Secret<String> {
        let (told, _) = self.ask(complete("staff"), vec![Ok(signed(subject, refresh))]).await;
        let Ok(Told::SignedIn { session, refresh_at }) = told else { panic!("{told:?}") };
        assert_eq!(refresh_at == 0, refresh.is_none());
        session
    }

    async fn live(&self) -> Vec<String> {
        let (page, _) = self.signins.sessions().list("", 100, now()).await.unwrap();
        page.into_iter().map(|(_, session)| session.user).collect()
    }

    async fn revoked(&self) -> Vec<String> {
        let page = self
            .signins
            .0
            .revocations
            .answer(crate::revocations::AskRevocations::List { after: String::new() });
        let page = page.await.unwrap();
        let all = page["revocations"].as_array().unwrap().iter();
        let mut all: Vec<String> =
            all.map(|r| format!("{} {}", r["what"].as_str().unwrap(), r["name"].as_str().unwrap())).collect();
        all.sort();
        all
    }

    /// For how many seconds from now the one revocation of this kind is remembered.
    async fn kept_for(&self, what: &str) -> u64 {
        let list = crate::revocations::AskRevocations::List { after: String::new() };
        let page = self.signins.0.revocations.answer(list).await.unwrap();
        let one = page["revocations"].as_array().unwrap().iter().find(|r| r["what"] == what).unwrap();
        one["forgotten_at"].as_u64().unwrap() - now()
    }

    /// What was told, once it is as much as `enough` wants, or never will be.
    fn events(&self, enough: impl Fn(&str) -> bool) -> String {
        let begun = std::time::Instant::now();
        loop {
            let told = std::fs::read_to_string(self.folder.path().join("control.jsonl")).unwrap_or_default();
            if enough(&told) || begun.elapsed() > Duration::from_secs(60) {
                return told;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn refusal(code: RefusalCode) -> Result<Outcome, Refusal> {
    Err(Refusal { code, reason: "said the provider".into() })
}

#[tokio::test]
async fn a_sign_in_is_begun_ended_and_told_and_a_refused_one_is_too() {
    let mut world = world().await;
    let begin = |provider: &str| Ask::Begin {
        provider: provider.into(),
        redirect_uri: "https://t.example/x".into(),
        prompt: None,
        acr_values: Vec::new(),
        max_age: None,
    };
    let begun = Outcome::Begun {
        url: "https://id.example/auth".into(),
        state: "s".into(),
        nonce: "n".into(),
        verifier: Secret::new("v".into()),
    };
    let (told, _) = world.ask(begin("staff"), vec![Ok(begun)]).await;
    assert!(matches!(told, Ok(Told::Begun { url, .. }) if url == "https://id.example/auth"));
    for elsewhere in ["api", "nobody"] {
        let (told, _) = world.ask(begin(elsewhere), vec![]).await;
        assert_eq!(told.unwrap_err().code, NoAnswerCode::Malformed, "{elsewhere} has no login");
    }
    world.sign_in("nora", Some("r1")).await;
    assert_eq!(world.live().await, ["nora"]);
    let (told, _) = world.ask(complete("staff"), vec![refusal(RefusalCode::Denied)]).await;
    assert_eq!(told.unwrap_err().code, NoAnswerCode::Denied);
    let (told, _) = world.ask(complete("staff"), vec![Ok(signed("forged", None))]).await;
    assert_eq!(told.unwrap_err().code, NoAnswerCode::Denied, "the keeper looks at the ID token itself");
    assert_eq!(world.live().await, ["nora"]);
    // The last thing is told last.
    let events = world.events(|told| told.matches("a sign-in was refused").count() == 2);
    assert_eq!(events.matches("signed in").count(), 1, "{events}");
    assert_eq!(events.matches("a sign-in was refused").count(), 2, "{events}");
}

#[tokio::test]
async fn two_refreshes_at_once_ask_the_provider_once_and_the_next_shows_what_it_gave_last() {
    let mut world = world().await;
    let session = world.sign_in("nora", Some("r1")).await;
    let refresh = || Ask::Refresh { session: session.clone() };
    let (signins, ground) = (world.signins.clone(), world.ground.clone());
    let second = async { signins.answer(&ground, refresh()).await };
    let first = world.ask(refresh(), vec![Ok(signed("nora", Some("r2")))]);
    let ((first, asked), second) = tokio::join!(first, second);
    let shown = |told: Result<Told, NoAnswer>| match told {
        Ok(Told::SignedIn { session, refresh_at }) if refresh_at > now() => session.expose().clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(shown(first), shown(second));
    assert!(matches!(&asked[0], ToFederation::Refresh { refresh_token, subject, .. }
        if refresh_token.expose() == "r1" && subject == "nora"));
    world.signins.0.turns.lock().unwrap().clear();
    let (_, asked) = world.ask(refresh(), vec![Ok(signed("nora", Some("r3")))]).await;
    assert!(
        matches!(&asked[0], ToFederation::Refresh { refresh_token, .. } if refresh_token.expose() == "r2")
    );
}

#[tokio::test]
async fn a_user_that_is_none_any_more_is_signed_out_and_a_provider_that_is_down_signs_nobody_out() {
    let mut world = world().await;
    let session = world.sign_in("nora", Some("r1")).await;
    let refresh = || Ask::Refresh { session: session.clone() };
    for code in [RefusalCode::Unavailable, RefusalCode::NotBelieved, RefusalCode::Busy] {
        let (told, _) = world.ask(refresh(), vec![refusal(code)]).await;
        assert_eq!(told.unwrap_err().code, NoAnswerCode::Unavailable, "{code:?}");
    }
    assert_eq!(world.live().await, ["nora"]);
    let (told, _) = world.ask(refresh(), vec![refusal(RefusalCode::Denied)]).await;
    assert_eq!(told.unwrap_err().code, NoAnswerCode::Denied);
    assert!(world.live().await.is_empty());
    assert_eq!(world.revoked().await, ["session session-0"]);
    let (told, _) = world.ask(refresh(), vec![]).await;
    assert_eq!(told.unwrap_err().code, NoAnswerCode::Denied, "over is over");
}

#[tokio::test]
async fn whoever_signs_out_is_signed_out_here_even_if_the_provider_does_not_answer() {
    let mut world = world().await;
    let session = world.sign_in("nora", Some("r1")).await;
    let out = |session: &Secret<String>| Ask::SignOut {
        session: session.clone(),
        back: "https://t.example/".into(),
    };
    let (told, asked) = world
        .ask(out(&session), vec![Ok(Outcome::EndSession { url: "https://id.example/end".into() })])
        .await;
    assert!(matches!(told, Ok(Told::SignedOut { url: Some(url) }) if url == "https://id.example/end"));
    assert!(
        matches!(&asked[0], ToFederation::EndSession { id_token_hint: Some(hint), .. } if hint.expose() == "nora")
    );
    assert_eq!(world.revoked().await, ["session session-0"]);
    let other = world.sign_in("omar", None).await;
    let (told, _) = world.ask(out(&other), vec![refusal(RefusalCode::Unavailable)]).await;
    assert!(matches!(told, Ok(Told::SignedOut { url: None })));
    assert!(world.live().await.is_empty());
    let forged = Secret::new(format!("{}x", other.expose()));
    let (told, _) = world.ask(out(&forged), vec![]).await;
    assert_eq!(told.unwrap_err().code, NoAnswerCode::Denied);
    assert_eq!(world.revoked().await.len(), 2, "nobody ends a session by guessing");
}

#[tokio::test]
async fn a_provider_ends_the_sessions_that_it_means() {
    let mut world = world().await;
    for subject in ["nora", "omar"] {
        world.sign_in(subject, None).await;
    }
    let logout = || Ask::LoggedOut { provider: "staff".into(), token: Secret::new("t".into()) };
    let out = |sid: Option<&str>, subject: Option<&str>| {
        Ok(Outcome::LoggedOut { sid: sid.map(Into::into), subject: subject.map(Into::into) })
    };
    let (told, _) = world.ask(logout(), vec![refusal(RefusalCode::NotBelieved)]).await;
    assert_eq!(told.unwrap_err().code, NoAnswerCode::Denied);
    assert_eq!(world.live().await, ["nora", "omar"]);
    let (told, _) = world.ask(logout(), vec![out(Some("at-nora"), None)]).await;
    assert!(matches!(told, Ok(Told::LoggedOut)));
    assert_eq!(world.live().await, ["omar"]);
    assert_eq!(world.revoked().await, ["provider-session at-nora", "session session-0"]);
    // The list has no room for what nothing can show any more.
    assert!((28_800..29_000).contains(&world.kept_for("provider-session").await));
    let (told, _) = world.ask(logout(), vec![out(None, Some("omar"))]).await;
    assert!(matches!(told, Ok(Told::LoggedOut)));
    assert!(world.live().await.is_empty());
}

#[tokio::test]
async fn what_names_a_session_at_the_provider_is_revoked_for_as_long_as_its_tokens_live() {
    let mut world = world().await;
    let Ok(Outcome::SignedIn(mut signed)) = Ok::<_, Refusal>(signed("nora", None)) else { unreachable!() };
    signed.access_expires = Some(now() + 50_000);
    let (told, _) = world.ask(complete("staff"), vec![Ok(Outcome::SignedIn(signed))]).await;
    told.unwrap();
    let logout = Ask::LoggedOut { provider: "staff".into(), token: Secret::new("t".into()) };
    let out = Outcome::LoggedOut { sid: Some("p1".into()), subject: None };
    world.ask(logout, vec![Ok(out)]).await.0.unwrap();
    assert!((49_990..50_200).contains(&world.kept_for("provider-session").await));
}

#[tokio::test]
async fn one_user_has_a_bounded_number_of_sessions_and_the_oldest_ends() {
    let mut world = world().await;
    world.sign_in("omar", None).await;
    for _ in 0..MAX_OF_USER + 2 {
        world.sign_in("nora", None).await;
    }
    let (all, _) = world.signins.sessions().list("", 1000, now()).await.unwrap();
    let of = |user| all.iter().filter(|(_, session)| session.user == user).count();
    assert_eq!((of("nora"), of("omar")), (MAX_OF_USER, 1));
    assert_eq!(world.revoked().await.len(), 2, "what was signed for it is over, too");
}

#[tokio::test]
async fn another_issuer_under_the_same_name_knows_nothing_of_a_session() {
    let mut world = world().await;
    let session = world.sign_in("nora", Some("r1")).await;
    let mut providers = (*world.ground.providers).clone();
    providers[0].issuer = "https://other.example".into();
    world.ground.providers = Arc::new(providers);
    let (told, asked) = world.ask(Ask::Refresh { session }, vec![]).await;
    assert_eq!(told.unwrap_err().code, NoAnswerCode::Denied);
    assert!(asked.is_empty(), "its refresh token is shown to nobody else");
    assert_eq!(world.revoked().await, ["session session-0"]);
}

#[tokio::test]
async fn tokens_are_asked_for_only_where_the_fence_says_so() {
    let mut world = world().await;
    let introspect =
        |provider: &str| Ask::Introspect { provider: provider.into(), token: Secret::new("opaque".into()) };
    let said = Introspected { active: true, claims: Map::new(), until: 7 };
    let (told, _) = world.ask(introspect("staff"), vec![Ok(Outcome::Introspected(said))]).await;
    assert!(matches!(told, Ok(Told::Introspected { active: true, until: 7, .. })));
    let (told, _) = world.ask(introspect("api"), vec![]).await;
    assert_eq!(told.unwrap_err().code, NoAnswerCode::Malformed);
}
