//! Generates the server of the SPIFFE Workload API without protoc: the methods are named here, the messages are written by
//! hand in `src/workload/wire.rs`.

use tonic_build::manual::{Builder, Method, MethodBuilder, Service};

fn method(name: &str, route: &str, input: &str, output: &str) -> MethodBuilder {
    Method::builder()
        .name(name)
        .route_name(route)
        .input_type(format!("crate::workload::wire::{input}"))
        .output_type(format!("crate::workload::wire::{output}"))
        .codec_path("tonic_prost::ProstCodec")
}

fn main() {
    let service = Service::builder()
        .name("SpiffeWorkloadAPI")
        // The standard puts the service into no package.
        .package("")
        .method(
            method("fetch_x509_svid", "FetchX509SVID", "X509SvidRequest", "X509SvidResponse")
                .server_streaming()
                .build(),
        )
        .method(
            method("fetch_x509_bundles", "FetchX509Bundles", "X509BundlesRequest", "X509BundlesResponse")
                .server_streaming()
                .build(),
        )
        .method(method("fetch_jwt_svid", "FetchJWTSVID", "JwtSvidRequest", "JwtSvidResponse").build())
        .method(
            method("fetch_jwt_bundles", "FetchJWTBundles", "JwtBundlesRequest", "JwtBundlesResponse")
                .server_streaming()
                .build(),
        )
        .method(
            method(
                "validate_jwt_svid",
                "ValidateJWTSVID",
                "ValidateJwtSvidRequest",
                "ValidateJwtSvidResponse",
            )
            .build(),
        )
        .build();
    Builder::new().build_client(false).compile(&[service]);
    println!("cargo::rerun-if-changed=build.rs");
}
