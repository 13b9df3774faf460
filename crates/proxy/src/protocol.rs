//! Messages between the supervisor and the node process, and between the node and a shim.
//!
//! Descriptors travel beside the messages: listeners, the channel to control and those to shims are made by others and
//! handed in, so that this process needs no right to make an AF_UNIX socket or to enter a service's network.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// From the supervisor to the node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToNode {
    /// The first message.
    Start(Start),
    /// Serve here. One listening descriptor per data-plane thread, bound with SO_REUSEPORT to one address.
    Listener {
        /// What is served.
        kind: ListenerKind,
    },
    /// Stop accepting here; connections that are open go on.
    CloseListener {
        /// What was served.
        kind: ListenerKind,
    },
    /// One descriptor: the channel to control, which speaks `snapshot::node`. Comes again when control was restarted.
    Control,
    /// One descriptor: the channel to the shim of a service, which speaks [`shim`].
    Shim {
        /// The service.
        service: String,
    },
    /// The shim is gone: its sockets lead nowhere.
    ShimGone {
        /// The service.
        service: String,
    },
    /// The service answers.
    ShimReady {
        /// The service.
        service: String,
    },
    /// The service does not answer (yet): requests to it are refused fast.
    ShimNotReady {
        /// The service.
        service: String,
    },
    /// The gateway's certificate from files; sent again when they change.
    GatewayFiles {
        /// The chain, PEM.
        cert: String,
        /// The private key, PEM.
        key: SecretText,
    },
    /// Stop accepting, let what is under way end, cut what is left after this many seconds.
    Drain {
        /// How long to wait.
        seconds: u64,
    },
    /// Stop now.
    Shutdown,
}

/// What a node needs to know before anything else.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Start {
    /// SubjectPublicKeyInfo of the key that signs snapshots.
    pub snapshot_key: ringfence_snapshot::Der,
    /// The data directory; the node writes only below `proxy/` and `events/node/` in it.
    pub data_dir: PathBuf,
    /// Data-plane threads.
    pub threads: usize,
    /// Name of this node, a DNS label.
    pub node: String,
    /// Where this node's sidecars reach its own mesh listener.
    pub mesh: SocketAddr,
}

/// What is served on a listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListenerKind {
    /// The way in from outside.
    Gateway,
    /// The one mesh listener of the node.
    Mesh,
    /// A port in the network of a service, on which it finds callees and egress hosts.
    Outbound {
        /// Whose network it is: whoever connects is this service.
        service: String,
        /// The port.
        port: u16,
    },
}

/// From the node to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromNode {
    /// Threads run, waiting for listeners.
    Ready,
    /// The listener accepts.
    Listening {
        /// Which.
        kind: ListenerKind,
    },
    /// A snapshot is in force on every thread.
    Applied {
        /// Its revision.
        revision: u64,
    },
    /// A message could not be followed.
    Refused {
        /// What was wrong, for the operator.
        reason: String,
    },
    /// A drain has ended.
    Drained {
        /// Connections that had to be cut.
        cut: u64,
    },
}

/// Text that is never printed and is wiped when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretText(String);

impl SecretText {
    /// Wraps a secret.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for SecretText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Messages between the node and a shim.
pub mod shim {
    use serde::{Deserialize, Serialize};

    /// From the node to a shim.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum ToShim {
        /// Make unconnected TCP sockets inside the service's network.
        Sockets {
            /// How many, at most [`ringfence_channel::MAX_FDS`].
            count: u32,
        },
    }

    /// From a shim to the node.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum FromShim {
        /// The sockets, as descriptors.
        Sockets {
            /// How many.
            count: u32,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shim_s_messages_have_the_agreed_form() {
        let text = serde_json::to_string(&shim::ToShim::Sockets { count: 4 }).unwrap();
        assert_eq!(text, r#"{"sockets":{"count":4}}"#);
        assert_eq!(
            serde_json::from_str::<shim::FromShim>(&text).unwrap(),
            shim::FromShim::Sockets { count: 4 }
        );
    }

    #[test]
    fn a_gateway_key_is_not_printed() {
        let message = ToNode::GatewayFiles { cert: "c".into(), key: SecretText::new("BEGIN PRIVATE".into()) };
        assert!(!format!("{message:?}").contains("PRIVATE"));
    }
}
