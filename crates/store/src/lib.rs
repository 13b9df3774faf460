//! Durable state: commit-ordered revisions, audit records and a transactional outbox
