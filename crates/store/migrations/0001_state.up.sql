-- One row: where the counters stand. Every transaction that writes goes through it, so revisions follow commits.
CREATE TABLE head (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    revision BIGINT NOT NULL,
    audit_hash TEXT NOT NULL
);
INSERT INTO head (id, revision, audit_hash) VALUES (1, 0, '');

CREATE TABLE document (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    revision BIGINT NOT NULL,
    body TEXT NOT NULL,
    sealed BLOB,
    PRIMARY KEY (kind, name)
);

CREATE TABLE audit (
    revision BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    detail TEXT NOT NULL,
    hash TEXT NOT NULL
);

CREATE TABLE outbox (
    revision BIGINT NOT NULL,
    position BIGINT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    effect TEXT NOT NULL,
    PRIMARY KEY (revision, position)
);

CREATE TABLE issued (
    serial TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    key_digest TEXT NOT NULL,
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX issued_by_end ON issued (not_after);
