//! Generates server and client of the service that hosts speak to, without protoc: the one message is written by hand.

use tonic_build::manual::{Builder, Method, MethodBuilder, Service};

fn method(name: &str, route: &str) -> MethodBuilder {
    Method::builder()
        .name(name)
        .route_name(route)
        .input_type("crate::message::Json")
        .output_type("crate::message::Json")
        .codec_path("tonic_prost::ProstCodec")
}

fn main() {
    let service = Service::builder()
        .name("Hosts")
        .package("ringfence.v1")
        .method(method("trust", "Trust").build())
        .method(method("join", "Join").build())
        .method(method("come_back", "ComeBack").build())
        .method(method("session", "Session").client_streaming().server_streaming().build())
        .build();
    Builder::new().compile(&[service]);
    println!("cargo::rerun-if-changed=build.rs");
}
