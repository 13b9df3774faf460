//! The messages of `proto/billing.proto`, written by hand so that building the clinic needs no protoc, and the client
//! and server that `build.rs` generates for them.

/// Asks for one invoice.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct InvoiceRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

/// Asks for the invoices of one patient, or all.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct ListInvoicesRequest {
    #[prost(string, tag = "1")]
    pub(crate) patient: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message, serde::Serialize)]
pub(crate) struct Item {
    #[prost(string, tag = "1")]
    pub(crate) text: String,
    #[prost(int64, tag = "2")]
    pub(crate) cents: i64,
}

#[derive(Clone, PartialEq, Eq, prost::Message, serde::Serialize)]
pub(crate) struct Invoice {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) patient: String,
    #[prost(string, tag = "3")]
    pub(crate) patient_name: String,
    #[prost(message, repeated, tag = "4")]
    pub(crate) items: Vec<Item>,
    #[prost(int64, tag = "5")]
    pub(crate) total_cents: i64,
    #[prost(bool, tag = "6")]
    pub(crate) paid: bool,
}

/// One item for one invoice.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct RecordItem {
    #[prost(string, tag = "1")]
    pub(crate) invoice: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) item: Option<Item>,
}

/// What was recorded in one call.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Receipt {
    #[prost(uint32, tag = "1")]
    pub(crate) recorded: u32,
    #[prost(int64, tag = "2")]
    pub(crate) cents: i64,
}

/// Adds a patient to a watch.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct WatchRequest {
    #[prost(string, tag = "1")]
    pub(crate) patient: String,
}

/// An invoice as it is, or as it has become.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Notice {
    #[prost(enumeration = "NoticeKind", tag = "1")]
    pub(crate) kind: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) invoice: Option<Invoice>,
}

/// `Notice.Kind` of the proto file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum NoticeKind {
    Current = 0,
    Changed = 1,
}

pub(crate) use generated::{billing_client, billing_server};

#[expect(
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
mod generated {
    tonic::include_proto!("clinic.billing.v1.Billing");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost::Message;

    use super::*;

    /// Message name to field number to wire type, as the proto file declares them.
    fn declared() -> BTreeMap<String, BTreeMap<u8, u8>> {
        let file = include_str!("../../proto/billing.proto");
        let (mut messages, mut name) = (BTreeMap::<String, BTreeMap<u8, u8>>::new(), String::new());
        for line in file.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
            let words: Vec<&str> = line.trim_end_matches(';').split_whitespace().collect();
            match words[..] {
                ["message", of, "{"] => name = of.to_owned(),
                [.., kind, _, "=", number] if !name.is_empty() => {
                    let wire = match kind {
                        "int64" | "uint32" | "bool" | "Kind" => 0,
                        _ => 2,
                    };
                    messages.entry(name.clone()).or_default().insert(number.parse().unwrap(), wire);
                }
                _ => {}
            }
        }
        messages
    }

    /// The same, of an encoded message; all numbers and lengths here fit one byte.
    fn written(message: &impl Message) -> BTreeMap<u8, u8> {
        let (bytes, mut fields, mut at) = (message.encode_to_vec(), BTreeMap::new(), 0);
        while at < bytes.len() {
            let (number, wire) = (bytes[at] >> 3, bytes[at] & 7);
            fields.insert(number, wire);
            at += 2 + if wire == 2 { usize::from(bytes[at + 1]) } else { 0 };
        }
        fields
    }

    #[test]
    fn the_messages_are_those_of_the_proto_file() {
        let text = || "x".to_owned();
        let item = Item { text: text(), cents: 7 };
        let invoice = Invoice {
            id: text(),
            patient: text(),
            patient_name: text(),
            items: vec![item.clone()],
            total_cents: 7,
            paid: true,
        };
        let ours = [
            ("InvoiceRequest", written(&InvoiceRequest { id: text() })),
            ("ListInvoicesRequest", written(&ListInvoicesRequest { patient: text() })),
            ("Item", written(&item)),
            ("Invoice", written(&invoice)),
            ("RecordItem", written(&RecordItem { invoice: text(), item: Some(item) })),
            ("Receipt", written(&Receipt { recorded: 1, cents: 7 })),
            ("WatchRequest", written(&WatchRequest { patient: text() })),
            ("Notice", written(&Notice { kind: NoticeKind::Changed.into(), invoice: Some(invoice) })),
        ];
        assert_eq!(declared(), ours.map(|(name, fields)| (name.to_owned(), fields)).into());
    }
}
