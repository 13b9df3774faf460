//! Guesses from the values that services are given.

use crate::fence::Protocol;
use crate::scalar::port_number;

/// A host that a value names, and its port when it says one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// Written as an address (with a scheme or port), not just a word.
    pub(super) sure: bool,
}

/// The hosts in a value: an address, a URL, or a list of them.
pub(super) fn targets(value: &str) -> Vec<Target> {
    let pieces = value
        .split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '=' | '"' | '\'' | '(' | ')' | '|'));
    pieces.filter(|piece| !piece.is_empty() && piece.len() <= 2048).take(64).filter_map(target).collect()
}

fn target(piece: &str) -> Option<Target> {
    let (scheme, rest) = match piece.rsplit_once("://") {
        // `jdbc:postgresql://db/x`: the scheme nearest to the host.
        Some((scheme, rest)) => (Some(scheme.rsplit(':').next().unwrap_or(scheme)), rest),
        None => (None, piece),
    };
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, Some(port_number(port).ok()?)),
        None => (authority, scheme.and_then(scheme_port)),
    };
    let shaped = !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    // A path or a file name is no host, whatever it begins with.
    let bare_path = scheme.is_none() && rest.contains('/') && port.is_none();
    (shaped && !bare_path).then(|| Target {
        host: host.to_ascii_lowercase(),
        port,
        sure: scheme.is_some() || port.is_some(),
    })
}

fn scheme_port(scheme: &str) -> Option<u16> {
    Some(match scheme {
        "http" | "ws" => 80,
        "https" | "wss" => 443,
        "redis" | "rediss" => 6379,
        "postgres" | "postgresql" => 5432,
        "mysql" | "mariadb" => 3306,
        "mongodb" => 27017,
        "amqp" => 5672,
        "nats" => 4222,
        "smtp" => 25,
        _ => return None,
    })
}

/// Whether a variable's name says that its value is an address, so that a bare word in it is a host.
pub(super) fn names_an_address(variable: &str) -> bool {
    const WORDS: [&str; 16] = [
        "ADDR", "ADDRESS", "HOST", "HOSTS", "HOSTNAME", "URL", "URI", "ENDPOINT", "SERVER", "SERVERS",
        "BROKER", "BROKERS", "UPSTREAM", "BACKEND", "DSN", "SERVICE",
    ];
    let upper = variable.to_ascii_uppercase();
    upper.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| WORDS.contains(&word))
}

/// Whether a value may be a secret, which belongs into no fence.
pub(super) fn may_be_secret(variable: &str, value: &str) -> bool {
    const WORDS: [&str; 9] =
        ["PASSWORD", "PASSWD", "PASS", "SECRET", "TOKEN", "KEY", "CREDENTIAL", "PRIVATE", "AUTH"];
    let upper = variable.to_ascii_uppercase();
    let login = value
        .split("://")
        .nth(1)
        .is_some_and(|rest| rest.split('/').next().is_some_and(|authority| authority.contains('@')));
    login || WORDS.iter().any(|word| upper.contains(word))
}

/// The name of an image without registry, tag and digest.
fn image_name(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    let name = name.rsplit('/').next().unwrap_or(name);
    name.split(':').next().unwrap_or(name)
}

/// Servers that are run from their own images: their port, and that they speak no HTTP.
pub(super) fn known_server(image: &str) -> Option<u16> {
    Some(match image_name(image) {
        "redis" | "valkey" | "keydb" => 6379,
        "postgres" | "postgresql" | "timescaledb" | "postgis" => 5432,
        "mysql" | "mariadb" | "percona" => 3306,
        "mongo" | "mongodb" => 27017,
        "rabbitmq" => 5672,
        "memcached" => 11211,
        "nats" => 4222,
        "kafka" => 9092,
        _ => return None,
    })
}

/// What is spoken, by the name that a port has been given.
pub(super) fn protocol_by_name(name: &str) -> Option<Protocol> {
    let first = name.split('-').next().unwrap_or(name);
    match first.to_ascii_lowercase().as_str() {
        "grpc" => Some(Protocol::Grpc),
        "http" | "http2" | "web" | "https" => Some(Protocol::Http),
        "tcp" | "redis" | "mysql" | "postgres" | "postgresql" | "mongo" | "amqp" | "kafka" => {
            Some(Protocol::Tcp)
        }
        _ => None,
    }
}

/// What is spoken, by the number of a port that belongs to a well-known server.
pub(super) fn protocol_by_port(port: u16) -> Option<Protocol> {
    match port {
        6379 | 5432 | 3306 | 27017 | 5672 | 11211 | 4222 | 9092 => Some(Protocol::Tcp),
        50051 => Some(Protocol::Grpc),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(value: &str) -> Vec<(String, Option<u16>, bool)> {
        targets(value).into_iter().map(|t| (t.host, t.port, t.sure)).collect()
    }

    #[test]
    fn addresses_urls_and_lists_name_hosts() {
        assert_eq!(hosts("cart:7070"), [("cart".into(), Some(7070), true)]);
        assert_eq!(
            hosts("http://User:pw@Api/v1?x=http"),
            [("api".into(), Some(80), true), ("http".into(), None, false)]
        );
        assert_eq!(hosts("jdbc:postgresql://db:5433/app")[0], ("db".into(), Some(5433), true));
        assert_eq!(hosts("k1:9092,k2:9092").len(), 2);
        assert_eq!(hosts("redis"), [("redis".into(), None, false)]);
    }

    #[test]
    fn paths_and_texts_name_no_host() {
        for text in ["/var/lib/x", "db/data", "", "10%", "a:b", "cart:99999", "${CART}:80"] {
            assert!(
                targets(text).iter().all(|t| !t.sure && !text.contains('/')),
                "{text}: {:?}",
                targets(text)
            );
        }
    }

    #[test]
    fn names_of_variables_tell_addresses_and_secrets() {
        assert!(
            names_an_address("REDIS_ADDR") && names_an_address("DB_HOST") && !names_an_address("DB_NAME")
        );
        assert!(
            may_be_secret("DB_PASSWORD", "x")
                && may_be_secret("DB", "postgres://u:p@db/x")
                && !may_be_secret("DB_HOST", "db")
        );
        assert_eq!(known_server("docker.io/library/redis:7@sha256:00"), Some(6379));
    }
}
