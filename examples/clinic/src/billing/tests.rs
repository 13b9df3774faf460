//! A real client against a real billing over loopback, with patients of the test's own.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use http::HeaderMap;
use serde_json::json;
use tokio::net::TcpListener;
use tonic::transport::Channel;

use super::wire::billing_client::BillingClient;
use super::wire::{Item, billing_server::BillingServer};
use super::*;

/// Knows p-1001 to p-1004; p-1005 is forbidden. Without the caller's trace it knows nobody.
async fn patients() -> SocketAddr {
    let one = async |Path(id): Path<String>, headers: HeaderMap| match id.as_str() {
        _ if !headers.contains_key("traceparent") => Err(StatusCode::BAD_REQUEST),
        "p-1001" | "p-1002" | "p-1003" | "p-1004" => Ok(axum::Json(json!({
            "id": id, "name": "Alma Birch", "email": "a@b.example",
        }))),
        "p-1005" => Err(StatusCode::FORBIDDEN),
        _ => Err(StatusCode::NOT_FOUND),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/patients/{id}/contact", get(one));
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

async fn billing() -> BillingClient<Channel> {
    let base = format!("http://{}", patients().await);
    let counter = Counter {
        ledger: Ledger::with_first_invoices(),
        patients: Callee::at("patients", base, Duration::from_secs(2)),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().add_service(BillingServer::new(counter));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    BillingClient::new(endpoint.connect().await.unwrap())
}

fn traced<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    request.metadata_mut().insert("traceparent", trace.parse().unwrap());
    request
}

fn invoice_request(id: &str) -> Request<InvoiceRequest> {
    traced(InvoiceRequest { id: id.to_owned() })
}

fn record(invoice: &str, cents: i64) -> RecordItem {
    RecordItem { invoice: invoice.to_owned(), item: Some(Item { text: "Bandage".to_owned(), cents }) }
}

#[tokio::test]
async fn one_invoice_carries_the_name_that_patients_gave() {
    let mut billing = billing().await;
    let invoice = billing.get_invoice(invoice_request("i-3001")).await.unwrap().into_inner();
    assert_eq!((invoice.patient_name.as_str(), invoice.total_cents), ("Alma Birch", 7_750));
    let unknown = billing.get_invoice(invoice_request("i-9999")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert_eq!(unknown.metadata().get("clinic-invoice").unwrap(), "i-9999");
    let forbidden = billing.get_invoice(invoice_request("i-3004")).await.unwrap_err();
    assert_eq!(forbidden.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_list_streams_until_a_patient_may_not_be_asked_for() {
    let mut billing = billing().await;
    let of = |patient: &str| traced(ListInvoicesRequest { patient: patient.to_owned() });
    let mut stream = billing.list_invoices(of("p-1001")).await.unwrap().into_inner();
    let mut ids = Vec::new();
    while let Some(invoice) = stream.message().await.unwrap() {
        ids.push(invoice.id);
    }
    assert_eq!(ids, ["i-3001", "i-3006"]);
    let mut stream = billing.list_invoices(of("")).await.unwrap().into_inner();
    for _ in 0..3 {
        assert!(stream.message().await.unwrap().is_some());
    }
    assert_eq!(stream.message().await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn items_stream_in_and_one_receipt_comes_back() {
    let mut billing = billing().await;
    let items = tokio_stream::iter([record("i-3002", 100), record("i-3003", 250)]);
    let receipt = billing.record_items(Request::new(items)).await.unwrap().into_inner();
    assert_eq!(receipt, Receipt { recorded: 2, cents: 350 });
    let paid = tokio_stream::iter([record("i-3002", 100), record("i-3001", 100)]);
    assert_eq!(billing.record_items(Request::new(paid)).await.unwrap_err().code(), Code::FailedPrecondition);
    let invoice = billing.get_invoice(invoice_request("i-3002")).await.unwrap().into_inner();
    assert_eq!(invoice.total_cents, 1_900);
}

#[tokio::test]
async fn a_watch_tells_what_is_and_what_changes_until_its_caller_ends_it() {
    let mut billing = billing().await;
    let (ask, asked) = mpsc::channel(4);
    ask.send(WatchRequest { patient: "p-1002".to_owned() }).await.unwrap();
    let mut notices = billing.watch(ReceiverStream::new(asked)).await.unwrap().into_inner();
    let now = notices.message().await.unwrap().unwrap();
    assert_eq!((now.kind(), now.invoice.unwrap().total_cents), (NoticeKind::Current, 1_800));
    // A change of somebody who is not watched stays untold.
    let items = tokio_stream::iter([record("i-3003", 1), record("i-3002", 200)]);
    billing.record_items(Request::new(items)).await.unwrap();
    let changed = notices.message().await.unwrap().unwrap();
    assert_eq!((changed.kind(), changed.invoice.unwrap().total_cents), (NoticeKind::Changed, 2_000));
    drop(ask);
    assert_eq!(notices.message().await.unwrap(), None);
}

#[tokio::test]
async fn a_caller_that_never_finishes_meets_its_deadline() {
    let mut billing = billing().await;
    let (keep_open, items) = mpsc::channel(1);
    keep_open.send(record("i-3002", 100)).await.unwrap();
    let mut request = Request::new(ReceiverStream::new(items));
    request.set_timeout(Duration::from_millis(200));
    let status = billing.record_items(request).await.unwrap_err();
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status}");
}
