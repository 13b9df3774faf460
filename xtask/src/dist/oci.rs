//! A container image as an OCI image layout (image-spec 1.1), in one tar archive: one layer with the program and no shell, so that whoever
//! breaks in finds nothing to run.

use std::io;

use ringfence_keys::digest::sha256;
use ringfence_keys::to_hex;
use serde_json::{Value, json};

use super::tree::{Tree, gzip};

/// The image's layout, ready for `skopeo copy oci-archive:FILE …` and `podman load`.
pub(crate) fn pack(
    version: &str,
    architecture: &str,
    tree: &Tree,
    time: u64,
    created: &str,
) -> io::Result<Vec<u8>> {
    let plain = tree.tar("", time)?;
    let mut layout = Tree::default();
    let layer = blob(&mut layout, "application/vnd.oci.image.layer.v1.tar+gzip", &gzip(&plain)?);
    let config = json!({
        "created": created,
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Entrypoint": ["/usr/bin/ringfence"],
            "Cmd": ["up", "/etc/ringfence", "--data", "/var/lib/ringfence"],
            "Volumes": { "/etc/ringfence": {}, "/var/lib/ringfence": {} },
            "StopSignal": "SIGTERM",
            "Labels": { "org.opencontainers.image.title": "ringfence", "org.opencontainers.image.version": version },
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", to_hex(&sha256(&plain)))] },
        "history": [{ "created": created, "created_by": "ringfence" }],
    });
    let config = blob(&mut layout, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer],
    });
    let mut manifest =
        blob(&mut layout, "application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
    if let Some(manifest) = manifest.as_object_mut() {
        manifest.insert("annotations".to_owned(), json!({ "org.opencontainers.image.ref.name": version }));
        manifest.insert("platform".to_owned(), json!({ "architecture": architecture, "os": "linux" }));
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    layout.add("index.json", 0o644, index.to_string());
    layout.add("oci-layout", 0o644, json!({ "imageLayoutVersion": "1.0.0" }).to_string());
    layout.tar("", time)
}

/// Keeps the bytes under their digest; the descriptor that refers to them.
fn blob(layout: &mut Tree, kind: &str, bytes: &[u8]) -> Value {
    let digest = to_hex(&sha256(bytes));
    layout.add(format!("blobs/sha256/{digest}"), 0o644, bytes);
    json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len() })
}
