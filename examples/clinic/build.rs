//! Generates the client and server of `proto/billing.proto` without protoc: the methods are named here, the messages
//! are written by hand in `src/billing/wire.rs`.

use tonic_build::manual::{Builder, Method, Service};

const CODEC: &str = "tonic_prost::ProstCodec";

fn main() {
    let method = |name: &str, route: &str, input: &str, output: &str| {
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type(format!("crate::billing::wire::{input}"))
            .output_type(format!("crate::billing::wire::{output}"))
            .codec_path(CODEC)
    };
    let service = Service::builder()
        .name("Billing")
        .package("clinic.billing.v1")
        .method(method("get_invoice", "GetInvoice", "InvoiceRequest", "Invoice").build())
        .method(
            method("list_invoices", "ListInvoices", "ListInvoicesRequest", "Invoice")
                .server_streaming()
                .build(),
        )
        .method(method("record_items", "RecordItems", "RecordItem", "Receipt").client_streaming().build())
        .method(
            method("watch", "Watch", "WatchRequest", "Notice").client_streaming().server_streaming().build(),
        )
        .build();
    Builder::new().compile(&[service]);
    println!("cargo::rerun-if-changed=build.rs");
}
