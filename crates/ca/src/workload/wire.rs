//! The messages of the SPIFFE Workload API, with the field numbers of the standard.

use std::collections::HashMap;

use prost::Message;

/// Most audiences and their longest.
const AUDIENCES: (usize, usize) = (16, 512);

/// `X509SVIDRequest`
#[derive(Clone, PartialEq, Eq, Message)]
pub struct X509SvidRequest {}

/// `X509SVIDResponse`
#[derive(Clone, PartialEq, Message)]
pub struct X509SvidResponse {
    /// The identities of the caller.
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<X509Svid>,
    /// Revocation lists, DER.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub crl: Vec<Vec<u8>>,
    /// Bundles of other trust domains, DER, by their SPIFFE ID.
    #[prost(map = "string, bytes", tag = "3")]
    pub federated_bundles: HashMap<String, Vec<u8>>,
}

/// `X509SVID`
#[derive(Clone, PartialEq, Eq, Message)]
pub struct X509Svid {
    /// The SPIFFE ID.
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    /// The chain, DER one after the other, leaf first.
    #[prost(bytes = "vec", tag = "2")]
    pub x509_svid: Vec<u8>,
    /// The private key, PKCS#8 DER.
    #[prost(bytes = "vec", tag = "3")]
    pub x509_svid_key: Vec<u8>,
    /// The authorities of the trust domain, DER one after the other.
    #[prost(bytes = "vec", tag = "4")]
    pub bundle: Vec<u8>,
    /// What the identity is for, if there are several.
    #[prost(string, tag = "5")]
    pub hint: String,
}

/// `X509BundlesRequest`
#[derive(Clone, PartialEq, Eq, Message)]
pub struct X509BundlesRequest {}

/// `X509BundlesResponse`
#[derive(Clone, PartialEq, Message)]
pub struct X509BundlesResponse {
    /// Revocation lists, DER.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub crl: Vec<Vec<u8>>,
    /// Authorities, DER one after the other, by the SPIFFE ID of their trust domain.
    #[prost(map = "string, bytes", tag = "2")]
    pub bundles: HashMap<String, Vec<u8>>,
}

/// `JWTSVIDRequest`
#[derive(Clone, PartialEq, Eq, Message)]
pub struct JwtSvidRequest {
    /// For whom the token is.
    #[prost(string, repeated, tag = "1")]
    pub audience: Vec<String>,
    /// For which of the caller's identities; all when empty.
    #[prost(string, tag = "2")]
    pub spiffe_id: String,
}

/// `JWTSVIDResponse`
#[derive(Clone, PartialEq, Message)]
pub struct JwtSvidResponse {
    /// The tokens.
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<JwtSvid>,
}

/// `JWTSVID`
#[derive(Clone, PartialEq, Eq, Message)]
pub struct JwtSvid {
    /// The SPIFFE ID.
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    /// The token.
    #[prost(string, tag = "2")]
    pub svid: String,
    /// What the identity is for, if there are several.
    #[prost(string, tag = "3")]
    pub hint: String,
}

/// `JWTBundlesRequest`
#[derive(Clone, PartialEq, Eq, Message)]
pub struct JwtBundlesRequest {}

/// `JWTBundlesResponse`
#[derive(Clone, PartialEq, Message)]
pub struct JwtBundlesResponse {
    /// Key sets (JSON) by the SPIFFE ID of their trust domain.
    #[prost(map = "string, bytes", tag = "1")]
    pub bundles: HashMap<String, Vec<u8>>,
}

/// `ValidateJWTSVIDRequest`
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ValidateJwtSvidRequest {
    /// Who validates.
    #[prost(string, tag = "1")]
    pub audience: String,
    /// The token.
    #[prost(string, tag = "2")]
    pub svid: String,
}

/// `ValidateJWTSVIDResponse`
#[derive(Clone, PartialEq, Message)]
pub struct ValidateJwtSvidResponse {
    /// Whose it is.
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    /// Its claims.
    #[prost(message, optional, tag = "2")]
    pub claims: Option<prost_types::Struct>,
}

impl JwtSvidRequest {
    /// Whether it asks for something that can be asked for.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        check_audiences(&self.audience)
    }
}

impl ValidateJwtSvidRequest {
    /// Whether it asks for something that can be asked for.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        check_audiences(std::slice::from_ref(&self.audience))
    }
}

fn check_audiences(audiences: &[String]) -> Result<(), String> {
    let (most, longest) = AUDIENCES;
    if audiences.is_empty() || audiences.len() > most {
        return Err(format!("audience must be specified, at most {most}"));
    }
    match audiences.iter().find(|audience| audience.is_empty() || audience.len() > longest) {
        Some(_) => Err(format!("an audience has 1 to {longest} bytes")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_is_for_somebody_and_not_for_everybody() {
        let request = |audience: Vec<String>| JwtSvidRequest { audience, spiffe_id: String::new() }.check();
        assert!(request(vec!["billing".into()]).is_ok());
        for bad in [vec![], vec![String::new()], vec!["x".repeat(513)], vec!["x".to_owned(); 17]] {
            assert!(request(bad).is_err());
        }
        assert!(ValidateJwtSvidRequest { audience: String::new(), svid: String::new() }.check().is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = JwtSvidRequest::decode(&*bytes).map(|request| request.check());
            let _ = ValidateJwtSvidRequest::decode(&*bytes).map(|request| request.check());
        }
    }
}
